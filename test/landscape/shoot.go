// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package landscape

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	gardencorev1beta1 "github.com/gardener/gardener/pkg/apis/core/v1beta1"
	extensionsv1alpha1 "github.com/gardener/gardener/pkg/apis/extensions/v1alpha1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/gardener/gardener-extension-registry-cache/pkg/apis/registry/v1alpha3"
	"github.com/gardener/gardener-extension-registry-cache/test/cluster"
	"github.com/gardener/gardener-extension-registry-cache/test/gardener"
)

// Shoot is a Shoot as the Seed knows it.
type Shoot struct {
	// Namespace is the Shoot's namespace in the Seed.
	Namespace string

	landscape *Landscape
	cluster   *extensionsv1alpha1.Cluster
	shoot     *gardencorev1beta1.Shoot
	extension *extensionsv1alpha1.Extension
	osc       *extensionsv1alpha1.OperatingSystemConfig
}

// NewShoot creates in the Seed the Shoot of example/demo, which is that of the
// cluster. It has no Extension yet.
func (l *Landscape) NewShoot(ctx context.Context) (*Shoot, error) {
	s := &Shoot{
		landscape: l, cluster: &extensionsv1alpha1.Cluster{}, shoot: &gardencorev1beta1.Shoot{},
		extension: &extensionsv1alpha1.Extension{}, osc: &extensionsv1alpha1.OperatingSystemConfig{},
	}
	for file, object := range map[string]client.Object{"cluster": s.cluster, "extension": s.extension, "operatingsystemconfig": s.osc} {
		content, err := os.ReadFile(filepath.Join(l.root, "example", "demo", file+".yaml")) //nolint:gosec // an example of the repository
		if err != nil {
			return nil, fmt.Errorf("read example: %w", err)
		}
		if err := yaml.UnmarshalStrict(content, object); err != nil {
			return nil, fmt.Errorf("read example %s: %w", file, err)
		}
	}
	if err := json.Unmarshal(s.cluster.Spec.Shoot.Raw, s.shoot); err != nil {
		return nil, fmt.Errorf("read Shoot of the example: %w", err)
	}
	s.Namespace = s.cluster.Name
	if err := gardener.NewNamespace(ctx, l.SeedClient, s.Namespace, l.Shoot.Kubeconfig); err != nil {
		return nil, err
	}
	if err := l.SeedClient.Create(ctx, s.cluster); err != nil {
		return nil, fmt.Errorf("create Cluster of the example: %w", err)
	}
	return s, nil
}

// ApplyExtension reconciles the Shoot with the Extension of example/demo.
func (s *Shoot) ApplyExtension(ctx context.Context) (*v1alpha3.RegistryStatus, error) {
	return s.applyConfig(ctx, s.extension.Spec.ProviderConfig)
}

// ApplyCaches reconciles the Shoot with the given caches.
func (s *Shoot) ApplyCaches(ctx context.Context, caches ...v1alpha3.RegistryCache) (*v1alpha3.RegistryStatus, error) {
	config := &v1alpha3.RegistryConfig{
		TypeMeta: metav1.TypeMeta{APIVersion: v1alpha3.SchemeGroupVersion.String(), Kind: "RegistryConfig"},
		Caches:   caches,
	}
	raw, err := json.Marshal(config)
	if err != nil {
		return nil, fmt.Errorf("marshal configuration: %w", err)
	}
	return s.applyConfig(ctx, &runtime.RawExtension{Raw: raw})
}

func (s *Shoot) applyConfig(ctx context.Context, config *runtime.RawExtension) (*v1alpha3.RegistryStatus, error) {
	if err := gardener.LabelNamespace(ctx, s.landscape.SeedClient, s.Namespace, v1alpha3.ExtensionType, true); err != nil {
		return nil, err
	}
	extension, err := gardener.ReconcileExtension(ctx, s.landscape.SeedClient, s.Namespace, v1alpha3.ExtensionType, config)
	if err != nil {
		return nil, err
	}
	if extension.Status.ProviderStatus == nil {
		return nil, fmt.Errorf("no status in Extension %s/%s", extension.Namespace, extension.Name)
	}
	return v1alpha3.DecodeStatus(extension.Status.ProviderStatus.Raw)
}

// DisableExtension takes the extension out of the Shoot.
func (s *Shoot) DisableExtension(ctx context.Context) error {
	if err := gardener.LabelNamespace(ctx, s.landscape.SeedClient, s.Namespace, v1alpha3.ExtensionType, false); err != nil {
		return err
	}
	return gardener.DeleteExtension(ctx, s.landscape.SeedClient, s.Namespace, v1alpha3.ExtensionType)
}

// ReferToSecret creates a Secret as gardenlet copies it into the Shoot's
// namespace in the Seed, and adds it to the Shoot's resources by its name.
func (s *Shoot) ReferToSecret(ctx context.Context, name string, data map[string][]byte) error {
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: s.Namespace, Name: "ref-" + name}, Data: data}
	if err := s.landscape.SeedClient.Create(ctx, secret); err != nil {
		return fmt.Errorf("create referenced Secret: %w", err)
	}
	s.shoot.Spec.Resources = append(s.shoot.Spec.Resources, gardencorev1beta1.NamedResourceReference{
		Name:        name,
		ResourceRef: autoscalingv1.CrossVersionObjectReference{APIVersion: "v1", Kind: "Secret", Name: name},
	})
	var err error
	if s.cluster.Spec.Shoot.Raw, err = json.Marshal(s.shoot); err != nil {
		return fmt.Errorf("marshal Shoot: %w", err)
	}
	if err := s.landscape.SeedClient.Update(ctx, s.cluster); err != nil {
		return fmt.Errorf("update Cluster of the Shoot: %w", err)
	}
	return nil
}

// UpdateNode writes the OperatingSystemConfig anew, as gardenlet does at every
// reconciliation, hands what the webhooks made of it to the node, and waits until
// gardener-node-agent has applied that. It returns the OperatingSystemConfig.
func (s *Shoot) UpdateNode(ctx context.Context) (*extensionsv1alpha1.OperatingSystemConfig, error) {
	osc, err := gardener.WriteOperatingSystemConfig(ctx, s.landscape.SeedClient, s.osc)
	if err != nil {
		return nil, err
	}
	err = gardener.ApplyOperatingSystemConfig(ctx, s.landscape.SeedClient, s.landscape.ShootClient, osc,
		cluster.OperatingSystemConfigSecret, cluster.NodeName)
	if err != nil {
		return nil, err
	}
	return osc, nil
}
