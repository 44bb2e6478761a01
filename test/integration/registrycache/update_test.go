// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package registrycache_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	vpaautoscalingv1 "k8s.io/autoscaler/vertical-pod-autoscaler/pkg/apis/autoscaling.k8s.io/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	extensionscontroller "github.com/gardener/gardener/extensions/pkg/controller"
	gardencorev1beta1 "github.com/gardener/gardener/pkg/apis/core/v1beta1"
	v1beta1constants "github.com/gardener/gardener/pkg/apis/core/v1beta1/constants"
	gardenerextensions "github.com/gardener/gardener/pkg/extensions"
	"github.com/gardener/gardener/pkg/utils/kubernetes/health"

	"github.com/gardener/gardener-extension-registry-cache/pkg/apis/registry/v1alpha3"
	"github.com/gardener/gardener-extension-registry-cache/pkg/upstream"
)

// The specs go one after the other: each changes one field of one cache, on top
// of what those before have changed. No change may touch the cache beside it.
var _ = Describe("Update", Ordered, func() {
	const (
		changedUpstream, changedName = "update.example.com", "registry-update-example-com"
		besideUpstream, besideName   = "beside.example.com", "registry-beside-example-com"
	)
	var (
		namespace                      string
		changed, beside                cache
		changedBefore, besideUnchanged cacheState
	)

	// update reconciles, and returns the cache that was changed as it is then.
	update := func(ctx context.Context, caches ...cache) (cacheState, *v1alpha3.RegistryStatus) {
		GinkgoHelper()
		status := reconcile(ctx, namespace, caches...)
		awaitApplied(ctx, namespace)
		suffix, _ := changed["serviceNameSuffix"].(string)
		return observe(ctx, changedUpstream, suffix), status
	}

	BeforeAll(func(ctx SpecContext) {
		// Anew, for the specs change it and may run again.
		changed = cache{"upstream": changedUpstream}
		beside = cache{"upstream": besideUpstream, "secretReferenceName": "beside"}
		namespace = newShoot(ctx, secretReference("beside", "beside-v1"), secretReference("changed", "changed-v1"))
		createReferencedSecret(ctx, namespace, "beside-v1", map[string]string{"username": "beside", "password": "b"})
		createReferencedSecret(ctx, namespace, "changed-v1", map[string]string{"username": "robot", "password": "one"})
		createReferencedSecret(ctx, namespace, "changed-v2", map[string]string{"username": "robot", "password": "two"})
		update(ctx, changed, beside)
	}, NodeTimeout(2*time.Minute))

	BeforeEach(func(ctx SpecContext) {
		suffix, _ := changed["serviceNameSuffix"].(string)
		changedBefore, besideUnchanged = observe(ctx, changedUpstream, suffix), observe(ctx, besideUpstream, "")
	}, NodeTimeout(time.Minute))

	AfterEach(func(ctx SpecContext) {
		Expect(observe(ctx, besideUpstream, "")).To(Equal(besideUnchanged))
	}, NodeTimeout(time.Minute))

	It("of the configuration to the same one changes nothing", func(ctx SpecContext) {
		after, _ := update(ctx, changed, beside)
		Expect(after).To(Equal(changedBefore))
	}, SpecTimeout(time.Minute))

	It("waits for the annotation with which gardenlet asks for it", func(ctx SpecContext) {
		awaitQuiet(ctx, namespace)
		extension := getExtension(ctx, namespace)
		observed := extension.Status.ObservedGeneration
		patch := client.MergeFrom(extension.DeepCopy())
		extension.Spec.ProviderConfig = rawExtension(`{}`)
		Expect(seed.Patch(ctx, extension, patch)).To(Succeed())
		Expect(extension.Generation).To(BeNumerically(">", observed))
		Consistently(func() int64 { return getExtension(ctx, namespace).Status.ObservedGeneration }).
			WithTimeout(time.Second).Should(Equal(observed))

		annotate(ctx, extension, v1beta1constants.GardenerOperationReconcile)
		awaitExtension(ctx, extension, gardencorev1beta1.LastOperationStateError)
		Expect(extension.Status.LastOperation.Type).To(Equal(gardencorev1beta1.LastOperationTypeReconcile))
	}, SpecTimeout(time.Minute))

	It("of ttl replaces the pod, and nothing else", func(ctx SpecContext) {
		changed["garbageCollection"] = map[string]any{"ttl": "24h"}
		after, status := update(ctx, changed, beside)
		expectPodReplaced(changedBefore, after)
		Expect(configOf(ctx, changedName)).To(ContainSubstring("ttl: 24h"))
		Expect(status.Caches[0].Endpoint).To(Equal("https://" + after.ClusterIP + ":5000"))
	}, SpecTimeout(time.Minute))

	It("of proxies replaces the pod, and nothing else", func(ctx SpecContext) {
		changed["proxy"] = map[string]any{"httpProxy": "http://proxy.example.com", "httpsProxy": "http://proxy.example.com:8443"}
		after, _ := update(ctx, changed, beside)
		expectPodReplaced(changedBefore, after)
		Expect(podOf(ctx, changedName).Spec.Containers[0].Env).To(ConsistOf(
			corev1.EnvVar{Name: "HTTP_PROXY", Value: "http://proxy.example.com"},
			corev1.EnvVar{Name: "HTTPS_PROXY", Value: "http://proxy.example.com:8443"}))
	}, SpecTimeout(time.Minute))

	It("that switches TLS off replaces the pod and keeps the address", func(ctx SpecContext) {
		changed["http"] = map[string]any{"tls": false}
		after, status := update(ctx, changed, beside)
		expectPodReplaced(changedBefore, after)
		Expect(status.Caches[0].Endpoint).To(Equal("http://" + changedBefore.ClusterIP + ":5000"))
		expectNotInShoot(ctx, &corev1.Secret{}, changedName+"-tls")
		Expect(configOf(ctx, changedName)).NotTo(ContainSubstring("certFile"))
		Expect(status.Caches[1].Endpoint).To(HavePrefix("https://"))
		Expect(status.CASecretName).NotTo(BeNil(), "the other cache has a certificate of it")
	}, SpecTimeout(time.Minute))

	It("that switches TLS on replaces the pod and keeps the address and the authority", func(ctx SpecContext) {
		trusted := caBundle(ctx, namespace, statusOf(ctx, namespace))
		delete(changed, "http")
		after, status := update(ctx, changed, beside)
		expectPodReplaced(changedBefore, after)
		Expect(status.Caches[0].Endpoint).To(Equal("https://" + changedBefore.ClusterIP + ":5000"))
		Expect(certificateOf(ctx, changedName).VerifyHostname(changedBefore.ClusterIP)).To(Succeed())
		Expect(caBundle(ctx, namespace, status)).To(Equal(trusted))
	}, SpecTimeout(time.Minute))

	It("that adds credentials replaces the pod", func(ctx SpecContext) {
		changed["secretReferenceName"] = "changed"
		after, _ := update(ctx, changed, beside)
		expectPodReplaced(changedBefore, after)
		Expect(secretOf(ctx, changedName+"-credentials").Data).To(HaveKeyWithValue("password", []byte("one")))
	}, SpecTimeout(time.Minute))

	It("of credentials replaces no pod", func(ctx SpecContext) {
		updateShoot(ctx, namespace, func(shoot *gardencorev1beta1.Shoot) {
			shoot.Spec.Resources = []gardencorev1beta1.NamedResourceReference{secretReference("beside", "beside-v1"), secretReference("changed", "changed-v2")}
		})
		Eventually(func(g Gomega) {
			after, _ := update(ctx, changed, beside)
			Expect(after).To(Equal(changedBefore))
			// The extension may not have heard of the Shoot's change the first time.
			g.Expect(secretOf(ctx, changedName+"-credentials").Data).To(HaveKeyWithValue("password", []byte("two")))
		}).WithContext(ctx).Should(Succeed())
		Expect(secretOf(ctx, besideName+"-credentials").Data).To(HaveKeyWithValue("password", []byte("b")))
	}, SpecTimeout(time.Minute))

	It("that removes credentials replaces the pod", func(ctx SpecContext) {
		delete(changed, "secretReferenceName")
		after, _ := update(ctx, changed, beside)
		expectPodReplaced(changedBefore, after)
		expectNotInShoot(ctx, &corev1.Secret{}, changedName+"-credentials")
	}, SpecTimeout(time.Minute))

	It("that switches high availability on and off keeps volume and address", func(ctx SpecContext) {
		const secondClaim = "cache-volume-" + changedName + "-1"
		changed["highAvailability"] = map[string]any{"enabled": true}
		reconcile(ctx, namespace, changed, beside)
		By("starting the second pod before the first one is replaced")
		second, claim := &corev1.Pod{}, &corev1.PersistentVolumeClaim{}
		eventuallyInShoot(ctx, second, changedName+"-1")
		eventuallyInShoot(ctx, claim, secondClaim)
		Expect(podOf(ctx, changedName).UID).To(Equal(changedBefore.Pod))
		Expect(second.Spec.TopologySpreadConstraints).To(ConsistOf(
			HaveField("LabelSelector.MatchLabels", podSelectorOf(ctx, changedName))), "by Gardener's webhook")
		setPodReady(ctx, second, corev1.ConditionTrue)

		after, status := update(ctx, changed, beside)
		expectPodReplaced(changedBefore, after)
		Expect(podOf(ctx, changedName).Spec.TopologySpreadConstraints).NotTo(BeEmpty())
		Expect(labelsOf(ctx, changedName)).To(HaveKeyWithValue("high-availability-config.resources.gardener.cloud/type", "server"))
		Expect(serviceOf(ctx, changedName).Spec.TrafficDistribution).To(HaveValue(Equal(corev1.ServiceTrafficDistributionPreferSameZone)))
		eventuallyInShoot(ctx, &policyv1.PodDisruptionBudget{}, changedName)
		Expect(status.Caches[0].Endpoint).To(Equal("https://" + changedBefore.ClusterIP + ":5000"))

		delete(changed, "highAvailability")
		withTwo := after
		after, _ = update(ctx, changed, beside)
		expectPodReplaced(withTwo, after)
		eventuallyNotInShoot(ctx, &corev1.Pod{}, changedName+"-1")
		eventuallyInShoot(ctx, claim, secondClaim)
		Expect(claim.DeletionTimestamp).To(BeNil(), "its content is there when high availability is switched on again")
		Expect(labelsOf(ctx, changedName)).NotTo(HaveKey("high-availability-config.resources.gardener.cloud/type"))
		Expect(serviceOf(ctx, changedName).Spec.TrafficDistribution).To(BeNil())
		eventuallyNotInShoot(ctx, &policyv1.PodDisruptionBudget{}, changedName)
	}, SpecTimeout(time.Minute))

	It("of serviceNameSuffix replaces Service and certificate, and no pod", func(ctx SpecContext) {
		changed["serviceNameSuffix"] = "renamed"
		after, status := update(ctx, changed, beside)
		eventuallyNotInShoot(ctx, &corev1.Service{}, changedName)
		Expect(after.ClusterIP).NotTo(Equal(changedBefore.ClusterIP))
		Expect(status.Caches[0].Endpoint).To(Equal("https://" + after.ClusterIP + ":5000"))
		for _, name := range []string{after.ClusterIP, "registry-renamed.kube-system.svc"} {
			Expect(certificateOf(ctx, changedName).VerifyHostname(name)).To(Succeed())
		}
		Expect(serviceOf(ctx, "registry-renamed").Spec.Selector).To(Equal(podSelectorOf(ctx, changedName)))

		after.ClusterIP, after.Service = changedBefore.ClusterIP, changedBefore.Service
		Expect(after).To(Equal(changedBefore))
	}, SpecTimeout(time.Minute))

	It("that adds a cache and removes it again touches no other", func(ctx SpecContext) {
		const addedName = "registry-added-example-com"
		added := cache{"upstream": "added.example.com", "highAvailability": map[string]any{"enabled": true}}
		after, status := update(ctx, changed, added, beside)
		Expect(after).To(Equal(changedBefore))
		Expect(status.Caches).To(HaveExactElements(
			HaveField("Upstream", changedUpstream), HaveField("Upstream", "added.example.com"), HaveField("Upstream", besideUpstream)))
		observe(ctx, "added.example.com", "")
		eventuallyInShoot(ctx, &corev1.Pod{}, addedName+"-1")
		eventuallyInShoot(ctx, &corev1.PersistentVolumeClaim{}, "cache-volume-"+addedName+"-1")

		after, status = update(ctx, changed, beside)
		Expect(after).To(Equal(changedBefore))
		Expect(status.Caches).To(HaveExactElements(HaveField("Upstream", changedUpstream), HaveField("Upstream", besideUpstream)))
		for _, object := range []client.Object{&appsv1.StatefulSet{}, &corev1.Service{}, &vpaautoscalingv1.VerticalPodAutoscaler{}, &policyv1.PodDisruptionBudget{}} {
			eventuallyNotInShoot(ctx, object, addedName)
		}
		for _, suffix := range []string{"-config", "-tls"} {
			eventuallyNotInShoot(ctx, &corev1.Secret{}, addedName+suffix)
		}
		for _, replica := range []string{"-0", "-1"} {
			eventuallyNotInShoot(ctx, &corev1.Pod{}, addedName+replica)
			eventuallyNotInShoot(ctx, &corev1.PersistentVolumeClaim{}, "cache-volume-"+addedName+replica)
		}
		eventuallyInShoot(ctx, &networkingv1.NetworkPolicy{}, "gardener.cloud--allow-registry-cache")
	}, SpecTimeout(2*time.Minute))
})

var _ = Describe("Pod that never becomes ready", func() {
	It("is replaced when what it runs was corrected", func(ctx SpecContext) {
		const name = "registry-never-ready-example-com"
		namespace := newShoot(ctx)
		reconcile(ctx, namespace, cache{"upstream": "never-ready.example.com"})
		// There is no kubelet that would make it ready.
		before, claim := awaitPodAndClaim(ctx, name)

		reconcile(ctx, namespace, cache{"upstream": "never-ready.example.com", "garbageCollection": map[string]any{"ttl": "24h"}})

		Eventually(func(g Gomega) {
			after, claimAfter := awaitPodAndClaim(ctx, name)
			g.Expect(after.UID).NotTo(Equal(before.UID))
			g.Expect(after.Annotations["checksum/config"]).NotTo(Equal(before.Annotations["checksum/config"]))
			g.Expect(claimAfter.UID).To(Equal(claim.UID))
		}).WithContext(ctx).Should(Succeed())
	}, SpecTimeout(2*time.Minute))
})

// cacheState is what of a cache in the Shoot tells whether a change touched it.
type cacheState struct {
	Service, StatefulSet, Claim, Pod types.UID
	ClusterIP                        string
	// PodTemplate is the revision of the pod template.
	PodTemplate string
}

// observe returns the state of a cache once its pod is of the present pod
// template, and in Service. What a kubelet would do for that is done.
func observe(ctx context.Context, upstreamHost, serviceNameSuffix string) cacheState {
	GinkgoHelper()
	name := upstream.ResourceName(upstreamHost)
	serviceName := name
	if serviceNameSuffix != "" {
		serviceName = "registry-" + serviceNameSuffix
	}
	service, statefulSet := &corev1.Service{}, &appsv1.StatefulSet{}
	eventuallyInShoot(ctx, service, serviceName)
	pod, claim := awaitPodAndClaim(ctx, name)
	Eventually(func(g Gomega) {
		g.Expect(shoot.Get(ctx, client.ObjectKey{Namespace: metav1.NamespaceSystem, Name: name}, statefulSet)).To(Succeed())
		// Otherwise the controller may be about to replace the pod.
		g.Expect(statefulSet.Status.ObservedGeneration).To(Equal(statefulSet.Generation))
		g.Expect(shoot.Get(ctx, client.ObjectKeyFromObject(pod), pod)).To(Succeed())
		g.Expect(pod.DeletionTimestamp).To(BeNil())
		g.Expect(pod.Labels).To(HaveKeyWithValue(appsv1.ControllerRevisionHashLabelKey, statefulSet.Status.UpdateRevision))
	}).WithContext(ctx).Should(Succeed())
	setPodReady(ctx, pod, corev1.ConditionTrue)
	return cacheState{
		Service: service.UID, StatefulSet: statefulSet.UID, Claim: claim.UID, Pod: pod.UID,
		ClusterIP: service.Spec.ClusterIP, PodTemplate: statefulSet.Status.UpdateRevision,
	}
}

// setPodReady says of a pod what a kubelet would say.
func setPodReady(ctx context.Context, pod *corev1.Pod, ready corev1.ConditionStatus) {
	GinkgoHelper()
	patch := client.MergeFrom(pod.DeepCopy())
	pod.Status.Phase = corev1.PodRunning
	pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: ready}}
	Expect(shoot.Status().Patch(ctx, pod, patch)).To(Succeed())
}

// expectPodReplaced fails if anything but the pod has been replaced, or that has
// not.
func expectPodReplaced(before, after cacheState) {
	GinkgoHelper()
	Expect(after.Pod).NotTo(Equal(before.Pod))
	Expect(after.PodTemplate).NotTo(Equal(before.PodTemplate))
	after.Pod, after.PodTemplate = before.Pod, before.PodTemplate
	Expect(after).To(Equal(before))
}

// awaitApplied waits until gardener-resource-manager has brought to the Shoot
// what the extension wrote.
func awaitApplied(ctx context.Context, namespace string) {
	GinkgoHelper()
	for _, name := range []string{"extension-registry-cache-services", "extension-registry-cache"} {
		Eventually(func() error {
			return health.CheckManagedResourceApplied(getManagedResource(ctx, namespace, name))
		}).WithContext(ctx).Should(Succeed(), name)
	}
}

// updateShoot changes the Shoot in the Seed's Cluster resource, as gardenlet does
// before it writes Extensions.
func updateShoot(ctx context.Context, namespace string, mutate func(*gardencorev1beta1.Shoot)) {
	GinkgoHelper()
	cluster, err := extensionscontroller.GetCluster(ctx, seed, namespace)
	Expect(err).NotTo(HaveOccurred())
	mutate(cluster.Shoot)
	Expect(gardenerextensions.SyncClusterResourceToSeed(ctx, seed, namespace, cluster.Shoot, cluster.CloudProfile, cluster.Seed)).To(Succeed())
}

// statusOf is what the extension has published.
func statusOf(ctx context.Context, namespace string) *v1alpha3.RegistryStatus {
	GinkgoHelper()
	extension := getExtension(ctx, namespace)
	Expect(extension.Status.ProviderStatus).NotTo(BeNil())
	status, err := v1alpha3.DecodeStatus(extension.Status.ProviderStatus.Raw)
	Expect(err).NotTo(HaveOccurred())
	return status
}

func podOf(ctx context.Context, name string) *corev1.Pod {
	GinkgoHelper()
	pod := &corev1.Pod{}
	eventuallyInShoot(ctx, pod, name+"-0")
	return pod
}

func serviceOf(ctx context.Context, name string) *corev1.Service {
	GinkgoHelper()
	service := &corev1.Service{}
	eventuallyInShoot(ctx, service, name)
	return service
}

func secretOf(ctx context.Context, name string) *corev1.Secret {
	GinkgoHelper()
	secret := &corev1.Secret{}
	eventuallyInShoot(ctx, secret, name)
	return secret
}

func configOf(ctx context.Context, name string) string {
	GinkgoHelper()
	return string(secretOf(ctx, name+"-config").Data["config.yaml"])
}

func certificateOf(ctx context.Context, name string) *x509.Certificate {
	GinkgoHelper()
	secret := secretOf(ctx, name+"-tls")
	certificate, err := tls.X509KeyPair(secret.Data["tls.crt"], secret.Data["tls.key"])
	Expect(err).NotTo(HaveOccurred())
	return certificate.Leaf
}

// labelsOf and podSelectorOf are those of a cache's StatefulSet.
func labelsOf(ctx context.Context, name string) map[string]string {
	GinkgoHelper()
	statefulSet := &appsv1.StatefulSet{}
	eventuallyInShoot(ctx, statefulSet, name)
	return statefulSet.Labels
}

func podSelectorOf(ctx context.Context, name string) map[string]string {
	GinkgoHelper()
	statefulSet := &appsv1.StatefulSet{}
	eventuallyInShoot(ctx, statefulSet, name)
	return statefulSet.Spec.Selector.MatchLabels
}
