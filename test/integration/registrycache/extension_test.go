// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package registrycache_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	vpaautoscalingv1 "k8s.io/autoscaler/vertical-pod-autoscaler/pkg/apis/autoscaling.k8s.io/v1"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	gardencorev1beta1 "github.com/gardener/gardener/pkg/apis/core/v1beta1"
	extensionsv1alpha1 "github.com/gardener/gardener/pkg/apis/extensions/v1alpha1"
	resourcesv1alpha1 "github.com/gardener/gardener/pkg/apis/resources/v1alpha1"
	"github.com/gardener/gardener/pkg/client/kubernetes"
	gardenerimagevector "github.com/gardener/gardener/pkg/utils/imagevector"

	"github.com/gardener/gardener-extension-registry-cache/pkg/apis/registry/v1alpha3"
	"github.com/gardener/gardener-extension-registry-cache/pkg/controller"
	"github.com/gardener/gardener-extension-registry-cache/pkg/imagevector"
)

var _ = Describe("Extension", func() {
	It("runs healthy, ready and alive", func(ctx SpecContext) {
		for _, check := range []string{"/healthz", "/readyz"} {
			Eventually(func() (int, error) { return getStatus(healthURL + check) }).Should(Equal(http.StatusOK), check)
		}
		Eventually(func() error {
			return seed.Get(ctx, types.NamespacedName{Namespace: extensionNamespace, Name: "gardener-extension-heartbeat"}, &coordinationv1.Lease{})
		}).Should(Succeed())
		Expect(seed.Get(ctx, types.NamespacedName{Namespace: extensionNamespace, Name: "gardener-extension-registry-cache-leader-election"}, &coordinationv1.Lease{})).To(Succeed())
	}, SpecTimeout(time.Minute))

	It("deploys the caches and publishes their endpoints", func(ctx SpecContext) {
		namespace := newShoot(ctx)
		status := reconcile(ctx, namespace,
			cache{"upstream": "docker.io", "highAvailability": map[string]any{"enabled": true}},
			cache{"upstream": "ghcr.io", "http": map[string]any{"tls": false}},
		)

		Expect(status.Caches).To(HaveLen(2))
		dockerAddress, ghcrAddress := clusterIP(ctx, "registry-docker-io"), clusterIP(ctx, "registry-ghcr-io")
		Expect(status.Caches[0]).To(Equal(v1alpha3.RegistryCacheStatus{
			Upstream: "docker.io", Endpoint: "https://" + dockerAddress + ":5000", RemoteURL: "https://registry-1.docker.io",
		}))
		Expect(status.Caches[1]).To(Equal(v1alpha3.RegistryCacheStatus{
			Upstream: "ghcr.io", Endpoint: "http://" + ghcrAddress + ":5000", RemoteURL: "https://ghcr.io",
		}))

		managedResource := getManagedResource(ctx, namespace, "extension-registry-cache")
		Expect(managedResource.Labels).To(HaveKeyWithValue("origin", "registry-cache"))
		Expect(managedResource.Spec.Class).To(BeNil())
		Expect(managedResource.Spec.DeletePersistentVolumeClaims).To(HaveValue(BeTrue()))
		Expect(getManagedResource(ctx, namespace, "extension-registry-cache-services").Labels).To(HaveKeyWithValue("origin", "registry-cache"))

		for _, name := range []string{"registry-docker-io", "registry-ghcr-io"} {
			eventuallyInShoot(ctx, &appsv1.StatefulSet{}, name)
			eventuallyInShoot(ctx, &corev1.Secret{}, name+"-config")
			eventuallyInShoot(ctx, &vpaautoscalingv1.VerticalPodAutoscaler{}, name)
		}
		eventuallyInShoot(ctx, &networkingv1.NetworkPolicy{}, "gardener.cloud--allow-registry-cache")
		eventuallyInShoot(ctx, &policyv1.PodDisruptionBudget{}, "registry-docker-io")
		expectNotInShoot(ctx, &policyv1.PodDisruptionBudget{}, "registry-ghcr-io")
		expectNotInShoot(ctx, &corev1.Secret{}, "registry-ghcr-io-tls")

		By("verifying the certificate as a node does")
		serving := &corev1.Secret{}
		eventuallyInShoot(ctx, serving, "registry-docker-io-tls")
		certificate, err := tls.X509KeyPair(serving.Data["tls.crt"], serving.Data["tls.key"])
		Expect(err).NotTo(HaveOccurred())
		roots := x509.NewCertPool()
		Expect(roots.AppendCertsFromPEM(caBundle(ctx, namespace, status))).To(BeTrue())
		for _, name := range []string{dockerAddress, "registry-docker-io.kube-system.svc"} {
			_, err = certificate.Leaf.Verify(x509.VerifyOptions{DNSName: name, Roots: roots})
			Expect(err).NotTo(HaveOccurred())
		}
		Expect(time.Until(certificate.Leaf.NotAfter)).To(BeNumerically("~", 90*24*time.Hour, time.Hour))
	}, SpecTimeout(2*time.Minute))

	It("adds and removes a cache without touching another", func(ctx SpecContext) {
		namespace := newShoot(ctx)
		reconcile(ctx, namespace, cache{"upstream": "docker.io"}, cache{"upstream": "ghcr.io"})
		before := &appsv1.StatefulSet{}
		eventuallyInShoot(ctx, before, "registry-docker-io")
		addressBefore := clusterIP(ctx, "registry-docker-io")
		podBefore, claimBefore := awaitPodAndClaim(ctx, "registry-docker-io")
		removedPod, removedClaim := awaitPodAndClaim(ctx, "registry-ghcr-io")

		By("adding a cache")
		status := reconcile(ctx, namespace, cache{"upstream": "docker.io"}, cache{"upstream": "ghcr.io"}, cache{"upstream": "quay.io"})
		Expect(status.Caches).To(HaveLen(3))
		eventuallyInShoot(ctx, &appsv1.StatefulSet{}, "registry-quay-io")

		By("removing a cache")
		status = reconcile(ctx, namespace, cache{"upstream": "quay.io"}, cache{"upstream": "docker.io"})
		Expect(status.Caches).To(HaveExactElements(HaveField("Upstream", "quay.io"), HaveField("Upstream", "docker.io")))
		for _, object := range []client.Object{&appsv1.StatefulSet{}, &corev1.Service{}, &vpaautoscalingv1.VerticalPodAutoscaler{}} {
			eventuallyNotInShoot(ctx, object, "registry-ghcr-io")
		}
		eventuallyNotInShoot(ctx, &corev1.Secret{}, "registry-ghcr-io-config")
		eventuallyNotInShoot(ctx, &corev1.Secret{}, "registry-ghcr-io-tls")
		eventuallyNotInShoot(ctx, removedPod, removedPod.Name)
		eventuallyNotInShoot(ctx, removedClaim, removedClaim.Name)

		after := &appsv1.StatefulSet{}
		eventuallyInShoot(ctx, after, "registry-docker-io")
		Expect(after.UID).To(Equal(before.UID))
		Expect(after.Generation).To(Equal(before.Generation))
		Expect(clusterIP(ctx, "registry-docker-io")).To(Equal(addressBefore))
		podAfter, claimAfter := awaitPodAndClaim(ctx, "registry-docker-io")
		Expect(podAfter.UID).To(Equal(podBefore.UID))
		Expect(podAfter.DeletionTimestamp).To(BeNil())
		Expect(claimAfter.UID).To(Equal(claimBefore.UID))
		Expect(claimAfter.DeletionTimestamp).To(BeNil())
	}, SpecTimeout(3*time.Minute))

	It("has no certificate authority when no cache uses TLS", func(ctx SpecContext) {
		namespace := newShoot(ctx)
		withTLS := reconcile(ctx, namespace, cache{"upstream": "docker.io"})
		Expect(withTLS.CASecretName).NotTo(BeNil())

		without := reconcile(ctx, namespace, cache{"upstream": "docker.io", "http": map[string]any{"tls": false}})
		Expect(without.CASecretName).To(BeNil())
		Expect(without.Caches[0].Endpoint).To(HavePrefix("http://"))
		Expect(managedSecrets(ctx, namespace)).To(BeEmpty())
		eventuallyNotInShoot(ctx, &corev1.Secret{}, "registry-docker-io-tls")
	}, SpecTimeout(2*time.Minute))

	It("deletes everything, with the volumes", func(ctx SpecContext) {
		namespace := newShoot(ctx)
		reconcile(ctx, namespace, cache{"upstream": "docker.io"})
		pod, claim := awaitPodAndClaim(ctx, "registry-docker-io")

		deleteExtension(ctx, namespace)

		for _, object := range []client.Object{&appsv1.StatefulSet{}, &corev1.Service{}, &vpaautoscalingv1.VerticalPodAutoscaler{}} {
			expectNotInShoot(ctx, object, "registry-docker-io")
		}
		expectNotInShoot(ctx, &networkingv1.NetworkPolicy{}, "gardener.cloud--allow-registry-cache")
		for _, suffix := range []string{"-config", "-tls"} {
			expectNotInShoot(ctx, &corev1.Secret{}, "registry-docker-io"+suffix)
		}
		eventuallyNotInShoot(ctx, pod, pod.Name)
		eventuallyNotInShoot(ctx, claim, claim.Name)
		Expect(managedSecrets(ctx, namespace)).To(BeEmpty())
		list := &resourcesv1alpha1.ManagedResourceList{}
		Expect(seed.List(ctx, list, client.InNamespace(namespace))).To(Succeed())
		Expect(list.Items).To(BeEmpty())
	}, SpecTimeout(2*time.Minute))

	It("writes nothing when nothing changes", func(ctx SpecContext) {
		namespace := newShoot(ctx)
		reconcile(ctx, namespace, cache{"upstream": "docker.io"}, cache{"upstream": "ghcr.io"})
		extension := &extensionsv1alpha1.Extension{}
		Expect(seed.Get(ctx, client.ObjectKey{Namespace: namespace, Name: v1alpha3.ExtensionType}, extension)).To(Succeed())

		images, err := imagevector.Read()
		Expect(err).NotTo(HaveOccurred())
		requests := &requestCounter{}
		actuator := controller.NewCacheActuator(requests.client(), seed, controller.ShootClient, clock.RealClock{}, images)
		Expect(actuator.Reconcile(ctx, logr.Discard(), extension)).To(Succeed())

		AddReportEntry("Requests of a reconcile that changes nothing", ReportEntryVisibilityAlways,
			fmt.Sprintf("%d reads, %d writes", requests.reads.Load(), requests.writes.Load()))
		Expect(requests.reads.Load()).To(BeNumerically(">", 0), "the counter counts")
		Expect(requests.writes.Load()).To(BeZero())

		By("checking that the counter sees writes")
		extension.Spec.ProviderConfig.Raw = []byte(`{"apiVersion":"registry.extensions.gardener.cloud/v1alpha3","kind":"RegistryConfig","caches":[{"upstream":"docker.io"}]}`)
		Expect(actuator.Reconcile(ctx, logr.Discard(), extension)).To(Succeed())
		Expect(requests.writes.Load()).To(BeNumerically(">", 0))
	}, SpecTimeout(2*time.Minute))
})

var _ = Describe("Wrong configuration", func() {
	const valid = `{"apiVersion":"registry.extensions.gardener.cloud/v1alpha3","kind":"RegistryConfig","caches":[{"upstream":"docker.io"}]}`

	DescribeTable("is refused with an error that names what is wrong, and deploys nothing",
		func(ctx SpecContext, config string, expected ...string) {
			namespace := newShoot(ctx)
			var raw []byte
			if config != "" {
				raw = []byte(config)
			}
			expectConfigurationProblem(awaitExtension(ctx, applyExtensionConfig(ctx, namespace, raw), gardencorev1beta1.LastOperationStateError), expected...)
			list := &resourcesv1alpha1.ManagedResourceList{}
			Expect(seed.List(ctx, list, client.InNamespace(namespace))).To(Succeed())
			Expect(list.Items).To(BeEmpty())
		},
		Entry("none", "", "spec.providerConfig", "empty"),
		Entry("another kind", `{"apiVersion":"registry.extensions.gardener.cloud/v1alpha3","kind":"RegistryStatus"}`, "spec.providerConfig", `"RegistryStatus"`),
		Entry("another version", `{"apiVersion":"registry.extensions.gardener.cloud/v1alpha9","kind":"RegistryConfig"}`, "spec.providerConfig", "v1alpha9"),
		Entry("an unknown field", `{"apiVersion":"registry.extensions.gardener.cloud/v1alpha3","kind":"RegistryConfig","caches":[{"upstream":"docker.io","size":"1Gi"}]}`,
			`caches[0].size: Forbidden: unknown field`),
		Entry("a value of a wrong type", `{"apiVersion":"registry.extensions.gardener.cloud/v1alpha3","kind":"RegistryConfig","caches":[{"upstream":"docker.io","volume":{"size":"big"}}]}`,
			"caches[0].volume.size"),
		Entry("several mistakes at once", `{"apiVersion":"registry.extensions.gardener.cloud/v1alpha3","kind":"RegistryConfig","caches":[
			{"upstream":"https://docker.io"},{"upstream":"ghcr.io","remoteURL":"ghcr.io"}]}`,
			"spec.providerConfig.caches[0].upstream", "spec.providerConfig.caches[1].remoteURL"),
		Entry("a reference that the Shoot does not have", `{"apiVersion":"registry.extensions.gardener.cloud/v1alpha3","kind":"RegistryConfig","caches":[
			{"upstream":"docker.io","secretReferenceName":"hub"}]}`, "caches[0].secretReferenceName", `"hub"`),
	)

	It("is refused as a providerConfig that is no object by the API server already", func(ctx SpecContext) {
		namespace := newShoot(ctx)
		extension := &extensionsv1alpha1.Extension{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: v1alpha3.ExtensionType}}
		extension.Spec.Type = v1alpha3.ExtensionType
		Expect(seed.Create(ctx, extension)).To(Succeed())
		patch := client.RawPatch(types.MergePatchType, []byte(`{"spec":{"providerConfig":"docker.io"}}`))
		Expect(seed.Patch(ctx, extension, patch)).To(MatchError(ContainSubstring("spec.providerConfig")))
	}, SpecTimeout(time.Minute))

	It("leaves untouched what is deployed", func(ctx SpecContext) {
		namespace := newShoot(ctx)
		reconcile(ctx, namespace, cache{"upstream": "docker.io"})
		before := getManagedResource(ctx, namespace, "extension-registry-cache")
		servicesBefore := getManagedResource(ctx, namespace, "extension-registry-cache-services")

		broken := `{"apiVersion":"registry.extensions.gardener.cloud/v1alpha3","kind":"RegistryConfig","caches":[{"upstream":"docker.io","volume":{"size":"0"}}]}`
		extension := awaitExtension(ctx, applyExtensionConfig(ctx, namespace, []byte(broken)), gardencorev1beta1.LastOperationStateError)

		expectConfigurationProblem(extension, "spec.providerConfig.caches[0].volume.size")
		Expect(getManagedResource(ctx, namespace, "extension-registry-cache").Spec).To(Equal(before.Spec))
		Expect(getManagedResource(ctx, namespace, "extension-registry-cache-services").Spec).To(Equal(servicesBefore.Spec))
		eventuallyInShoot(ctx, &appsv1.StatefulSet{}, "registry-docker-io")

		By("mending it")
		awaitExtension(ctx, applyExtensionConfig(ctx, namespace, []byte(valid)), gardencorev1beta1.LastOperationStateSucceeded)
	}, SpecTimeout(2*time.Minute))

	DescribeTable("in a Secret is refused with its name",
		func(ctx SpecContext, data map[string]string, expected ...string) {
			namespace := newShoot(ctx, secretReference("hub", "hub-credentials"))
			if data != nil {
				createReferencedSecret(ctx, namespace, "hub-credentials", data)
			}
			extension := applyExtension(ctx, namespace, cache{"upstream": "docker.io", "secretReferenceName": "hub"})
			awaitExtension(ctx, extension, gardencorev1beta1.LastOperationStateError)
			expectConfigurationProblem(extension, append(expected, "spec.providerConfig.caches[0].secretReferenceName", "hub-credentials")...)
			Expect(extension.Status.LastError.Description).NotTo(ContainSubstring("s3cr3t"))
		},
		Entry("that is missing", nil, "does not exist"),
		Entry("that lacks the password", map[string]string{"username": "u"}, "password"),
		Entry("with a key too many", map[string]string{"username": "u", "password": "s3cr3t", "token": "s3cr3t"}, "token"),
		Entry("with a broken service account", map[string]string{"username": "_json_key", "password": "s3cr3t"}, "JSON"),
	)

	It("of the image vector is an error that names the image", func(ctx SpecContext) {
		namespace := newShoot(ctx)
		extension := &extensionsv1alpha1.Extension{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: v1alpha3.ExtensionType}}
		extension.Spec.ProviderConfig = rawExtension(valid)
		requests := &requestCounter{}
		actuator := controller.NewCacheActuator(requests.client(), seed, controller.ShootClient, clock.RealClock{}, gardenerimagevector.ImageVector{})

		err := actuator.Reconcile(ctx, logr.Discard(), extension)

		Expect(err).To(MatchError(ContainSubstring(`find image "registry-cache" in the image vector`)))
		Expect(requests.writes.Load()).To(BeZero())
	}, SpecTimeout(time.Minute))
})

// requestCounter counts the requests of a client of the Seed.
type requestCounter struct {
	reads, writes atomic.Int64
}

func (r *requestCounter) client() client.Client {
	GinkgoHelper()
	inner, err := client.NewWithWatch(environment.Seed, client.Options{Scheme: kubernetes.SeedScheme})
	Expect(err).NotTo(HaveOccurred())
	return interceptor.NewClient(inner, interceptor.Funcs{
		Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, object client.Object, options ...client.GetOption) error {
			r.reads.Add(1)
			return c.Get(ctx, key, object, options...)
		},
		List: func(ctx context.Context, c client.WithWatch, list client.ObjectList, options ...client.ListOption) error {
			r.reads.Add(1)
			return c.List(ctx, list, options...)
		},
		Create: func(ctx context.Context, c client.WithWatch, object client.Object, options ...client.CreateOption) error {
			r.writes.Add(1)
			return c.Create(ctx, object, options...)
		},
		Update: func(ctx context.Context, c client.WithWatch, object client.Object, options ...client.UpdateOption) error {
			r.writes.Add(1)
			return c.Update(ctx, object, options...)
		},
		Patch: func(ctx context.Context, c client.WithWatch, object client.Object, patch client.Patch, options ...client.PatchOption) error {
			r.writes.Add(1)
			return c.Patch(ctx, object, patch, options...)
		},
		Delete: func(ctx context.Context, c client.WithWatch, object client.Object, options ...client.DeleteOption) error {
			r.writes.Add(1)
			return c.Delete(ctx, object, options...)
		},
		DeleteAllOf: func(ctx context.Context, c client.WithWatch, object client.Object, options ...client.DeleteAllOfOption) error {
			r.writes.Add(1)
			return c.DeleteAllOf(ctx, object, options...)
		},
		SubResourcePatch: func(ctx context.Context, c client.Client, subresource string, object client.Object, patch client.Patch, options ...client.SubResourcePatchOption) error {
			r.writes.Add(1)
			return c.SubResource(subresource).Patch(ctx, object, patch, options...)
		},
		SubResourceUpdate: func(ctx context.Context, c client.Client, subresource string, object client.Object, options ...client.SubResourceUpdateOption) error {
			r.writes.Add(1)
			return c.SubResource(subresource).Update(ctx, object, options...)
		},
	})
}

func expectConfigurationProblem(extension *extensionsv1alpha1.Extension, expected ...string) {
	GinkgoHelper()
	Expect(extension.Status.LastError).NotTo(BeNil())
	Expect(extension.Status.LastError.Codes).To(ConsistOf(gardencorev1beta1.ErrorConfigurationProblem))
	for _, text := range expected {
		Expect(extension.Status.LastError.Description).To(ContainSubstring(text))
	}
}

func secretReference(name, secret string) gardencorev1beta1.NamedResourceReference {
	return gardencorev1beta1.NamedResourceReference{
		Name:        name,
		ResourceRef: autoscalingv1.CrossVersionObjectReference{APIVersion: "v1", Kind: "Secret", Name: secret},
	}
}

// createReferencedSecret creates the copy that gardenlet makes of a Secret that
// a Shoot refers to.
func createReferencedSecret(ctx context.Context, namespace, name string, data map[string]string) {
	GinkgoHelper()
	Expect(seed.Create(ctx, &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "ref-" + name},
		StringData: data,
	})).To(Succeed())
}

func getManagedResource(ctx context.Context, namespace, name string) *resourcesv1alpha1.ManagedResource {
	GinkgoHelper()
	managedResource := &resourcesv1alpha1.ManagedResource{}
	Expect(seed.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, managedResource)).To(Succeed())
	return managedResource
}

// managedSecrets are the Secrets that the extension's secrets manager holds.
func managedSecrets(ctx context.Context, namespace string) []corev1.Secret {
	GinkgoHelper()
	list := &corev1.SecretList{}
	Expect(seed.List(ctx, list, client.InNamespace(namespace), client.MatchingLabels{"manager-identity": "extension-registry-cache"})).To(Succeed())
	return list.Items
}

func caBundle(ctx context.Context, namespace string, status *v1alpha3.RegistryStatus) []byte {
	GinkgoHelper()
	Expect(status.CASecretName).NotTo(BeNil())
	secret := &corev1.Secret{}
	Expect(seed.Get(ctx, client.ObjectKey{Namespace: namespace, Name: *status.CASecretName}, secret)).To(Succeed())
	return secret.Data["bundle.crt"]
}

func clusterIP(ctx context.Context, name string) string {
	GinkgoHelper()
	service := &corev1.Service{}
	Expect(shoot.Get(ctx, client.ObjectKey{Namespace: metav1.NamespaceSystem, Name: name}, service)).To(Succeed())
	Expect(net.ParseIP(service.Spec.ClusterIP)).NotTo(BeNil())
	return service.Spec.ClusterIP
}

// awaitPodAndClaim waits for what the StatefulSet controller makes of a cache.
func awaitPodAndClaim(ctx context.Context, name string) (*corev1.Pod, *corev1.PersistentVolumeClaim) {
	GinkgoHelper()
	pod, claim := &corev1.Pod{}, &corev1.PersistentVolumeClaim{}
	eventuallyInShoot(ctx, pod, name+"-0")
	eventuallyInShoot(ctx, claim, "cache-volume-"+name+"-0")
	return pod, claim
}

func eventuallyInShoot(ctx context.Context, object client.Object, name string) {
	GinkgoHelper()
	Eventually(func() error {
		return shoot.Get(ctx, client.ObjectKey{Namespace: metav1.NamespaceSystem, Name: name}, object)
	}).WithContext(ctx).Should(Succeed())
}

func eventuallyNotInShoot(ctx context.Context, object client.Object, name string) {
	GinkgoHelper()
	Eventually(func() error {
		return shoot.Get(ctx, client.ObjectKey{Namespace: metav1.NamespaceSystem, Name: name}, object)
	}).WithContext(ctx).Should(Satisfy(apierrors.IsNotFound), "%T %s", object, name)
}

func expectNotInShoot(ctx context.Context, object client.Object, name string) {
	GinkgoHelper()
	err := shoot.Get(ctx, client.ObjectKey{Namespace: metav1.NamespaceSystem, Name: name}, object)
	Expect(err).To(Satisfy(apierrors.IsNotFound), "%T %s", object, name)
}
