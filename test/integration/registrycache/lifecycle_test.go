// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package registrycache_test

import (
	"context"
	"fmt"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	vpaautoscalingv1 "k8s.io/autoscaler/vertical-pod-autoscaler/pkg/apis/autoscaling.k8s.io/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	gardencorev1beta1 "github.com/gardener/gardener/pkg/apis/core/v1beta1"
	v1beta1constants "github.com/gardener/gardener/pkg/apis/core/v1beta1/constants"
	extensionsv1alpha1 "github.com/gardener/gardener/pkg/apis/extensions/v1alpha1"
	resourcesv1alpha1 "github.com/gardener/gardener/pkg/apis/resources/v1alpha1"
	gardenerextensions "github.com/gardener/gardener/pkg/extensions"
	"github.com/gardener/gardener/pkg/utils/kubernetes/health"

	"github.com/gardener/gardener-extension-registry-cache/pkg/apis/registry/v1alpha3"
	"github.com/gardener/gardener-extension-registry-cache/test/gardener"
)

var _ = Describe("Hibernation", func() {
	It("touches nothing, and what was changed meanwhile is applied after the wake-up", func(ctx SpecContext) {
		namespace := newShoot(ctx)
		// Nobody may need the Shoot's API server, which is not there.
		reachShootBy(ctx, namespace, environment.ShootProxy.Kubeconfig)
		DeferCleanup(environment.ShootProxy.Pass)
		sleeper := cache{"upstream": "hibernated.example.com"}
		reconcile(ctx, namespace, sleeper)
		awaitApplied(ctx, namespace)
		before, seedBefore := observe(ctx, "hibernated.example.com", ""), observeSeed(ctx, namespace)

		By("hibernating")
		hibernate(ctx, namespace, sleeper)
		Expect(environment.ShootProxy.Refuse()).To(Succeed())
		Expect(observeSeed(ctx, namespace)).To(Equal(seedBefore))

		By("changing the configuration")
		sleeper["garbageCollection"] = map[string]any{"ttl": "24h"}
		added := cache{"upstream": "overnight.example.com"}
		reconcile(ctx, namespace, sleeper, added)
		Expect(observeSeed(ctx, namespace)).To(Equal(seedBefore))
		Expect(observe(ctx, "hibernated.example.com", "")).To(Equal(before))
		expectNotInShoot(ctx, &corev1.Service{}, "registry-overnight-example-com")

		By("waking up")
		Expect(environment.ShootProxy.Pass()).To(Succeed())
		updateShoot(ctx, namespace, func(shoot *gardencorev1beta1.Shoot) {
			// It counts as hibernated until all of it is awake again.
			shoot.Spec.Hibernation.Enabled = ptr.To(false)
		})
		Eventually(func() []v1alpha3.RegistryCacheStatus {
			return reconcile(ctx, namespace, sleeper, added).Caches
		}).WithContext(ctx).WithTimeout(time.Minute).Should(HaveLen(2))
		awaitApplied(ctx, namespace)
		expectPodReplaced(before, observe(ctx, "hibernated.example.com", ""))
		Expect(configOf(ctx, "registry-hibernated-example-com")).To(ContainSubstring("ttl: 24h"))
		observe(ctx, "overnight.example.com", "")
	}, SpecTimeout(3*time.Minute))

	It("keeps the caches of an extension that is removed meanwhile until the wake-up", func(ctx SpecContext) {
		namespace := newShoot(ctx)
		reachShootBy(ctx, namespace, environment.ShootProxy.Kubeconfig)
		DeferCleanup(environment.ShootProxy.Pass)
		reconcile(ctx, namespace, cache{"upstream": "forgotten.example.com"})
		awaitApplied(ctx, namespace)
		observe(ctx, "forgotten.example.com", "")
		updateShoot(ctx, namespace, func(shoot *gardencorev1beta1.Shoot) {
			shoot.Spec.Hibernation = &gardencorev1beta1.Hibernation{Enabled: ptr.To(true)}
			shoot.Status.IsHibernated = true
		})
		Expect(environment.ShootProxy.Refuse()).To(Succeed())

		beginDeletion(ctx, namespace)
		Eventually(func(g Gomega) {
			extension := getExtension(ctx, namespace)
			g.Expect(extension.Status.LastError).NotTo(BeNil())
			g.Expect(extension.Status.LastError.Description).To(ContainSubstring("the Shoot is hibernated, its caches are deleted when it wakes up"))
		}).WithContext(ctx).Should(Succeed())

		By("waking up")
		Expect(environment.ShootProxy.Pass()).To(Succeed())
		updateShoot(ctx, namespace, func(shoot *gardencorev1beta1.Shoot) {
			shoot.Spec.Hibernation.Enabled, shoot.Status.IsHibernated = ptr.To(false), false
		})
		beginDeletion(ctx, namespace)
		awaitNoExtension(ctx, namespace)
		expectNothingLeft(ctx, namespace, "registry-forgotten-example-com")
	}, SpecTimeout(3*time.Minute))
})

var _ = Describe("Operation", func() {
	DescribeTable("migrate leaves all in the Shoot, and restore takes it over, while the Shoot's API server is", func(ctx SpecContext, f fault) {
		namespace := newShoot(ctx)
		reachShootBy(ctx, namespace, environment.ShootProxy.Kubeconfig)
		DeferCleanup(environment.ShootProxy.Pass)
		status := reconcile(ctx, namespace, cache{"upstream": "migrated.example.com"})
		awaitApplied(ctx, namespace)
		before, trusted := observe(ctx, "migrated.example.com", ""), caBundle(ctx, namespace, status)
		certificate := certificateOf(ctx, "registry-migrated-example-com")
		extension := getExtension(ctx, namespace)
		config := extension.Spec.ProviderConfig

		By("migrating, for which nobody asks it for anything")
		Expect(f.begin(environment.ShootProxy)).To(Succeed())
		annotate(ctx, extension, v1beta1constants.GardenerOperationMigrate)
		awaitExtension(ctx, extension, gardencorev1beta1.LastOperationStateSucceeded)
		Expect(extension.Status.LastOperation.Type).To(Equal(gardencorev1beta1.LastOperationTypeMigrate))
		Eventually(func() []string { return getExtension(ctx, namespace).Finalizers }).WithContext(ctx).Should(BeEmpty())
		expectNoManagedResources(ctx, namespace)
		Expect(managedSecrets(ctx, namespace)).NotTo(BeEmpty(), "gardenlet takes the certificate authority along")
		Expect(environment.ShootProxy.Pass()).To(Succeed())
		Expect(observe(ctx, "migrated.example.com", "")).To(Equal(before))

		By("deleting the Extension, as gardenlet does after a migration")
		deleteExtension(ctx, namespace)
		Expect(observe(ctx, "migrated.example.com", "")).To(Equal(before))
		Expect(managedSecrets(ctx, namespace)).NotTo(BeEmpty())

		By("restoring")
		extension = &extensionsv1alpha1.Extension{ObjectMeta: metav1.ObjectMeta{
			Namespace: namespace, Name: v1alpha3.ExtensionType,
			Annotations: map[string]string{v1beta1constants.GardenerOperation: v1beta1constants.GardenerOperationWaitForState},
		}}
		extension.Spec.Type, extension.Spec.ProviderConfig = v1alpha3.ExtensionType, config
		Expect(seed.Create(ctx, extension)).To(Succeed())
		f.meet(ctx, environment.ShootProxy, namespace, []cache{{"upstream": "migrated.example.com"}}, func() *extensionsv1alpha1.Extension {
			annotate(ctx, extension, v1beta1constants.GardenerOperationRestore)
			return extension
		}, func() {
			expectNoManagedResources(ctx, namespace)
			Expect(observe(ctx, "migrated.example.com", "")).To(Equal(before))
		})
		// The status does not tell, for the annotation often makes another reconcile
		// follow at once.
		Expect(string(extensionSession.Err.Contents())).To(MatchRegexp(`Successfully restored Extension resource.*` + namespace))
		restored := statusOf(ctx, namespace)
		Expect(restored).To(Equal(status))
		Expect(caBundle(ctx, namespace, restored)).To(Equal(trusted))
		awaitRecovery(ctx, namespace)
		Expect(observe(ctx, "migrated.example.com", "")).To(Equal(before))
		Expect(certificateOf(ctx, "registry-migrated-example-com")).To(Equal(certificate))
	},
		Entry("down", down, SpecTimeout(3*time.Minute)),
		Entry("answering with status 500", failing, SpecTimeout(3*time.Minute)),
		Entry("slow", slow, SpecTimeout(3*time.Minute)),
	)
})

var _ = Describe("Shoot that was restored while it was hibernated", func() {
	It("loses the caches that were removed until it woke up", func(ctx SpecContext) {
		namespace := restoreHibernated(ctx, "kept.example.com", "removed.example.com")
		before := observe(ctx, "kept.example.com", "")
		foreign := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{
			Namespace: metav1.NamespaceSystem, Name: "foreign", Labels: map[string]string{"upstream-host": "removed.example.com"},
		}}
		Expect(shoot.Create(ctx, foreign)).To(Succeed())
		DeferCleanup(deleteSecret, foreign, NodeTimeout(time.Minute))

		By("removing a cache")
		reconcile(ctx, namespace, cache{"upstream": "kept.example.com"})
		expectNoManagedResources(ctx, namespace)
		observe(ctx, "removed.example.com", "")

		By("waking up")
		Expect(environment.ShootProxy.Pass()).To(Succeed())
		setHibernated(ctx, namespace, false)
		Eventually(func() []v1alpha3.RegistryCacheStatus {
			return reconcile(ctx, namespace, cache{"upstream": "kept.example.com"}).Caches
		}).WithContext(ctx).Should(HaveLen(1))
		awaitRecovery(ctx, namespace)
		Expect(observe(ctx, "kept.example.com", "")).To(Equal(before))
		expectNotInShootAnyMore(ctx, "registry-removed-example-com")
		eventuallyInShoot(ctx, foreign, foreign.Name)
		Expect(foreign.DeletionTimestamp).To(BeNil())
	}, SpecTimeout(3*time.Minute))

	It("loses all of them when the extension is removed", func(ctx SpecContext) {
		namespace := restoreHibernated(ctx, "forgotten.example.com", "also-forgotten.example.com")
		beginDeletion(ctx, namespace)
		Eventually(func() *gardencorev1beta1.LastError { return getExtension(ctx, namespace).Status.LastError }).WithContext(ctx).
			Should(HaveValue(HaveField("Description", ContainSubstring("are deleted when the Shoot's API server answers"))))
		observe(ctx, "forgotten.example.com", "")

		By("waking up")
		Expect(environment.ShootProxy.Pass()).To(Succeed())
		setHibernated(ctx, namespace, false)
		awaitNoExtension(ctx, namespace)
		for _, name := range []string{"registry-forgotten-example-com", "registry-also-forgotten-example-com"} {
			expectNotInShootAnyMore(ctx, name)
		}
		expectNotInShoot(ctx, &networkingv1.NetworkPolicy{}, "gardener.cloud--allow-registry-cache")
		Expect(managedSecrets(ctx, namespace)).To(BeEmpty())
	}, SpecTimeout(3*time.Minute))
})

func deleteSecret(ctx SpecContext, secret *corev1.Secret) {
	GinkgoHelper()
	Expect(shoot.Delete(ctx, secret)).To(Succeed())
}

// restoreHibernated deploys caches, and migrates and restores the Extension while the
// Shoot is hibernated: its API server stays down.
func restoreHibernated(ctx context.Context, upstreamHosts ...string) string {
	GinkgoHelper()
	namespace := newShoot(ctx)
	reachShootBy(ctx, namespace, environment.ShootProxy.Kubeconfig)
	DeferCleanup(environment.ShootProxy.Pass)
	var caches []cache
	for _, upstreamHost := range upstreamHosts {
		caches = append(caches, cache{"upstream": upstreamHost, "highAvailability": map[string]any{"enabled": true}})
	}
	reconcile(ctx, namespace, caches...)
	awaitApplied(ctx, namespace)
	for _, upstreamHost := range upstreamHosts {
		observe(ctx, upstreamHost, "")
	}
	hibernate(ctx, namespace, caches...)
	Expect(environment.ShootProxy.Refuse()).To(Succeed())
	restoreExtension(ctx, seed, namespace, migrateExtension(ctx, namespace))
	expectNoManagedResources(ctx, namespace)
	return namespace
}

var _ = Describe("Deletion", func() {
	It("waits for pods in use, with the Services last, and takes all volumes along", func(ctx SpecContext) {
		const name = "registry-in-use-example-com"
		namespace := newShoot(ctx)
		reconcile(ctx, namespace, cache{"upstream": "in-use.example.com", "highAvailability": map[string]any{"enabled": true}})
		awaitApplied(ctx, namespace)
		observe(ctx, "in-use.example.com", "")
		pod, claim := awaitPodAndClaim(ctx, name)
		bind(ctx, pod)
		second := &corev1.PersistentVolumeClaim{}
		eventuallyInShoot(ctx, second, "cache-volume-"+name+"-1")

		By("deleting as long as the pod ends")
		beginDeletion(ctx, namespace)
		Eventually(func() *metav1.Time { return podOf(ctx, name).DeletionTimestamp }).WithContext(ctx).ShouldNot(BeNil())
		Consistently(func(g Gomega) {
			g.Expect(getExtension(ctx, namespace).Finalizers).NotTo(BeEmpty())
			g.Expect(shoot.Get(ctx, client.ObjectKey{Namespace: metav1.NamespaceSystem, Name: name}, &corev1.Service{})).To(Succeed())
			g.Expect(shoot.Get(ctx, client.ObjectKeyFromObject(claim), claim)).To(Succeed())
			g.Expect(managedSecrets(ctx, namespace)).NotTo(BeEmpty())
		}).WithTimeout(time.Second).Should(Succeed())

		By("ending the pod, as its kubelet does")
		Expect(shoot.Delete(ctx, pod, client.GracePeriodSeconds(0))).To(Succeed())
		awaitNoExtension(ctx, namespace)
		expectNothingLeft(ctx, namespace, name)
		eventuallyNotInShoot(ctx, second, second.Name)
	}, SpecTimeout(2*time.Minute))

	DescribeTable("by force waits for nothing when the Shoot's API server is", func(ctx SpecContext, f fault) {
		namespace := newShoot(ctx)
		// Early, for the extension has heard of it when the caches are deployed.
		updateShoot(ctx, namespace, func(shoot *gardencorev1beta1.Shoot) {
			metav1.SetMetaDataAnnotation(&shoot.ObjectMeta, v1beta1constants.AnnotationConfirmationForceDeletion, "true")
		})
		reachShootBy(ctx, namespace, environment.ShootProxy.Kubeconfig)
		DeferCleanup(environment.ShootProxy.Pass)
		reconcile(ctx, namespace, cache{"upstream": "forced.example.com"})
		awaitApplied(ctx, namespace)
		Eventually(func() error {
			return health.CheckManagedResourceApplied(getManagedResource(ctx, namespace, "extension-registry-cache-reports"))
		}).WithContext(ctx).WithTimeout(time.Minute).Should(Succeed())
		before := observe(ctx, "forced.example.com", "")
		monitoringObjects(ctx, namespace)

		By("deleting")
		Expect(f.begin(environment.ShootProxy)).To(Succeed())
		beginDeletion(ctx, namespace)
		awaitNoExtension(ctx, namespace)

		expectNoMonitoring(ctx, namespace)
		Expect(managedSecrets(ctx, namespace)).To(BeEmpty())
		Expect(observe(ctx, "forced.example.com", "")).To(Equal(before), "nobody got through to it")
		for _, name := range []string{"extension-registry-cache-services", "extension-registry-cache", "extension-registry-cache-reports", "extension-registry-cache-definition"} {
			managedResource := getManagedResource(ctx, namespace, name)
			Expect(managedResource.DeletionTimestamp).NotTo(BeNil(), name)
			Expect(managedResource.Finalizers).NotTo(BeEmpty(), "gardenlet removes them afterwards")
		}

		By("ending what was deleted once the API server is back after all")
		Expect(environment.ShootProxy.Pass()).To(Succeed())
		Eventually(func() []resourcesv1alpha1.ManagedResource { return managedResources(ctx, namespace) }).
			WithContext(ctx).WithTimeout(2 * time.Minute).Should(BeEmpty())
		expectNothingLeft(ctx, namespace, "registry-forced-example-com")
	},
		Entry("down", down, SpecTimeout(4*time.Minute)),
		Entry("answering with status 500", failing, SpecTimeout(4*time.Minute)),
		Entry("so slow that it seems gone", hanging, SpecTimeout(4*time.Minute)),
	)

	It("needs nothing of the Cluster but that it is there", func(ctx SpecContext) {
		// Side by side, for each takes its time.
		namespaces := map[string]string{}
		for _, state := range []string{"no-spec", "empty", "missing"} {
			namespaces[state] = newShoot(ctx)
			applyExtension(ctx, namespaces[state], cache{"upstream": state + ".example.com"})
		}
		for state, namespace := range namespaces {
			awaitExtension(ctx, getExtension(ctx, namespace), gardencorev1beta1.LastOperationStateSucceeded)
			awaitApplied(ctx, namespace)
			awaitPodAndClaim(ctx, "registry-"+state+"-example-com")
		}

		By("taking away parts of the Clusters, and deleting")
		for state, raw := range map[string]string{
			"no-spec": `{"apiVersion":"core.gardener.cloud/v1beta1","kind":"Shoot","metadata":{"name":"half-gone"}}`,
			"empty":   `{}`,
		} {
			patch := client.RawPatch(types.JSONPatchType, []byte(`[{"op":"replace","path":"/spec/shoot","value":`+raw+`}]`))
			Expect(seed.Patch(ctx, &extensionsv1alpha1.Cluster{ObjectMeta: metav1.ObjectMeta{Name: namespaces[state]}}, patch)).To(Succeed())
		}
		missing := &extensionsv1alpha1.Cluster{}
		Expect(seed.Get(ctx, client.ObjectKey{Name: namespaces["missing"]}, missing)).To(Succeed())
		Expect(seed.Delete(ctx, missing)).To(Succeed())
		for _, namespace := range namespaces {
			beginDeletion(ctx, namespace)
		}
		awaitNoExtension(ctx, namespaces["no-spec"])
		awaitNoExtension(ctx, namespaces["empty"])

		By("bringing back the missing Cluster")
		missing.ResourceVersion = ""
		Expect(seed.Create(ctx, missing)).To(Succeed())
		Eventually(func() error {
			// As gardenlet does, again and again: without a Cluster nothing was done.
			beginDeletion(ctx, namespaces["missing"])
			return seed.Get(ctx, client.ObjectKey{Namespace: namespaces["missing"], Name: v1alpha3.ExtensionType}, &extensionsv1alpha1.Extension{})
		}).WithContext(ctx).WithPolling(time.Second).WithTimeout(time.Minute).Should(Satisfy(apierrors.IsNotFound))
		for state, namespace := range namespaces {
			expectNothingLeft(ctx, namespace, "registry-"+state+"-example-com")
		}
	}, SpecTimeout(2*time.Minute))
})

var _ = Describe("Workerless Shoot", func() {
	It("is accepted, and nothing is deployed", func(ctx SpecContext) {
		namespace := newWorkerlessShoot(ctx)
		extension := applyExtension(ctx, namespace, cache{"upstream": "workerless.example.com"})
		awaitExtension(ctx, extension, gardencorev1beta1.LastOperationStateSucceeded)

		Expect(extension.Status.ProviderStatus).To(BeNil())
		expectNoManagedResources(ctx, namespace)
		Expect(managedSecrets(ctx, namespace)).To(BeEmpty())
		expectNotInShoot(ctx, &corev1.Service{}, "registry-workerless-example-com")

		deleteExtension(ctx, namespace)
	}, SpecTimeout(time.Minute))
})

// newWorkerlessShoot is newShoot for a Shoot without workers.
func newWorkerlessShoot(ctx context.Context) string {
	GinkgoHelper()
	namespace, err := environment.NewShootNamespace(ctx, &gardencorev1beta1.Shoot{
		ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("w%d", time.Now().UnixNano()), Namespace: "garden-test"},
		Spec:       gardencorev1beta1.ShootSpec{Kubernetes: gardencorev1beta1.Kubernetes{Version: "1.36.3"}},
	})
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(cleanUp, namespace, NodeTimeout(2*time.Minute))
	return namespace
}

// reachShootBy lets the extension reach a Shoot's API server by a kubeconfig.
func reachShootBy(ctx context.Context, namespace string, kubeconfig []byte) {
	GinkgoHelper()
	Expect(gardener.NewNamespace(ctx, seed, namespace, kubeconfig)).To(Succeed())
}

// hibernate hibernates a Shoot, and returns when the extension has heard of it.
func hibernate(ctx context.Context, namespace string, caches ...cache) {
	GinkgoHelper()
	setHibernated(ctx, namespace, true)
	Eventually(func() string {
		reconcile(ctx, namespace, caches...)
		return string(extensionSession.Err.Contents())
	}).WithContext(ctx).Should(MatchRegexp(`Shoot is hibernated.*` + namespace))
}

// annotate asks for an operation, as gardenlet does.
func annotate(ctx context.Context, extension *extensionsv1alpha1.Extension, operation string) {
	GinkgoHelper()
	Expect(gardener.RequestOperation(ctx, seed, extension, operation)).To(Succeed())
}

// beginDeletion deletes an Extension, or asks for its deletion again, as
// gardenlet does.
func beginDeletion(ctx context.Context, namespace string) {
	GinkgoHelper()
	extension := &extensionsv1alpha1.Extension{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: v1alpha3.ExtensionType}}
	Expect(gardenerextensions.DeleteExtensionObject(ctx, seed, extension)).To(Succeed())
}

func awaitNoExtension(ctx context.Context, namespace string) {
	GinkgoHelper()
	extension := &extensionsv1alpha1.Extension{}
	Eventually(func() error {
		return seed.Get(ctx, client.ObjectKey{Namespace: namespace, Name: v1alpha3.ExtensionType}, extension)
	}).WithContext(ctx).WithTimeout(time.Minute).Should(Satisfy(apierrors.IsNotFound))
}

// bind puts a pod on a node, so that its end takes a kubelet.
func bind(ctx context.Context, pod *corev1.Pod) {
	GinkgoHelper()
	binding := &corev1.Binding{Target: corev1.ObjectReference{Kind: "Node", Name: "node"}}
	Expect(shoot.SubResource("binding").Create(ctx, pod, binding)).To(Succeed())
}

// seedState is all that the extension writes to a Seed, or what tells whether it
// has.
type seedState struct {
	// Generations are those of the ManagedResources, by name.
	Generations map[string]int64
	// Secrets are the resource versions of the certificates, by name.
	Secrets map[string]string
	// ProviderStatus is that of the Extension.
	ProviderStatus string
}

func observeSeed(ctx context.Context, namespace string) seedState {
	GinkgoHelper()
	state := seedState{Generations: map[string]int64{}, Secrets: map[string]string{}}
	for _, managedResource := range managedResources(ctx, namespace) {
		state.Generations[managedResource.Name] = managedResource.Generation
	}
	for _, secret := range managedSecrets(ctx, namespace) {
		state.Secrets[secret.Name] = secret.ResourceVersion
	}
	if status := getExtension(ctx, namespace).Status.ProviderStatus; status != nil {
		state.ProviderStatus = string(status.Raw)
	}
	return state
}

func managedResources(ctx context.Context, namespace string) []resourcesv1alpha1.ManagedResource {
	GinkgoHelper()
	list := &resourcesv1alpha1.ManagedResourceList{}
	Expect(seed.List(ctx, list, client.InNamespace(namespace))).To(Succeed())
	return list.Items
}

func expectNoManagedResources(ctx context.Context, namespace string) {
	GinkgoHelper()
	Expect(managedResources(ctx, namespace)).To(BeEmpty())
}

// expectNothingLeft fails if anything is left of a Shoot's only cache.
func expectNothingLeft(ctx context.Context, namespace, name string) {
	GinkgoHelper()
	expectNoManagedResources(ctx, namespace)
	Expect(managedSecrets(ctx, namespace)).To(BeEmpty())
	expectNotInShootAnyMore(ctx, name)
	eventuallyNotInShoot(ctx, &networkingv1.NetworkPolicy{}, "gardener.cloud--allow-registry-cache")
}

// expectNotInShootAnyMore fails if anything is left of a cache in the Shoot.
func expectNotInShootAnyMore(ctx context.Context, name string) {
	GinkgoHelper()
	for _, object := range []client.Object{
		&appsv1.StatefulSet{}, &corev1.Service{}, &vpaautoscalingv1.VerticalPodAutoscaler{}, &policyv1.PodDisruptionBudget{},
		&corev1.ServiceAccount{}, &rbacv1.Role{}, &rbacv1.RoleBinding{},
	} {
		eventuallyNotInShoot(ctx, object, name)
	}
	Eventually(registryCaches).WithArguments(ctx, newOwner(environment.Shoot)).ShouldNot(ContainElement(HaveField("Name", name)))
	for _, suffix := range []string{"-config", "-tls"} {
		eventuallyNotInShoot(ctx, &corev1.Secret{}, name+suffix)
	}
	eventuallyNotInShoot(ctx, &corev1.Pod{}, name+"-0")
	eventuallyNotInShoot(ctx, &corev1.PersistentVolumeClaim{}, "cache-volume-"+name+"-0")
}
