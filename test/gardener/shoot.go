// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package gardener

import (
	"context"
	"fmt"

	v1beta1constants "github.com/gardener/gardener/pkg/apis/core/v1beta1/constants"
	"github.com/gardener/gardener/pkg/controllerutils"
	"github.com/gardener/gardener/pkg/utils/secrets"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// NewNamespace creates a Shoot's namespace in the Seed, with the Secret by which
// extensions reach the Shoot's API server. Where they exist already, they are
// brought up to date.
func NewNamespace(ctx context.Context, c client.Client, name string, kubeconfig []byte) error {
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}
	if _, err := controllerutils.GetAndCreateOrMergePatch(ctx, c, namespace, func() error {
		metav1.SetMetaDataLabel(&namespace.ObjectMeta, v1beta1constants.GardenRole, v1beta1constants.GardenRoleShoot)
		return nil
	}); err != nil {
		return fmt.Errorf("create namespace %s in the Seed: %w", name, err)
	}
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: name, Name: v1beta1constants.SecretNameGardener}}
	if _, err := controllerutils.GetAndCreateOrMergePatch(ctx, c, secret, func() error {
		secret.Data = map[string][]byte{secrets.DataKeyKubeconfig: kubeconfig}
		return nil
	}); err != nil {
		return fmt.Errorf("create Secret %s/%s in the Seed: %w", name, secret.Name, err)
	}
	return nil
}

// LabelNamespace says in a Shoot's namespace in the Seed whether the Shoot uses an
// extension, for the selectors of webhooks.
func LabelNamespace(ctx context.Context, c client.Client, name, extensionType string, used bool) error {
	namespace := &corev1.Namespace{}
	if err := c.Get(ctx, client.ObjectKey{Name: name}, namespace); err != nil {
		return fmt.Errorf("read namespace of the Shoot: %w", err)
	}
	patch := client.MergeFrom(namespace.DeepCopy())
	label := v1beta1constants.LabelExtensionPrefix + extensionType
	if used {
		metav1.SetMetaDataLabel(&namespace.ObjectMeta, label, "true")
	} else {
		delete(namespace.Labels, label)
	}
	if err := c.Patch(ctx, namespace, patch); err != nil {
		return fmt.Errorf("label namespace of the Shoot: %w", err)
	}
	return nil
}
