// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package admission_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/go-logr/logr"
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	gardencorev1beta1 "github.com/gardener/gardener/pkg/apis/core/v1beta1"
	extensionsv1alpha1 "github.com/gardener/gardener/pkg/apis/extensions/v1alpha1"
	"github.com/gardener/gardener/pkg/component/extensions/extension"

	"github.com/gardener/gardener-extension-registry-cache/pkg/apis/registry/v1alpha3"
	"github.com/gardener/gardener-extension-registry-cache/test/charts"
	"github.com/gardener/gardener-extension-registry-cache/test/pages"
)

const (
	examples = "../../../example"

	configurationName = "gardener-extension-admission-registry-cache"
	cacheLabel        = "extensions.extensions.gardener.cloud/registry-cache"
	mirrorLabel       = "extensions.extensions.gardener.cloud/registry-mirror"
)

var _ = Describe("Admission", func() {
	It("has its webhooks in the garden cluster, and all else in the runtime cluster", func(ctx SpecContext) {
		awaitRegistration(ctx)
		configuration := &admissionregistrationv1.ValidatingWebhookConfiguration{}
		Expect(garden.Get(ctx, client.ObjectKey{Name: configurationName}, configuration)).To(Succeed())
		Expect(configuration.OwnerReferences).To(ConsistOf(And(HaveField("Kind", "Namespace"), HaveField("Name", charts.ExtensionNamespace))))
		Expect(configuration.Webhooks).To(ConsistOf(
			HaveField("Name", "registry-cache.admission-registry-cache.extensions.gardener.cloud"),
			HaveField("Name", "registry-mirror.admission-registry-cache.extensions.gardener.cloud"),
		))
		for _, webhook := range configuration.Webhooks {
			Expect(webhook.FailurePolicy).To(HaveValue(Equal(admissionregistrationv1.Fail)))
			Expect(webhook.TimeoutSeconds).To(HaveValue(BeEquivalentTo(8)))
			Expect(webhook.SideEffects).To(HaveValue(Equal(admissionregistrationv1.SideEffectClassNone)))
			Expect(webhook.Rules).To(HaveExactElements(And(
				HaveField("Resources", HaveExactElements("shoots")),
				HaveField("APIVersions", HaveExactElements("*")),
				HaveField("Operations", HaveExactElements(admissionregistrationv1.Create, admissionregistrationv1.Update)),
			)))
		}

		for _, name := range []string{"admission-registry-cache-leader-election", "gardener-extension-heartbeat"} {
			lease := &coordinationv1.Lease{}
			Eventually(func() error {
				return runtimeCluster.Get(ctx, client.ObjectKey{Namespace: "garden", Name: name}, lease)
			}).Should(Succeed())
		}
		certificates := &corev1.SecretList{}
		Expect(runtimeCluster.List(ctx, certificates, client.InNamespace("garden"), client.MatchingLabels{"manager-identity": "gardener-extension-admission-registry-cache-webhook"})).To(Succeed())
		Expect(certificates.Items).NotTo(BeEmpty())
		inGarden := &corev1.SecretList{}
		Expect(garden.List(ctx, inGarden, client.InNamespace("garden"))).To(Succeed())
		Expect(inGarden.Items).To(BeEmpty())
	})

	It("accepts the good example, of which the Extensions get the configuration as it was typed", func(ctx SpecContext) {
		apply(ctx, user, filepath.Join(examples, "admission/good.yaml"))

		shoot := getShoot(ctx, "good")
		Expect(shoot.Labels).To(And(HaveKeyWithValue(cacheLabel, "true"), HaveKeyWithValue(mirrorLabel, "true")))
		expectExtensions(ctx, shoot, readShoot("admission/good.yaml"))
	})

	DescribeTable("accepts what other examples have in place of it", func(ctx SpecContext, file, label string) {
		example := readShoot(file)
		shoot := newShoot(example.Name)
		shoot.Spec.Extensions, shoot.Spec.Resources = example.Spec.Extensions, example.Spec.Resources
		content := readExample(file)
		if last := strings.LastIndex(content, "\n---\n"); last > 0 {
			Expect(kubectlApply(ctx, content[:last])).To(BeEmpty(), "its Secrets")
		}

		Expect(kubectlApply(ctx, toYAML(shoot))).To(BeEmpty())

		stored := getShoot(ctx, example.Name)
		Expect(stored.Labels).To(HaveKeyWithValue(label, "true"))
		expectExtensions(ctx, stored, example)
	},
		Entry("caches", "shoot.yaml", cacheLabel),
		Entry("mirrors", "shoot-registry-mirror.yaml", mirrorLabel),
		Entry("both", "shoot-cache-and-mirror.yaml", cacheLabel),
		Entry("both", "shoot-cache-and-mirror.yaml", mirrorLabel),
		Entry("credentials", "shoot-credentials.yaml", cacheLabel),
		Entry("high availability", "shoot-high-availability.yaml", cacheLabel),
		Entry("proxies", "shoot-proxy.yaml", cacheLabel),
		Entry("Services", "shoot-service.yaml", cacheLabel),
		Entry("volumes", "shoot-volume.yaml", cacheLabel),
	)

	DescribeTable("refuses the bad examples with what they say", func(ctx SpecContext, file string) {
		apply(ctx, user, filepath.Join(examples, "admission/good.yaml"))

		stderr, err := user.run(ctx, "", "apply", "-f", filepath.Join(examples, "admission", file))
		Expect(err).To(HaveOccurred())
		printed := pages.Printed(readExample("admission/" + file))
		Expect(printed).NotTo(BeEmpty())
		Expect(pages.TrimLines(stderr)).To(Equal(printed))
	},
		Entry(nil, "bad-values.yaml"),
		Entry(nil, "bad-fields.yaml"),
		Entry(nil, "bad-missing.yaml"),
		Entry(nil, "bad-secrets.yaml"),
		Entry(nil, "bad-update.yaml"),
	)

	It("lets Shoots live on whose configuration is not accepted any more", func(ctx SpecContext) {
		awaitRegistration(ctx)
		configuration := &admissionregistrationv1.ValidatingWebhookConfiguration{ObjectMeta: metav1.ObjectMeta{Name: configurationName}}
		Expect(garden.Delete(ctx, configuration)).To(Succeed())
		shoot := newShoot("old", withCaches(`{"upstream": "docker.io/library", "foo": 1}`))
		shoot.Finalizers = []string{"example.com/gardenlet"}
		Eventually(func() error { return garden.Create(ctx, shoot.DeepCopy()) }).Should(Succeed())
		Expect(admission.Stop()).To(Succeed())
		startAdmissionAnew(ctx)
		awaitRegistration(ctx)

		for _, patch := range []string{
			`{"metadata": {"annotations": {"foo": "bar"}}}`,
			`{"spec": {"hibernation": {"enabled": true}}}`,
		} {
			stderr, err := user.run(ctx, "", "-n", "garden-dev", "patch", "shoot", "old", "--type=merge", "-p", patch)
			Expect(err).NotTo(HaveOccurred(), stderr)
		}
		stderr, err := user.run(ctx, "", "-n", "garden-dev", "patch", "shoot", "old", "--type=json", "-p",
			`[{"op": "replace", "path": "/spec/extensions/0/providerConfig/caches/0/foo", "value": 2}]`)
		Expect(err).To(HaveOccurred())
		Expect(stderr).To(ContainSubstring(`spec.extensions[0].providerConfig.caches[0].foo: Forbidden: unknown field: expected one of upstream, remoteURL, volume, garbageCollection, secretReferenceName, proxy, http, highAvailability, serviceNameSuffix`))

		stderr, err = user.run(ctx, "", "-n", "garden-dev", "annotate", "shoot", "old", "confirmation.gardener.cloud/deletion=true")
		Expect(err).NotTo(HaveOccurred(), stderr)
		stderr, err = user.run(ctx, "", "-n", "garden-dev", "delete", "shoot", "old", "--wait=false")
		Expect(err).NotTo(HaveOccurred(), stderr)
		// It is there until gardenlet has deleted it. The configuration cannot be changed
		// meanwhile, for Gardener forbids that.
		stderr, err = user.run(ctx, "", "-n", "garden-dev", "annotate", "shoot", "old", "foo=baz", "--overwrite")
		Expect(err).NotTo(HaveOccurred(), stderr)
		stderr, err = user.run(ctx, "", "-n", "garden-dev", "patch", "shoot", "old", "--type=merge", "-p", `{"metadata": {"finalizers": null}}`)
		Expect(err).NotTo(HaveOccurred(), stderr)
	}, SpecTimeout(2*time.Minute))
})

// awaitRegistration waits until the garden calls the webhooks.
func awaitRegistration(ctx context.Context) {
	GinkgoHelper()
	Eventually(func(g Gomega) {
		configuration := &admissionregistrationv1.ValidatingWebhookConfiguration{}
		g.Expect(garden.Get(ctx, client.ObjectKey{Name: configurationName}, configuration)).To(Succeed())
		g.Expect(configuration.Webhooks).To(HaveEach(HaveField("ClientConfig.CABundle", Not(BeEmpty()))))
		// The garden has to see it as well.
		g.Expect(garden.Create(ctx, newShoot("probe", withCaches(`{}`)), client.DryRunAll)).To(MatchError(ContainSubstring("providerConfig.caches[0].upstream")))
	}).WithTimeout(time.Minute).Should(Succeed())
}

// newShoot returns a Shoot that can be created, in which changes are made.
func newShoot(name string, changes ...func(*gardencorev1beta1.Shoot)) *gardencorev1beta1.Shoot {
	GinkgoHelper()
	shoot := readShoot("admission/good.yaml")
	shoot.Name = name
	shoot.Spec.Extensions, shoot.Spec.Resources = nil, nil
	for _, change := range changes {
		change(shoot)
	}
	return shoot
}

// withCaches adds caches in JSON.
func withCaches(caches string) func(*gardencorev1beta1.Shoot) {
	return withExtension("registry-cache", `{"apiVersion":"registry.extensions.gardener.cloud/v1alpha3","kind":"RegistryConfig","caches":[`+caches+`]}`)
}

func withExtension(extensionType, config string) func(*gardencorev1beta1.Shoot) {
	return func(shoot *gardencorev1beta1.Shoot) {
		extension := gardencorev1beta1.Extension{Type: extensionType}
		Expect(json.Unmarshal([]byte(fmt.Sprintf(`{"providerConfig":%s}`, config)), &extension)).To(Succeed())
		extension.Type = extensionType
		shoot.Spec.Extensions = append(shoot.Spec.Extensions, extension)
	}
}

// withSecret adds an entry of the name of a Secret.
func withSecret(name string) func(*gardencorev1beta1.Shoot) {
	return func(shoot *gardencorev1beta1.Shoot) {
		reference := gardencorev1beta1.NamedResourceReference{Name: name}
		reference.ResourceRef.APIVersion, reference.ResourceRef.Kind, reference.ResourceRef.Name = "v1", "Secret", name
		shoot.Spec.Resources = append(shoot.Spec.Resources, reference)
	}
}

func getShoot(ctx context.Context, name string) *gardencorev1beta1.Shoot {
	GinkgoHelper()
	shoot := &gardencorev1beta1.Shoot{}
	Expect(garden.Get(ctx, client.ObjectKey{Namespace: "garden-dev", Name: name}, shoot)).To(Succeed())
	return shoot
}

// expectExtensions makes Extensions of a Shoot by gardenlet's own code, and expects
// in them byte for byte what the garden has stored, which means what was typed.
func expectExtensions(ctx context.Context, stored, typed *gardencorev1beta1.Shoot) {
	GinkgoHelper()
	namespace := "shoot--dev--" + stored.Name
	Expect(client.IgnoreAlreadyExists(runtimeCluster.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}))).To(Succeed())
	values := &extension.Values{Namespace: namespace, Extensions: make(map[string]extension.Extension)}
	for _, e := range stored.Spec.Extensions {
		object := extensionsv1alpha1.Extension{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: e.Type}}
		object.Spec.Type, object.Spec.ProviderConfig = e.Type, e.ProviderConfig
		values.Extensions[e.Type] = extension.Extension{Extension: object}
	}
	Expect(extension.New(logr.Discard(), runtimeCluster, values, 0, 0, 0).Deploy(ctx)).To(Succeed())

	Expect(stored.Spec.Extensions).To(HaveLen(len(typed.Spec.Extensions)))
	for i, e := range typed.Spec.Extensions {
		object := &extensionsv1alpha1.Extension{}
		Expect(runtimeCluster.Get(ctx, client.ObjectKey{Namespace: namespace, Name: e.Type}, object)).To(Succeed())
		Expect(object.Spec.ProviderConfig.Raw).To(MatchJSON(e.ProviderConfig.Raw))
		Expect(string(stored.Spec.Extensions[i].ProviderConfig.Raw)).To(MatchJSON(e.ProviderConfig.Raw))
		if e.Type == v1alpha3.ExtensionType {
			config, err := v1alpha3.Decode(object.Spec.ProviderConfig.Raw)
			Expect(err).NotTo(HaveOccurred())
			Expect(v1alpha3.Decode(e.ProviderConfig.Raw)).To(Equal(config))
		}
	}
}

func kubectlApply(ctx context.Context, manifest string) (stderr string) {
	GinkgoHelper()
	stderr, err := user.run(ctx, manifest, "apply", "-f", "-")
	Expect(err == nil).To(Equal(stderr == ""), stderr)
	return stderr
}

// readShoot returns the Shoot of an example.
func readShoot(file string) *gardencorev1beta1.Shoot {
	GinkgoHelper()
	documents := strings.Split(readExample(file), "\n---\n")
	shoot := &gardencorev1beta1.Shoot{}
	Expect(yaml.UnmarshalStrict([]byte(documents[len(documents)-1]), shoot)).To(Succeed())
	return shoot
}

func readExample(file string) string {
	GinkgoHelper()
	content, err := os.ReadFile(filepath.Join(examples, file))
	Expect(err).NotTo(HaveOccurred())
	return string(content)
}

func toYAML(object any) string {
	GinkgoHelper()
	content, err := yaml.Marshal(object)
	Expect(err).NotTo(HaveOccurred())
	return string(content)
}
