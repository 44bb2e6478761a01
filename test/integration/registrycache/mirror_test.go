// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package registrycache_test

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"maps"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	gardencorev1beta1 "github.com/gardener/gardener/pkg/apis/core/v1beta1"
	extensionsv1alpha1 "github.com/gardener/gardener/pkg/apis/extensions/v1alpha1"
	resourcesv1alpha1 "github.com/gardener/gardener/pkg/apis/resources/v1alpha1"
	secretsutils "github.com/gardener/gardener/pkg/utils/secrets"

	"github.com/gardener/gardener-extension-registry-cache/pkg/apis/mirror/v1alpha1"
	registryv1alpha3 "github.com/gardener/gardener-extension-registry-cache/pkg/apis/registry/v1alpha3"
	"github.com/gardener/gardener-extension-registry-cache/pkg/hosts"
	"github.com/gardener/gardener-extension-registry-cache/test/gardener"
	upstreamtest "github.com/gardener/gardener-extension-registry-cache/test/upstream"
)

// mirror is a mirror as it stands in a Shoot.
type mirror = map[string]any

var _ = Describe("Mirrors", func() {
	It("are checked, and nothing is deployed for them", func(ctx SpecContext) {
		namespace := newShootWithMirrors(ctx, secretReference("mirror-ca", "mirror-ca-v1"))
		createReferencedSecret(ctx, namespace, "mirror-ca-v1", map[string]string{"bundle.crt": string(newMirrorCA().CertificatePEM)})

		extension := reconcileMirrors(ctx, namespace, mirrorConfig(map[string][]mirror{
			"docker.io": {{"host": "https://mirror.example.com", "capabilities": []string{"pull", "resolve"}, "caBundleSecretReferenceName": "mirror-ca"}},
			"ghcr.io":   {{"host": "https://harbor.example.com/v2/ghcr", "overridePath": true}},
		}))

		Expect(extension.Status.ProviderStatus).To(BeNil())
		list := &resourcesv1alpha1.ManagedResourceList{}
		Expect(seed.List(ctx, list, client.InNamespace(namespace))).To(Succeed())
		Expect(list.Items).To(BeEmpty())

		By("deleting the Extension")
		deleteMirrors(ctx, namespace)
		Expect(seed.Get(ctx, client.ObjectKeyFromObject(extension), extension)).To(Satisfy(apierrors.IsNotFound))
	}, SpecTimeout(time.Minute))

	DescribeTable("that are wrong are refused with errors that name what is wrong",
		func(ctx SpecContext, config string, expected ...string) {
			extension := applyMirrors(ctx, newShootWithMirrors(ctx), config)
			expectConfigurationProblem(awaitExtension(ctx, extension, gardencorev1beta1.LastOperationStateError), expected...)
		},
		Entry("none", "", "spec.providerConfig", "empty"),
		Entry("another kind", `{"apiVersion":"registry.extensions.gardener.cloud/v1alpha3","kind":"RegistryConfig"}`, "spec.providerConfig", `"RegistryConfig"`),
		Entry("an unknown field", `{"apiVersion":"mirror.extensions.gardener.cloud/v1alpha1","kind":"MirrorConfig","mirrors":[{"upstream":"docker.io","hosts":[{"url":"https://a.io"}]}]}`,
			`mirrors[0].hosts[0].url: Forbidden: unknown field`),
		Entry("several mistakes at once", mirrorConfig(map[string][]mirror{
			"docker.io": {{"host": "mirror.example.com"}, {"host": "https://user:s3cr3t@mirror.example.com/.."}, {"host": "https://a.io", "capabilities": []string{"push"}}},
		}), "spec.providerConfig.mirrors[0].hosts[0].host", "spec.providerConfig.mirrors[0].hosts[1].host", `"***@mirror.example.com/.."`, "spec.providerConfig.mirrors[0].hosts[2].capabilities[0]"),
		Entry("a reference that the Shoot does not have", mirrorConfig(map[string][]mirror{
			"docker.io": {{"host": "https://mirror.example.com", "caBundleSecretReferenceName": "mirror-ca"}},
		}), "spec.providerConfig.mirrors[0].hosts[0].caBundleSecretReferenceName", `"mirror-ca"`),
	)

	It("are right as soon as the Secret with their CA bundle is", func(ctx SpecContext) {
		namespace := newShootWithMirrors(ctx, secretReference("mirror-ca", "mirror-ca-v1"))
		const path = "spec.providerConfig.mirrors[0].hosts[0].caBundleSecretReferenceName"
		extension := applyMirrors(ctx, namespace, mirrorConfig(map[string][]mirror{
			"docker.io": {{"host": "https://mirror.example.com", "caBundleSecretReferenceName": "mirror-ca"}},
		}))
		expectConfigurationProblem(awaitExtension(ctx, extension, gardencorev1beta1.LastOperationStateError), path, `Secret "mirror-ca-v1" does not exist`)

		By("creating it with a private key in the bundle")
		ca := newMirrorCA()
		createReferencedSecret(ctx, namespace, "mirror-ca-v1", map[string]string{"bundle.crt": string(ca.CertificatePEM) + string(ca.PrivateKeyPEM)})
		Eventually(func(g Gomega) {
			g.Expect(seed.Get(ctx, client.ObjectKeyFromObject(extension), extension)).To(Succeed())
			g.Expect(extension.Status.LastError).NotTo(BeNil())
			g.Expect(extension.Status.LastError.Description).To(ContainSubstring("is a private key"))
		}).WithContext(ctx).Should(Succeed())
		expectConfigurationProblem(extension, path, "mirror-ca-v1")

		By("mending it")
		secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "ref-mirror-ca-v1"}}
		Expect(seed.Delete(ctx, secret)).To(Succeed())
		createReferencedSecret(ctx, namespace, "mirror-ca-v1", map[string]string{"bundle.crt": string(ca.CertificatePEM)})
		awaitExtension(ctx, extension, gardencorev1beta1.LastOperationStateSucceeded)
		Expect(extension.Status.LastError).To(BeNil())
	}, SpecTimeout(2*time.Minute))

	It("reach the nodes in their order, after a cache", func(ctx SpecContext) {
		ca := newMirrorCA()
		namespace := newShootWithMirrors(ctx, secretReference("mirror-ca", "mirror-ca-v1"))
		createReferencedSecret(ctx, namespace, "mirror-ca-v1", map[string]string{"bundle.crt": string(ca.CertificatePEM)})
		config := mirrorConfig(map[string][]mirror{
			"docker.io": {
				{"host": "https://harbor.example.com/v2/docker-hub/", "capabilities": []string{"resolve", "pull"}, "overridePath": true, "caBundleSecretReferenceName": "mirror-ca"},
				{"host": "http://[2001:db8::1]:5000"},
			},
			"registry.example.com:5000": {{"host": "https://mirror.example.com/a"}},
		})
		reconcileMirrors(ctx, namespace, config)

		osc := eventuallyMutated(ctx, newOperatingSystemConfig(namespace, "pool-a"))

		files := filesOf(osc)
		Expect(files).NotTo(HaveKey(ContainSubstring("/10-cache.toml")))
		Expect(files[hosts.Directory+"/docker.io/20-mirror-01.toml"]).To(And(
			MatchRegexp(`^# probe: any https://harbor\.example\.com/v2/docker-hub/ %s/ca/[0-9a-f]+\.crt\n`, hosts.Directory),
			ContainSubstring("[host.'https://harbor.example.com/v2/docker-hub']\ncapabilities = ['pull', 'resolve']\n"),
			ContainSubstring("override_path = true\n"),
		))
		Expect(files).To(ContainElement(string(ca.CertificatePEM)))
		Expect(files[hosts.Directory+"/docker.io/20-mirror-02.toml"]).To(And(
			HavePrefix("# probe: any http://[2001:db8::1]:5000/v2/ -\n[host.'http://[2001:db8::1]:5000']\ncapabilities = ['pull']\n"),
			Not(ContainSubstring("override_path")),
		))
		Expect(files).To(HaveKey(hosts.Directory + "/registry.example.com:5000/00-server.toml"))
		Expect(files[hosts.Directory+"/registry.example.com:5000/20-mirror-01.toml"]).To(HavePrefix("# probe: any https://mirror.example.com/a/v2/ -\n"))

		By("writing it anew as gardenlet does")
		generation := osc.Generation
		osc.Spec = newOperatingSystemConfig(namespace, "pool-a").Spec
		Expect(seed.Update(ctx, osc)).To(Succeed())
		Expect(osc.Generation).To(Equal(generation))

		By("adding a cache of the same upstream")
		Expect(gardener.LabelNamespace(ctx, seed, namespace, registryv1alpha3.ExtensionType, true)).To(Succeed())
		status := reconcile(ctx, namespace, cache{"upstream": "docker.io"})
		both := eventuallyMutated(ctx, newOperatingSystemConfig(namespace, "pool-b"))
		for path, content := range files {
			if path != hosts.Directory+"/docker.io/00-server.toml" {
				Expect(filesOf(both)).To(HaveKeyWithValue(path, content))
			}
		}
		Expect(filesOf(both)[hosts.Directory+"/docker.io/10-cache.toml"]).To(ContainSubstring(status.Caches[0].Endpoint))
		Expect(filesOf(both)[hosts.Directory+"/docker.io/00-server.toml"]).To(ContainSubstring("https://registry-1.docker.io"))

		By("removing the mirrors")
		deleteMirrors(ctx, namespace)
		Expect(gardener.LabelNamespace(ctx, seed, namespace, v1alpha1.ExtensionType, false)).To(Succeed())
		both.Spec = newOperatingSystemConfig(namespace, "pool-b").Spec
		Expect(seed.Update(ctx, both)).To(Succeed())
		Expect(filesOf(both)).To(HaveKey(hosts.Directory + "/docker.io/10-cache.toml"))
		Expect(filesOf(both)).NotTo(HaveKey(ContainSubstring("/20-mirror-")))
	}, SpecTimeout(2*time.Minute))

	It("serve a node, while they answer", func(ctx SpecContext) {
		ca := newMirrorCA()
		source, url := startMirror(ca, "/v2/proxy/")
		image := pushImage(source, "library/app", "latest")
		namespace := newShootWithMirrors(ctx, secretReference("mirror-ca", "mirror-ca-v1"))
		createReferencedSecret(ctx, namespace, "mirror-ca-v1", map[string]string{"bundle.crt": string(ca.CertificatePEM)})
		// Nobody has this upstream: what is pulled from it comes from a mirror.
		const upstreamHost = "registry.invalid"
		pullAndResolve := []string{"pull", "resolve"}
		reconcileMirrors(ctx, namespace, mirrorConfig(map[string][]mirror{upstreamHost: {
			{"host": "http://127.0.0.1:1", "capabilities": pullAndResolve},
			{"host": url, "capabilities": pullAndResolve, "overridePath": true, "caBundleSecretReferenceName": "mirror-ca"},
		}}))
		osc := eventuallyMutated(ctx, newOperatingSystemConfig(namespace, "pool-a"))
		node := newNode(osc)

		node.start(osc)
		Eventually(node.hostsTOML).WithArguments(upstreamHost).Should(BeAnExistingFile())
		written, err := os.ReadFile(node.hostsTOML(upstreamHost))
		Expect(err).NotTo(HaveOccurred())
		Expect(string(written)).To(And(ContainSubstring(url), Not(ContainSubstring("127.0.0.1:1'"))), "the mirror that is dead costs nothing")
		result, err := node.pull(ctx, upstreamHost+"/library/app:latest")
		Expect(err).NotTo(HaveOccurred())
		Expect(result.root.Digest.String()).To(Equal(image.String()))

		By("closing the mirror")
		Expect(source.Close()).To(Succeed())
		Eventually(node.hostsTOML).WithArguments(upstreamHost).ShouldNot(BeAnExistingFile())
	}, SpecTimeout(2*time.Minute))
})

// newShootWithMirrors is newShoot for a Shoot with the block of registry-mirror
// alone.
func newShootWithMirrors(ctx context.Context, resources ...gardencorev1beta1.NamedResourceReference) string {
	GinkgoHelper()
	namespace := newShoot(ctx, resources...)
	Expect(gardener.LabelNamespace(ctx, seed, namespace, registryv1alpha3.ExtensionType, false)).To(Succeed())
	Expect(gardener.LabelNamespace(ctx, seed, namespace, v1alpha1.ExtensionType, true)).To(Succeed())
	DeferCleanup(deleteMirrors, namespace, NodeTimeout(time.Minute))
	return namespace
}

// mirrorConfig returns the providerConfig with the mirrors of some upstreams.
func mirrorConfig(mirrors map[string][]mirror) string {
	var upstreams []map[string]any
	for _, upstreamHost := range slices.Sorted(maps.Keys(mirrors)) {
		upstreams = append(upstreams, map[string]any{"upstream": upstreamHost, "hosts": mirrors[upstreamHost]})
	}
	config, err := json.Marshal(map[string]any{
		"apiVersion": v1alpha1.SchemeGroupVersion.String(), "kind": "MirrorConfig", "mirrors": upstreams,
	})
	Expect(err).NotTo(HaveOccurred())
	return string(config)
}

// applyMirrors does what gardenlet does when a Shoot is reconciled. Awaiting the
// result is left to the caller.
func applyMirrors(ctx context.Context, namespace, config string) *extensionsv1alpha1.Extension {
	GinkgoHelper()
	extension, err := gardener.RequestReconciliation(ctx, seed, namespace, v1alpha1.ExtensionType, rawExtension(config))
	Expect(err).NotTo(HaveOccurred())
	return extension
}

// reconcileMirrors applies the mirrors and waits until they were checked.
func reconcileMirrors(ctx context.Context, namespace, config string) *extensionsv1alpha1.Extension {
	GinkgoHelper()
	extension, err := gardener.ReconcileExtension(ctx, seed, namespace, v1alpha1.ExtensionType, rawExtension(config))
	Expect(err).NotTo(HaveOccurred())
	return extension
}

func deleteMirrors(ctx context.Context, namespace string) {
	GinkgoHelper()
	Expect(gardener.DeleteExtension(ctx, seed, namespace, v1alpha1.ExtensionType)).To(Succeed())
}

func newMirrorCA() *secretsutils.Certificate {
	GinkgoHelper()
	ca, err := (&secretsutils.CertificateSecretConfig{Name: "mirror-ca", CommonName: "mirror-ca", CertType: secretsutils.CACert}).GenerateCertificate()
	Expect(err).NotTo(HaveOccurred())
	return ca
}

// startMirror runs a registry behind TLS whose repositories are below a path, as
// those of a proxy project of Harbor. It returns the registry and the mirror's
// URL.
func startMirror(ca *secretsutils.Certificate, path string) (*upstreamtest.Registry, string) {
	GinkgoHelper()
	serving, err := (&secretsutils.CertificateSecretConfig{
		Name: "mirror", CommonName: "mirror", CertType: secretsutils.ServerCert, SigningCA: ca, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}).GenerateCertificate()
	Expect(err).NotTo(HaveOccurred())
	certificate, err := tls.X509KeyPair(serving.CertificatePEM, serving.PrivateKeyPEM)
	Expect(err).NotTo(HaveOccurred())

	registry := startUpstream("", "")
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	Expect(err).NotTo(HaveOccurred())
	registry.Publish(listener, certificate, upstreamtest.Speed{})
	registry.Intercept(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
			if rest, below := strings.CutPrefix(request.URL.Path, path); below {
				request.URL.Path = "/v2/" + rest
			}
			next.ServeHTTP(w, request)
		})
	})
	return registry, "https://" + listener.Addr().String() + path
}
