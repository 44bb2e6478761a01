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

	nodeagentconfigv1alpha1 "github.com/gardener/gardener/pkg/apis/config/nodeagent/v1alpha1"
	gardencorev1beta1 "github.com/gardener/gardener/pkg/apis/core/v1beta1"
	extensionsv1alpha1 "github.com/gardener/gardener/pkg/apis/extensions/v1alpha1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	mirrorv1alpha1 "github.com/gardener/gardener-extension-registry-cache/pkg/apis/mirror/v1alpha1"
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
	extension, err := s.enableExtension(ctx, v1alpha3.ExtensionType, config)
	if err != nil {
		return nil, err
	}
	if extension.Status.ProviderStatus == nil {
		return nil, fmt.Errorf("no status in Extension %s/%s", extension.Namespace, extension.Name)
	}
	return v1alpha3.DecodeStatus(extension.Status.ProviderStatus.Raw)
}

// ApplyMirrors reconciles the Shoot with the given mirrors.
func (s *Shoot) ApplyMirrors(ctx context.Context, mirrors ...mirrorv1alpha1.MirrorConfiguration) error {
	config := &mirrorv1alpha1.MirrorConfig{
		TypeMeta: metav1.TypeMeta{APIVersion: mirrorv1alpha1.SchemeGroupVersion.String(), Kind: "MirrorConfig"},
		Mirrors:  mirrors,
	}
	raw, err := json.Marshal(config)
	if err != nil {
		return fmt.Errorf("marshal configuration: %w", err)
	}
	_, err = s.enableExtension(ctx, mirrorv1alpha1.ExtensionType, &runtime.RawExtension{Raw: raw})
	return err
}

func (s *Shoot) enableExtension(ctx context.Context, extensionType string, config *runtime.RawExtension) (*extensionsv1alpha1.Extension, error) {
	if err := gardener.LabelNamespace(ctx, s.landscape.SeedClient, s.Namespace, extensionType, true); err != nil {
		return nil, err
	}
	return gardener.ReconcileExtension(ctx, s.landscape.SeedClient, s.Namespace, extensionType, config)
}

// DisableExtension takes the caches out of the Shoot.
func (s *Shoot) DisableExtension(ctx context.Context) error {
	return s.disableExtension(ctx, v1alpha3.ExtensionType)
}

// DisableMirrors takes the mirrors out of the Shoot.
func (s *Shoot) DisableMirrors(ctx context.Context) error {
	return s.disableExtension(ctx, mirrorv1alpha1.ExtensionType)
}

func (s *Shoot) disableExtension(ctx context.Context, extensionType string) error {
	if err := gardener.LabelNamespace(ctx, s.landscape.SeedClient, s.Namespace, extensionType, false); err != nil {
		return err
	}
	return gardener.DeleteExtension(ctx, s.landscape.SeedClient, s.Namespace, extensionType)
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
	return s.updateCluster(ctx)
}

// SetCARotation sets how far the rotation of the Shoot's certificate authorities
// is, as Gardener does before it reconciles the Shoot for this phase.
func (s *Shoot) SetCARotation(ctx context.Context, phase gardencorev1beta1.CredentialsRotationPhase) error {
	credentials := s.shoot.Status.Credentials
	if credentials == nil || phase == gardencorev1beta1.RotationPreparing {
		credentials = &gardencorev1beta1.ShootCredentials{Rotation: &gardencorev1beta1.ShootCredentialsRotation{
			CertificateAuthorities: &gardencorev1beta1.CARotation{LastInitiationTime: ptr.To(metav1.Now())},
		}}
		s.shoot.Status.Credentials = credentials
	}
	credentials.Rotation.CertificateAuthorities.Phase = phase
	return s.updateCluster(ctx)
}

// updateCluster brings the Shoot, as we have it, to the Seed.
func (s *Shoot) updateCluster(ctx context.Context) error {
	var err error
	if s.cluster.Spec.Shoot.Raw, err = json.Marshal(s.shoot); err != nil {
		return fmt.Errorf("marshal Shoot: %w", err)
	}
	if err := s.landscape.SeedClient.Update(ctx, s.cluster); err != nil {
		return fmt.Errorf("update Cluster of the Shoot: %w", err)
	}
	return nil
}

// HideFromWebhooks has the webhooks of extensions leave the OperatingSystemConfig of a
// Shoot without mirrors alone, as if they were not there, until an Extension is
// applied the next time. The API server knows of the label a moment later: it is
// waited for, with an OperatingSystemConfig that does not reach the node.
func (s *Shoot) HideFromWebhooks(ctx context.Context) error {
	if err := gardener.LabelNamespace(ctx, s.landscape.SeedClient, s.Namespace, v1alpha3.ExtensionType, false); err != nil {
		return err
	}
	err := wait.PollUntilContextCancel(ctx, pollInterval, true, func(ctx context.Context) (bool, error) {
		osc, err := s.WriteOperatingSystemConfig(ctx)
		if err != nil {
			return false, err
		}
		return len(osc.Spec.Units) == len(s.osc.Spec.Units) && len(osc.Spec.Files) == len(s.osc.Spec.Files), nil
	})
	if err != nil {
		return fmt.Errorf("wait until webhooks leave the OperatingSystemConfig alone: %w", err)
	}
	return nil
}

// WriteOperatingSystemConfig writes the OperatingSystemConfig anew, as gardenlet
// does at every reconciliation, and returns what the webhooks made of it. The
// changes are what gardenlet or other extensions would write this time.
func (s *Shoot) WriteOperatingSystemConfig(ctx context.Context, changes ...func(*extensionsv1alpha1.OperatingSystemConfig)) (*extensionsv1alpha1.OperatingSystemConfig, error) {
	wanted := s.osc.DeepCopy()
	for _, change := range changes {
		change(wanted)
	}
	return gardener.WriteOperatingSystemConfig(ctx, s.landscape.SeedClient, wanted)
}

// UpdateNode writes the OperatingSystemConfig, hands it to the node, and waits
// until gardener-node-agent has applied it. It returns the OperatingSystemConfig.
func (s *Shoot) UpdateNode(ctx context.Context, changes ...func(*extensionsv1alpha1.OperatingSystemConfig)) (*extensionsv1alpha1.OperatingSystemConfig, error) {
	osc, err := s.WriteOperatingSystemConfig(ctx, changes...)
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

// AppliedOperatingSystemConfig is the OperatingSystemConfig that
// gardener-node-agent has applied last, as it keeps it on the node.
func (l *Landscape) AppliedOperatingSystemConfig() (*extensionsv1alpha1.OperatingSystemConfig, error) {
	content, err := os.ReadFile(l.Node.Path(nodeagentconfigv1alpha1.LastAppliedOperatingSystemConfigFilePath))
	if err != nil {
		return nil, fmt.Errorf("read what gardener-node-agent has applied: %w", err)
	}
	osc := &extensionsv1alpha1.OperatingSystemConfig{}
	if err := yaml.Unmarshal(content, osc); err != nil {
		return nil, fmt.Errorf("read what gardener-node-agent has applied: %w", err)
	}
	return osc, nil
}
