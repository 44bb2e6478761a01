// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package registrycache_test

import (
	"context"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	extensionsv1alpha1 "github.com/gardener/gardener/pkg/apis/extensions/v1alpha1"

	"github.com/gardener/gardener-extension-registry-cache/pkg/hosts"
)

var _ = Describe("Webhook", func() {
	It("is registered so that it can stop nothing", func(ctx SpecContext) {
		config := &admissionregistrationv1.MutatingWebhookConfiguration{}
		Eventually(func() error {
			return seed.Get(ctx, client.ObjectKey{Name: "gardener-extension-registry-cache"}, config)
		}).WithContext(ctx).Should(Succeed())

		selects := func(extensionType string, operator metav1.LabelSelectorOperator) metav1.LabelSelectorRequirement {
			return metav1.LabelSelectorRequirement{Key: "extensions.gardener.cloud/" + extensionType, Operator: operator, Values: []string{"true"}}
		}
		Expect(config.Webhooks).To(ConsistOf(
			HaveField("NamespaceSelector.MatchExpressions", ConsistOf(selects("registry-cache", metav1.LabelSelectorOpIn))),
			HaveField("NamespaceSelector.MatchExpressions", ConsistOf(
				selects("registry-mirror", metav1.LabelSelectorOpIn), selects("registry-cache", metav1.LabelSelectorOpNotIn))),
		), "one for each type, and none twice for Shoots with both")
		for _, webhook := range config.Webhooks {
			Expect(webhook.FailurePolicy).To(HaveValue(Equal(admissionregistrationv1.Ignore)))
			Expect(webhook.TimeoutSeconds).To(HaveValue(BeNumerically("<=", 5)))
			Expect(webhook.Rules).To(ConsistOf(HaveField("Rule.Resources", ConsistOf("operatingsystemconfigs"))))
		}
	}, SpecTimeout(time.Minute))

	It("adds files and the unit, once", func(ctx SpecContext) {
		namespace := newShoot(ctx)
		status := reconcile(ctx, namespace, cache{"upstream": "docker.io"}, cache{"upstream": "registry.example.com:5000", "http": map[string]any{"tls": false}})

		osc := eventuallyMutated(ctx, newOperatingSystemConfig(namespace, "pool-a"))

		unit := osc.Spec.Units[len(osc.Spec.Units)-1]
		Expect(unit.Name).To(Equal(hosts.UnitName))
		Expect(unit.Enable).To(HaveValue(BeTrue()))
		Expect(filesOf(osc)).To(And(
			HaveKeyWithValue(hosts.Directory+"/docker.io/00-server.toml", ContainSubstring("https://registry-1.docker.io")),
			HaveKeyWithValue(hosts.Directory+"/docker.io/10-cache.toml", ContainSubstring(status.Caches[0].Endpoint)),
			HaveKeyWithValue(hosts.Directory+"/registry.example.com:5000/10-cache.toml", ContainSubstring(status.Caches[1].Endpoint)),
			ContainElement(string(caBundle(ctx, namespace, status))),
		))
		Expect(unit.FilePaths).To(HaveLen(len(filesOf(osc)) - 1))

		By("writing it anew as gardenlet does")
		generation := osc.Generation
		osc.Spec = newOperatingSystemConfig(namespace, "pool-a").Spec
		Expect(seed.Update(ctx, osc)).To(Succeed())
		Expect(osc.Generation).To(Equal(generation))

		By("annotating it")
		patch := client.MergeFrom(osc.DeepCopy())
		metav1.SetMetaDataAnnotation(&osc.ObjectMeta, "example.com/any", "thing")
		Expect(seed.Patch(ctx, osc, patch)).To(Succeed())
		Expect(osc.Generation).To(Equal(generation))

		By("removing a cache")
		reconcile(ctx, namespace, cache{"upstream": "docker.io"})
		osc.Spec = newOperatingSystemConfig(namespace, "pool-a").Spec
		Expect(seed.Update(ctx, osc)).To(Succeed())
		Expect(filesOf(osc)).NotTo(HaveKey(ContainSubstring("registry.example.com:5000")))
		Expect(filesOf(osc)).To(HaveKey(hosts.Directory + "/docker.io/10-cache.toml"))
	}, SpecTimeout(2*time.Minute))

	It("gives the nodes of all worker pools the same", func(ctx SpecContext) {
		namespace := newShoot(ctx)
		reconcile(ctx, namespace, cache{"upstream": "docker.io"}, cache{"upstream": "ghcr.io"})
		first := eventuallyMutated(ctx, newOperatingSystemConfig(namespace, "pool-a"))

		second := newOperatingSystemConfig(namespace, "pool-b")
		second.Spec.CRIConfig = nil
		third := newOperatingSystemConfig(namespace, "pool-c")
		third.Spec.CRIConfig.Containerd = &extensionsv1alpha1.ContainerdConfig{Registries: []extensionsv1alpha1.RegistryConfig{
			{Upstream: "quay.io", Server: ptr.To("https://quay.io"), Hosts: []extensionsv1alpha1.RegistryHost{{URL: "https://quay.example.com"}}},
		}}
		for _, osc := range []*extensionsv1alpha1.OperatingSystemConfig{second, third} {
			criConfig := osc.Spec.CRIConfig.DeepCopy()
			Expect(seed.Create(ctx, osc)).To(Succeed())
			Expect(osc.Spec.Files).To(Equal(first.Spec.Files))
			Expect(osc.Spec.Units).To(Equal(first.Spec.Units))
			Expect(osc.Spec.CRIConfig).To(Equal(criConfig), "what others configure for other upstreams stays")
		}

		By("having the entry of another for an upstream with a cache")
		fourth := newOperatingSystemConfig(namespace, "pool-d")
		fourth.Spec.CRIConfig.Containerd = &extensionsv1alpha1.ContainerdConfig{Registries: []extensionsv1alpha1.RegistryConfig{
			{Upstream: "ghcr.io", Server: ptr.To("https://ghcr.io"), Hosts: []extensionsv1alpha1.RegistryHost{{URL: "https://ghcr.example.com"}}},
		}}
		Expect(seed.Create(ctx, fourth)).To(Succeed())
		Expect(fourth.Spec.CRIConfig.Containerd.Registries).To(BeEmpty())
		Expect(filesOf(fourth)).To(HaveKeyWithValue(hosts.Directory+"/ghcr.io/20-mirror-01.toml", ContainSubstring("https://ghcr.example.com")))
	}, SpecTimeout(time.Minute))

	It("leaves OperatingSystemConfigs alone that are not its business", func(ctx SpecContext) {
		namespace := newShoot(ctx)
		reconcile(ctx, namespace, cache{"upstream": "docker.io"})
		eventuallyMutated(ctx, newOperatingSystemConfig(namespace, "pool-a"))

		provision := newOperatingSystemConfig(namespace, "pool-a-provision")
		provision.Spec.Purpose = extensionsv1alpha1.OperatingSystemConfigPurposeProvision
		without := newOperatingSystemConfig("shoot-without-caches", "pool-a")
		Expect(seed.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: without.Namespace}})).To(Succeed())
		for _, osc := range []*extensionsv1alpha1.OperatingSystemConfig{provision, without} {
			want := osc.Spec.DeepCopy()
			Expect(seed.Create(ctx, osc)).To(Succeed())
			Expect(&osc.Spec).To(Equal(want))
		}
	}, SpecTimeout(time.Minute))
})

func newOperatingSystemConfig(namespace, name string) *extensionsv1alpha1.OperatingSystemConfig {
	return &extensionsv1alpha1.OperatingSystemConfig{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec: extensionsv1alpha1.OperatingSystemConfigSpec{
			DefaultSpec: extensionsv1alpha1.DefaultSpec{Type: "gardenlinux"},
			Purpose:     extensionsv1alpha1.OperatingSystemConfigPurposeReconcile,
			CRIConfig:   &extensionsv1alpha1.CRIConfig{Name: extensionsv1alpha1.CRINameContainerD},
			Units:       []extensionsv1alpha1.Unit{{Name: "kubelet.service", Enable: ptr.To(true)}},
			Files: []extensionsv1alpha1.File{{
				Path:    "/etc/kubelet.conf",
				Content: extensionsv1alpha1.FileContent{Inline: &extensionsv1alpha1.FileContentInline{Data: "kubelet"}},
			}},
		},
	}
}

// eventuallyMutated creates an OperatingSystemConfig and returns it as the
// webhook made it. Only the first may have to wait for the registration.
func eventuallyMutated(ctx context.Context, osc *extensionsv1alpha1.OperatingSystemConfig) *extensionsv1alpha1.OperatingSystemConfig {
	GinkgoHelper()
	return eventuallyMutatedIn(ctx, seed, osc)
}

func eventuallyMutatedIn(ctx context.Context, seed client.Client, osc *extensionsv1alpha1.OperatingSystemConfig) *extensionsv1alpha1.OperatingSystemConfig {
	GinkgoHelper()
	spec := osc.Spec.DeepCopy()
	Expect(seed.Create(ctx, osc)).To(Succeed())
	Eventually(func(g Gomega) {
		patch := client.MergeFrom(osc.DeepCopy())
		metav1.SetMetaDataAnnotation(&osc.ObjectMeta, "gardener.cloud/timestamp", time.Now().Format(time.RFC3339Nano))
		g.Expect(seed.Patch(ctx, osc, patch)).To(Succeed())
		g.Expect(osc.Spec.Units).To(ContainElement(HaveField("Name", hosts.UnitName)))
	}).WithContext(ctx).Should(Succeed())
	Expect(osc.Spec.Purpose).To(Equal(spec.Purpose))
	return osc
}

func filesOf(osc *extensionsv1alpha1.OperatingSystemConfig) map[string]string {
	files := make(map[string]string, len(osc.Spec.Files))
	for _, file := range osc.Spec.Files {
		files[file.Path] = file.Content.Inline.Data
	}
	return files
}
