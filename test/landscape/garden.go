// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package landscape

import (
	"context"
	"fmt"

	gardencorev1beta1 "github.com/gardener/gardener/pkg/apis/core/v1beta1"
	v1beta1constants "github.com/gardener/gardener/pkg/apis/core/v1beta1/constants"
	"github.com/gardener/gardener/pkg/controllerutils"
	"github.com/gardener/gardener/pkg/utils/secrets"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// Publish writes about the Shoot, whose resource is in the garden already, what
// gardenlet does when it has created one: by that the garden's API server gives out
// kubeconfigs, which the Shoot lets in.
func (s *Shoot) Publish(ctx context.Context, garden client.Client) error {
	ca := s.landscape.Shoot.CA()
	binding := &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: v1beta1constants.ShootSystemAdminsGroupName},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "cluster-admin"},
		Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.GroupKind, Name: v1beta1constants.ShootSystemAdminsGroupName}},
	}
	if err := s.landscape.ShootClient.Create(ctx, binding); err != nil {
		return fmt.Errorf("let administrators into the Shoot: %w", err)
	}
	for _, object := range []client.Object{
		&gardencorev1beta1.InternalSecret{
			ObjectMeta: metav1.ObjectMeta{Namespace: s.shoot.Namespace, Name: s.shoot.Name + ".ca-client"},
			Data:       map[string][]byte{secrets.DataKeyCertificateCA: ca.CertificatePEM, secrets.DataKeyPrivateKeyCA: ca.PrivateKeyPEM},
		},
		&corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{Namespace: s.shoot.Namespace, Name: s.shoot.Name + ".ca-cluster"},
			Data:       map[string]string{secrets.DataKeyCertificateCA: string(ca.CertificatePEM)},
		},
	} {
		if err := garden.Create(ctx, object); err != nil {
			return fmt.Errorf("create %T in the garden: %w", object, err)
		}
	}
	return s.Report(ctx, garden, func(shoot *gardencorev1beta1.Shoot) {
		shoot.Status.TechnicalID = s.Namespace
		shoot.Status.AdvertisedAddresses = []gardencorev1beta1.ShootAdvertisedAddress{
			{Name: v1beta1constants.AdvertisedAddressExternal, URL: s.landscape.Shoot.URL()},
		}
		shoot.Status.LastOperation = &gardencorev1beta1.LastOperation{
			Type: gardencorev1beta1.LastOperationTypeReconcile, State: gardencorev1beta1.LastOperationStateSucceeded,
			Progress: 100, LastUpdateTime: metav1.Now(),
		}
	})
}

// Report changes the status of the Shoot's resource in the garden, and takes away the
// operation that it asks for, as gardenlet does when it has taken it up.
func (s *Shoot) Report(ctx context.Context, garden client.Client, change func(*gardencorev1beta1.Shoot)) error {
	shoot, err := s.InGarden(ctx, garden)
	if err != nil {
		return err
	}
	before := shoot.DeepCopy()
	change(shoot)
	if err := garden.Status().Patch(ctx, shoot, client.MergeFrom(before)); err != nil {
		return fmt.Errorf("write status of the Shoot in the garden: %w", err)
	}
	before = shoot.DeepCopy()
	delete(shoot.Annotations, v1beta1constants.GardenerOperation)
	if err := garden.Patch(ctx, shoot, client.MergeFrom(before)); err != nil {
		return fmt.Errorf("take up the operation of the Shoot in the garden: %w", err)
	}
	return nil
}

// InGarden returns the Shoot's resource in the garden.
func (s *Shoot) InGarden(ctx context.Context, garden client.Client) (*gardencorev1beta1.Shoot, error) {
	shoot := &gardencorev1beta1.Shoot{}
	if err := garden.Get(ctx, client.ObjectKeyFromObject(s.shoot), shoot); err != nil {
		return nil, fmt.Errorf("read Shoot in the garden: %w", err)
	}
	return shoot, nil
}

// Follow reconciles the Shoot as its resource in the garden says: its Extensions, the
// Secrets that it refers to, and the rotation of its credentials.
func (s *Shoot) Follow(ctx context.Context, garden client.Client) error {
	shoot, err := s.InGarden(ctx, garden)
	if err != nil {
		return err
	}
	for _, resource := range shoot.Spec.Resources {
		if err := s.copySecret(ctx, garden, resource.ResourceRef.Name); err != nil {
			return err
		}
	}
	s.shoot.Spec.Extensions, s.shoot.Spec.Resources = shoot.Spec.Extensions, shoot.Spec.Resources
	s.shoot.Status.Credentials = shoot.Status.Credentials
	if err := s.updateCluster(ctx); err != nil {
		return err
	}
	for _, extension := range shoot.Spec.Extensions {
		if _, err := s.enableExtension(ctx, extension.Type, extension.ProviderConfig); err != nil {
			return err
		}
	}
	return nil
}

// copySecret copies a Secret of the project to the Shoot's namespace in the Seed.
func (s *Shoot) copySecret(ctx context.Context, garden client.Client, name string) error {
	original := &corev1.Secret{}
	if err := garden.Get(ctx, client.ObjectKey{Namespace: s.shoot.Namespace, Name: name}, original); err != nil {
		return fmt.Errorf("read referenced Secret: %w", err)
	}
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: s.Namespace, Name: v1beta1constants.ReferencedResourcesPrefix + name}}
	if _, err := controllerutils.GetAndCreateOrMergePatch(ctx, s.landscape.SeedClient, secret, func() error {
		secret.Data = original.Data
		return nil
	}); err != nil {
		return fmt.Errorf("copy referenced Secret: %w", err)
	}
	return nil
}
