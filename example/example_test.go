// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

// Package example_test keeps the examples true: each is decoded and validated
// by the code that reads such an object in production. Tests of that code are
// not for here.
package example_test

import (
	"bytes"
	"os"
	"testing"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	gardencorev1beta1 "github.com/gardener/gardener/pkg/apis/core/v1beta1"
	extensionsv1alpha1 "github.com/gardener/gardener/pkg/apis/extensions/v1alpha1"

	configv1alpha1 "github.com/gardener/gardener-extension-registry-cache/pkg/apis/config/v1alpha1"
	configvalidation "github.com/gardener/gardener-extension-registry-cache/pkg/apis/config/validation"
	mirrorv1alpha1 "github.com/gardener/gardener-extension-registry-cache/pkg/apis/mirror/v1alpha1"
	mirrorvalidation "github.com/gardener/gardener-extension-registry-cache/pkg/apis/mirror/validation"
	"github.com/gardener/gardener-extension-registry-cache/pkg/apis/registry/v1alpha3"
	"github.com/gardener/gardener-extension-registry-cache/pkg/apis/registry/validation"
)

func TestShoot(t *testing.T) {
	g := NewWithT(t)
	secret, shoot := readShoot(g, "shoot.yaml")

	config := decode(g, providerConfig(g, shoot, v1alpha3.ExtensionType))

	g.Expect(validation.ValidateSecretReferences(config, shoot.Spec.Resources, nil)).To(BeEmpty())
	reference := referenceTo(g, secret, shoot)
	g.Expect(config.Caches).To(ContainElement(HaveField("SecretReferenceName", HaveValue(Equal(reference)))))
	g.Expect(validation.ValidateSecret(secret, nil, reference)).To(BeEmpty())
}

func TestShootWithMirrors(t *testing.T) {
	g := NewWithT(t)
	secret, shoot := readShoot(g, "shoot-registry-mirror.yaml")

	config, err := mirrorv1alpha1.Decode(providerConfig(g, shoot, mirrorv1alpha1.ExtensionType))

	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(mirrorvalidation.ValidateMirrorConfig(config, nil)).To(BeEmpty())
	g.Expect(mirrorvalidation.ValidateSecretReferences(config, shoot.Spec.Resources, nil)).To(BeEmpty())
	reference := referenceTo(g, secret, shoot)
	g.Expect(config.Mirrors[0].Hosts).To(ContainElement(HaveField("CABundleSecretReferenceName", HaveValue(Equal(reference)))))
	g.Expect(mirrorvalidation.ValidateSecret(secret, nil, reference)).To(BeEmpty())
}

func TestExtensionIsWhatTheShootAsksFor(t *testing.T) {
	g := NewWithT(t)
	_, shoot := readShoot(g, "shoot.yaml")
	extension := &extensionsv1alpha1.Extension{}
	unmarshal(g, read(g, "extension.yaml"), extension)

	g.Expect(extension.Kind).To(Equal("Extension"))
	g.Expect(extension.APIVersion).To(Equal(extensionsv1alpha1.SchemeGroupVersion.String()))
	g.Expect(extension.Name).To(Equal(v1alpha3.ExtensionType))
	g.Expect(extension.Spec.Type).To(Equal(v1alpha3.ExtensionType))
	g.Expect(extension.Spec.ProviderConfig).NotTo(BeNil())
	g.Expect(decode(g, extension.Spec.ProviderConfig.Raw)).To(Equal(decode(g, providerConfig(g, shoot, v1alpha3.ExtensionType))))
}

func TestDemoIsOneShoot(t *testing.T) {
	g := NewWithT(t)
	cluster, extension, osc := &extensionsv1alpha1.Cluster{}, &extensionsv1alpha1.Extension{}, &extensionsv1alpha1.OperatingSystemConfig{}
	unmarshal(g, read(g, "demo/cluster.yaml"), cluster)
	unmarshal(g, read(g, "demo/extension.yaml"), extension)
	unmarshal(g, read(g, "demo/operatingsystemconfig.yaml"), osc)
	shoot := &gardencorev1beta1.Shoot{}
	unmarshal(g, cluster.Spec.Shoot.Raw, shoot)

	g.Expect(shoot.Status.TechnicalID).To(Equal(cluster.Name))
	g.Expect(extension.Namespace).To(Equal(cluster.Name))
	g.Expect(osc.Namespace).To(Equal(cluster.Name))
	g.Expect(extension.Name).To(Equal(v1alpha3.ExtensionType))
	g.Expect(extension.Spec.Type).To(Equal(v1alpha3.ExtensionType))
	g.Expect(extension.Spec.ProviderConfig).NotTo(BeNil())
	g.Expect(decode(g, extension.Spec.ProviderConfig.Raw)).To(Equal(decode(g, providerConfig(g, shoot, v1alpha3.ExtensionType))))
	g.Expect(osc.Spec.Purpose).To(Equal(extensionsv1alpha1.OperatingSystemConfigPurposeReconcile))
}

func TestCacheConfiguration(t *testing.T) {
	g := NewWithT(t)
	config, err := configv1alpha1.DecodeCacheConfiguration(read(g, "cache-configuration.yaml"))

	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(configvalidation.ValidateCacheConfiguration(config)).To(BeEmpty())
}

// readShoot returns both documents of a file, the Secret as an API server stores
// it.
func readShoot(g *WithT, name string) (*corev1.Secret, *gardencorev1beta1.Shoot) {
	documents := bytes.Split(read(g, name), []byte("\n---\n"))
	g.Expect(documents).To(HaveLen(2))

	secret := &corev1.Secret{}
	unmarshal(g, documents[0], secret)
	g.Expect(secret.Kind).To(Equal("Secret"))
	secret.Data = make(map[string][]byte, len(secret.StringData))
	for key, value := range secret.StringData {
		secret.Data[key] = []byte(value)
	}

	shoot := &gardencorev1beta1.Shoot{}
	unmarshal(g, documents[1], shoot)
	g.Expect(shoot.Kind).To(Equal("Shoot"))
	g.Expect(shoot.APIVersion).To(Equal(gardencorev1beta1.SchemeGroupVersion.String()))
	return secret, shoot
}

// referenceTo returns the name by which a Shoot's configuration refers to its
// Secret.
func referenceTo(g *WithT, secret *corev1.Secret, shoot *gardencorev1beta1.Shoot) string {
	g.Expect(secret.Namespace).To(Equal(shoot.Namespace))
	g.Expect(shoot.Spec.Resources).To(ConsistOf(HaveField("ResourceRef.Name", secret.Name)))
	return shoot.Spec.Resources[0].Name
}

func providerConfig(g *WithT, shoot *gardencorev1beta1.Shoot, extensionType string) []byte {
	g.Expect(shoot.Spec.Extensions).To(HaveLen(1))
	extension := shoot.Spec.Extensions[0]
	g.Expect(extension.Type).To(Equal(extensionType))
	g.Expect(extension.ProviderConfig).NotTo(BeNil())
	return extension.ProviderConfig.Raw
}

// decode returns a valid configuration.
func decode(g *WithT, raw []byte) *v1alpha3.RegistryConfig {
	config, err := v1alpha3.Decode(raw)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(validation.ValidateRegistryConfig(config, nil)).To(BeEmpty())
	return config
}

func read(g *WithT, name string) []byte {
	content, err := os.ReadFile(name)
	g.Expect(err).NotTo(HaveOccurred())
	return content
}

func unmarshal(g *WithT, document []byte, object any) {
	g.Expect(yaml.UnmarshalStrict(document, object)).To(Succeed())
}
