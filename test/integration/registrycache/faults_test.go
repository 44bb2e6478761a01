// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package registrycache_test

import (
	"context"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"

	v1beta1helper "github.com/gardener/gardener/pkg/api/core/v1beta1/helper"
	gardencorev1beta1 "github.com/gardener/gardener/pkg/apis/core/v1beta1"
	extensionsv1alpha1 "github.com/gardener/gardener/pkg/apis/extensions/v1alpha1"
	resourcesv1alpha1 "github.com/gardener/gardener/pkg/apis/resources/v1alpha1"
	"github.com/gardener/gardener/pkg/utils/kubernetes/health"

	"github.com/gardener/gardener-extension-registry-cache/pkg/controller"
	"github.com/gardener/gardener-extension-registry-cache/test/integration/control"
)

var _ = Describe("Shoot API server", func() {
	// The faults of one side alone show what each of them does about it. When both
	// have them, the first of them is met first.
	DescribeTable("with a fault is tried again by the extension, which says so",
		func(ctx SpecContext, f fault) {
			namespace := newShoot(ctx)
			proxy := startProxy()
			reachShootBy(ctx, namespace, proxy.Kubeconfig)
			one, two := cache{"upstream": "fault-one.example.com"}, cache{"upstream": "fault-two.example.com"}

			By("creating")
			Expect(f.begin(proxy)).To(Succeed())
			extension := applyExtension(ctx, namespace, one)
			awaitExtension(ctx, extension, gardencorev1beta1.LastOperationStateError)
			Expect(extension.Status.LastError.Description).To(ContainSubstring(f.lastError))
			Expect(extension.Status.ProviderStatus).To(BeNil())
			Expect(proxy.Pass()).To(Succeed())
			awaitExtension(ctx, extension, gardencorev1beta1.LastOperationStateSucceeded)
			Expect(extension.Status.LastError).To(BeNil())
			awaitApplied(ctx, namespace)
			before, seedBefore := observe(ctx, "fault-one.example.com", ""), observeSeed(ctx, namespace)

			By("updating")
			Expect(f.begin(proxy)).To(Succeed())
			extension = applyExtension(ctx, namespace, one, two)
			awaitExtension(ctx, extension, gardencorev1beta1.LastOperationStateError)
			Expect(extension.Status.LastError.Description).To(ContainSubstring(f.lastError))
			// Nodes go on with what they know.
			Expect(observeSeed(ctx, namespace)).To(And(HaveField("ProviderStatus", seedBefore.ProviderStatus), HaveField("Secrets", seedBefore.Secrets)))
			Expect(observe(ctx, "fault-one.example.com", "")).To(Equal(before))
			Expect(proxy.Pass()).To(Succeed())
			awaitExtension(ctx, extension, gardencorev1beta1.LastOperationStateSucceeded)
			Expect(statusOf(ctx, namespace).Caches).To(HaveLen(2))
			awaitApplied(ctx, namespace)
			Expect(observe(ctx, "fault-one.example.com", "")).To(Equal(before))

			By("deleting, which the extension leaves to gardener-resource-manager")
			Expect(f.begin(proxy)).To(Succeed())
			beginDeletion(ctx, namespace)
			awaitNoExtension(ctx, namespace)
			expectNothingLeft(ctx, namespace, "registry-fault-one-example-com")
			expectNothingLeft(ctx, namespace, "registry-fault-two-example-com")
		},
		Entry("down", down, SpecTimeout(2*time.Minute)),
		Entry("status 500", failing, SpecTimeout(2*time.Minute)),
	)

	DescribeTable("with a fault is tried again when the Shoot wakes up and when its certificate authorities are rotated",
		func(ctx SpecContext, f fault) {
			const name = "registry-awoken-example-com"
			namespace, proxy := newShoot(ctx), startProxy()
			reachShootBy(ctx, namespace, proxy.Kubeconfig)
			one, two := cache{"upstream": "awoken.example.com"}, cache{"upstream": "overnight.example.com"}
			both := []cache{one, two}
			reconcile(ctx, namespace, one)
			awaitApplied(ctx, namespace)
			before, trusted := observe(ctx, "awoken.example.com", ""), readTrust(ctx, namespace, name)
			// meet has a reconcile meet the fault, in which nothing changes, and returns what is
			// trusted after it.
			meet := func() trust {
				GinkgoHelper()
				f.meet(ctx, proxy, namespace, both, func() *extensionsv1alpha1.Extension { return applyExtension(ctx, namespace, both...) }, func() {
					Expect(observe(ctx, "awoken.example.com", "")).To(Equal(before))
					Expect(readTrust(ctx, namespace, name)).To(Equal(trusted))
				})
				awaitApplied(ctx, namespace)
				Expect(observe(ctx, "awoken.example.com", "")).To(Equal(before), "no pod is replaced")
				return readTrust(ctx, namespace, name)
			}

			By("waking up")
			hibernate(ctx, namespace, one)
			reconcile(ctx, namespace, both...)
			Expect(statusOf(ctx, namespace).Caches).To(HaveLen(1))
			setHibernated(ctx, namespace, false)
			Expect(meet()).To(Equal(trusted))
			Expect(statusOf(ctx, namespace).Caches).To(HaveLen(2))
			added := observe(ctx, "overnight.example.com", "")

			By("preparing a rotation")
			old := trusted.authorities[0]
			setCARotation(ctx, namespace, gardencorev1beta1.RotationPreparing)
			prepared := meet()
			Expect(prepared.authorities).To(And(HaveLen(2), ContainElement(old)))
			Expect(prepared.server.CheckSignatureFrom(old)).To(Succeed())
			setCARotation(ctx, namespace, gardencorev1beta1.RotationPrepared)
			Eventually(func(g Gomega) {
				reconcile(ctx, namespace, both...)
				trusted = readTrust(ctx, namespace, name)
				g.Expect(trusted.server.CheckSignatureFrom(old)).NotTo(Succeed())
			}).WithContext(ctx).Should(Succeed())
			Expect(trusted.authorities).To(Equal(prepared.authorities))

			By("completing it")
			setCARotation(ctx, namespace, gardencorev1beta1.RotationCompleting)
			completed := meet()
			Expect(completed.authorities).To(And(HaveLen(1), Not(ContainElement(old))))
			Expect(completed.server).To(Equal(trusted.server))
			eventuallyServedInShoot(ctx, name, completed.server)
			Expect(observe(ctx, "overnight.example.com", "")).To(Equal(added))
		},
		Entry("down", down, SpecTimeout(3*time.Minute)),
		Entry("status 500", failing, SpecTimeout(3*time.Minute)),
		Entry("slow", slow, SpecTimeout(3*time.Minute)),
	)

	DescribeTable("with a fault is waited for when gardener-resource-manager meets it",
		func(ctx SpecContext, f fault) {
			namespace := newShoot(ctx)
			DeferCleanup(environment.ShootProxy.Pass)
			one, two := cache{"upstream": "fault-one.example.com"}, cache{"upstream": "fault-two.example.com"}

			By("creating")
			Expect(f.begin(environment.ShootProxy)).To(Succeed())
			extension := applyExtension(ctx, namespace, one)
			awaitFailure(ctx, namespace, "extension-registry-cache-services")
			expectNotInShoot(ctx, &corev1.Service{}, "registry-fault-one-example-com")
			Expect(environment.ShootProxy.Pass()).To(Succeed())
			awaitRecovery(ctx, namespace)
			awaitExtension(ctx, extension, gardencorev1beta1.LastOperationStateSucceeded)
			before := observe(ctx, "fault-one.example.com", "")

			By("updating")
			Expect(f.begin(environment.ShootProxy)).To(Succeed())
			extension = applyExtension(ctx, namespace, one, two)
			awaitFailure(ctx, namespace, "extension-registry-cache-services")
			Expect(environment.ShootProxy.Pass()).To(Succeed())
			awaitRecovery(ctx, namespace)
			awaitExtension(ctx, extension, gardencorev1beta1.LastOperationStateSucceeded)
			Expect(observe(ctx, "fault-one.example.com", "")).To(Equal(before))
			observe(ctx, "fault-two.example.com", "")

			By("deleting")
			Expect(f.begin(environment.ShootProxy)).To(Succeed())
			beginDeletion(ctx, namespace)
			awaitFailure(ctx, namespace, "extension-registry-cache")
			Expect(getExtension(ctx, namespace).Finalizers).NotTo(BeEmpty())
			Expect(observe(ctx, "fault-one.example.com", "")).To(Equal(before))
			Expect(managedSecrets(ctx, namespace)).NotTo(BeEmpty())
			Expect(environment.ShootProxy.Pass()).To(Succeed())
			awaitNoExtension(ctx, namespace)
			expectNothingLeft(ctx, namespace, "registry-fault-one-example-com")
			expectNothingLeft(ctx, namespace, "registry-fault-two-example-com")
		},
		Entry("down", down, SpecTimeout(4*time.Minute)),
		Entry("status 500", failing, SpecTimeout(4*time.Minute)),
	)

	It("with a fault is what the error names when gardener-resource-manager was waited for in vain", func(ctx SpecContext) {
		namespace := newShoot(ctx)
		DeferCleanup(environment.ShootProxy.Pass)
		Expect(environment.ShootProxy.Refuse()).To(Succeed())
		waited := cache{"upstream": "waited.example.com"}

		// Less time than it would have, which is two minutes.
		short, cancel := context.WithTimeout(ctx, 15*time.Second)
		defer cancel()
		err := reconcileBy(short, namespace, controller.ShootClient, waited)
		Expect(err).To(MatchError(And(ContainSubstring("wait for ManagedResource extension-registry-cache-services"), ContainSubstring("connection refused"))))

		Expect(environment.ShootProxy.Pass()).To(Succeed())
		reconcile(ctx, namespace, waited)
		awaitRecovery(ctx, namespace)
		observe(ctx, "waited.example.com", "")
	}, SpecTimeout(3*time.Minute))

	It("that is down for both is waited for", func(ctx SpecContext) {
		namespace := newShoot(ctx)
		reachShootBy(ctx, namespace, environment.ShootProxy.Kubeconfig)
		DeferCleanup(environment.ShootProxy.Pass)
		one, two := cache{"upstream": "fault-one.example.com"}, cache{"upstream": "fault-two.example.com"}

		By("creating and updating")
		for i, caches := range [][]cache{{one}, {one, two}} {
			Expect(environment.ShootProxy.Refuse()).To(Succeed())
			extension := applyExtension(ctx, namespace, caches...)
			awaitExtension(ctx, extension, gardencorev1beta1.LastOperationStateError)
			Expect(extension.Status.LastError.Description).To(ContainSubstring("connection refused"))
			Expect(environment.ShootProxy.Pass()).To(Succeed())
			awaitExtension(ctx, extension, gardencorev1beta1.LastOperationStateSucceeded)
			awaitRecovery(ctx, namespace)
			Expect(statusOf(ctx, namespace).Caches).To(HaveLen(i + 1))
		}
		before := observe(ctx, "fault-one.example.com", "")
		observe(ctx, "fault-two.example.com", "")

		By("deleting")
		Expect(environment.ShootProxy.Refuse()).To(Succeed())
		beginDeletion(ctx, namespace)
		awaitFailure(ctx, namespace, "extension-registry-cache")
		Expect(observe(ctx, "fault-one.example.com", "")).To(Equal(before))
		Expect(environment.ShootProxy.Pass()).To(Succeed())
		awaitNoExtension(ctx, namespace)
		expectNothingLeft(ctx, namespace, "registry-fault-one-example-com")
		expectNothingLeft(ctx, namespace, "registry-fault-two-example-com")
	}, SpecTimeout(4*time.Minute))

	It("that is slow makes all slow, and nothing fail", func(ctx SpecContext) {
		const delay = 10 * time.Second
		createStorageClass(ctx, growingClass, ptr.To(true))
		namespace := newShoot(ctx)
		proxy := startProxy()
		reachShootBy(ctx, namespace, proxy.Kubeconfig)
		Expect(proxy.Delay(delay)).To(Succeed())

		By("creating")
		// It lists StatefulSets, claims and Services.
		expectSlow(ctx, applyExtension(ctx, namespace, sized("slow.example.com", "10Gi", growingClass)), 3*delay)
		observe(ctx, "slow.example.com", "")
		before := awaitStoredObjects(ctx, "registry-slow-example-com")
		bindClaim(ctx, before.claim)

		By("adding a cache, and having a volume grow")
		// It also reads the StorageClass, patches the claim, lists StatefulSets, deletes
		// one, and lists them at least once more until there is another.
		expectSlow(ctx, applyExtension(ctx, namespace, sized("slow.example.com", "20Gi", growingClass), cache{"upstream": "added.example.com"}), 8*delay)
		after := awaitSize(ctx, "registry-slow-example-com", "20Gi")
		Expect(after.claim.UID).To(Equal(before.claim.UID))
		after.expectAdopted(ctx, before.pod)
		Expect(statusOf(ctx, namespace).Caches).To(HaveLen(2))
		observe(ctx, "added.example.com", "")

		By("deleting")
		beginDeletion(ctx, namespace)
		awaitNoExtension(ctx, namespace)
		expectNothingLeft(ctx, namespace, "registry-slow-example-com")
		expectNothingLeft(ctx, namespace, "registry-added-example-com")
	}, SpecTimeout(5*time.Minute))

	It("that is slow for gardener-resource-manager makes all slow, and nothing fail", func(ctx SpecContext) {
		createStorageClass(ctx, growingClass, ptr.To(true))
		namespace := newShoot(ctx)
		DeferCleanup(environment.ShootProxy.Pass)
		// It writes each object in each reconcile, which it gives up after its period: that
		// is 15 seconds here, and an hour in Gardener.
		Expect(environment.ShootProxy.Delay(time.Second)).To(Succeed())

		By("creating")
		reconcile(ctx, namespace, sized("bound.example.com", "10Gi", growingClass))
		bound := awaitStoredObjects(ctx, "registry-bound-example-com")
		bindClaim(ctx, bound.claim)
		awaitRecovery(ctx, namespace)

		By("adding a cache, and having a volume grow")
		reconcile(ctx, namespace, sized("bound.example.com", "20Gi", growingClass), sized("pending.example.com", "10Gi", growingClass))
		after := awaitSize(ctx, "registry-bound-example-com", "20Gi")
		Expect(after.claim.UID).To(Equal(bound.claim.UID))
		after.expectAdopted(ctx, bound.pod)
		pending := awaitStoredObjects(ctx, "registry-pending-example-com")
		awaitRecovery(ctx, namespace)

		By("having one grow that is not there yet")
		reconcile(ctx, namespace, sized("bound.example.com", "20Gi", growingClass), sized("pending.example.com", "20Gi", growingClass))
		expectMadeAnew(ctx, pending, "20Gi")
		awaitRecovery(ctx, namespace)

		By("deleting")
		beginDeletion(ctx, namespace)
		Eventually(func() []resourcesv1alpha1.ManagedResource { return managedResources(ctx, namespace) }).
			WithContext(ctx).WithTimeout(2 * time.Minute).Should(BeEmpty())
		awaitNoExtension(ctx, namespace)
		expectNothingLeft(ctx, namespace, "registry-bound-example-com")
		expectNothingLeft(ctx, namespace, "registry-pending-example-com")
	}, SpecTimeout(4*time.Minute))

	It("that is too slow is an error that says what it was for, and the next try ends well", func(ctx SpecContext) {
		createStorageClass(ctx, growingClass, ptr.To(true))
		namespace := newShoot(ctx)
		proxy := startProxy()
		reachShootBy(ctx, namespace, proxy.Kubeconfig)
		DeferCleanup(environment.ShootProxy.Pass)
		// attempt is a reconcile with less patience than the extension has.
		attempt := func(caches ...cache) error {
			impatient, cancel := context.WithTimeout(ctx, 15*time.Second)
			defer cancel()
			return reconcileBy(impatient, namespace, controller.ShootClient, caches...)
		}

		By("creating")
		Expect(proxy.Delay(time.Hour)).To(Succeed())
		err := attempt(sized("slow.example.com", "10Gi", growingClass))
		Expect(err).To(MatchError(ContainSubstring("read the Shoot's StatefulSets of caches")))
		Expect(err).To(MatchError(context.DeadlineExceeded))
		Expect(proxy.Pass()).To(Succeed())
		Expect(environment.ShootProxy.Delay(time.Hour)).To(Succeed())
		err = attempt(sized("slow.example.com", "10Gi", growingClass))
		Expect(err).To(MatchError(ContainSubstring("wait for ManagedResource extension-registry-cache-services")))
		Expect(err).To(MatchError(ContainSubstring("The resources are currently being reconciled.")))
		Expect(environment.ShootProxy.Pass()).To(Succeed())
		reconcile(ctx, namespace, sized("slow.example.com", "10Gi", growingClass))
		before := awaitStoredObjects(ctx, "registry-slow-example-com")
		bindClaim(ctx, before.claim)
		awaitRecovery(ctx, namespace)

		By("having a volume grow")
		Expect(environment.ShootProxy.Delay(time.Hour)).To(Succeed())
		err = attempt(sized("slow.example.com", "20Gi", growingClass))
		Expect(err).To(MatchError(ContainSubstring("replace the Shoot's StatefulSets for the size of volumes, which are all there still")))
		Expect(environment.ShootProxy.Pass()).To(Succeed())
		reconcile(ctx, namespace, sized("slow.example.com", "20Gi", growingClass))
		after := awaitSize(ctx, "registry-slow-example-com", "20Gi")
		Expect(after.claim.UID).To(Equal(before.claim.UID))
		after.expectAdopted(ctx, before.pod)
	}, SpecTimeout(3*time.Minute))
})

// fault is one that a Shoot's API server has.
type fault struct {
	begin func(*control.Proxy) error
	// lastError is what the error of who meets it says. It is empty for a slow one, of
	// which delay says how much later each answer comes.
	lastError string
	delay     time.Duration
}

var (
	down    = fault{begin: (*control.Proxy).Refuse, lastError: "connection refused"}
	failing = fault{begin: (*control.Proxy).Fail, lastError: "the proxy was told to fail"}
	slow    = delaying(time.Second)
	// hanging is too slow for anyone's patience.
	hanging = delaying(time.Hour)
)

func delaying(delay time.Duration) fault {
	return fault{begin: func(proxy *control.Proxy) error { return proxy.Delay(delay) }, delay: delay}
}

// meet has an operation of an Extension with the given caches meet a fault. operate
// begins it. If the fault makes it fail, its error says with what, unchanged is called,
// and once the fault is over it succeeds without being asked for again. A slow one
// succeeds at once, if it has the patience.
func (f fault) meet(ctx context.Context, proxy *control.Proxy, namespace string, caches []cache, operate func() *extensionsv1alpha1.Extension, unchanged func()) {
	GinkgoHelper()
	const waitedFor = "read the Shoot's StatefulSets of caches"
	if f.delay > 0 {
		Expect(hanging.begin(proxy)).To(Succeed())
		impatient, cancel := context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
		Expect(reconcileBy(impatient, namespace, controller.ShootClient, caches...)).To(
			MatchError(And(ContainSubstring(waitedFor), ContainSubstring(context.DeadlineExceeded.Error()))))
		unchanged()

		Expect(f.begin(proxy)).To(Succeed())
		begin := time.Now()
		extension := awaitExtension(ctx, operate(), gardencorev1beta1.LastOperationStateSucceeded)
		// It lists StatefulSets, claims and Services.
		Expect(time.Since(begin)).To(BeNumerically(">=", 3*f.delay))
		Expect(extension.Status.LastError).To(BeNil())
		Expect(proxy.Pass()).To(Succeed())
		return
	}

	Expect(f.begin(proxy)).To(Succeed())
	var extension *extensionsv1alpha1.Extension
	Eventually(func(g Gomega) {
		// More than once: the controller may hear of a change of the Shoot a moment later.
		extension = operate()
		g.Eventually(func() *gardencorev1beta1.LastError { return getExtension(ctx, namespace).Status.LastError }).
			WithContext(ctx).WithTimeout(5 * time.Second).
			Should(HaveValue(HaveField("Description", And(ContainSubstring(waitedFor), ContainSubstring(f.lastError)))))
	}).WithContext(ctx).Should(Succeed())
	unchanged()
	Expect(proxy.Pass()).To(Succeed())
	awaitExtension(ctx, extension, gardencorev1beta1.LastOperationStateSucceeded)
	Expect(extension.Status.LastError).To(BeNil())
}

// expectSlow expects that a reconcile succeeds, without an error on the way, and
// takes at least some time, and not much more.
func expectSlow(ctx context.Context, extension *extensionsv1alpha1.Extension, atLeast time.Duration) {
	GinkgoHelper()
	begin := time.Now()
	Eventually(func(g Gomega) {
		current := getExtension(ctx, extension.Namespace)
		if lastError := current.Status.LastError; lastError != nil {
			StopTrying(lastError.Description).Now()
		}
		g.Expect(health.CheckExtensionObject(current)).To(Succeed())
	}).WithContext(ctx).WithTimeout(atLeast + 45*time.Second).Should(Succeed())
	Expect(time.Since(begin)).To(BeNumerically(">=", atLeast))
}

// startProxy starts a proxy for the extension alone.
func startProxy() *control.Proxy {
	GinkgoHelper()
	proxy, err := control.StartProxy(environment.Shoot)
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(proxy.Stop)
	return proxy
}

// awaitFailure waits until gardener-resource-manager has met a fault with a
// ManagedResource.
func awaitFailure(ctx context.Context, namespace, name string) {
	GinkgoHelper()
	Eventually(func(g Gomega) {
		list := managedResources(ctx, namespace)
		g.Expect(list).To(ContainElement(HaveField("Name", name)))
		managedResource := getManagedResource(ctx, namespace, name)
		applied := v1beta1helper.GetCondition(managedResource.Status.Conditions, resourcesv1alpha1.ResourcesApplied)
		g.Expect(applied).NotTo(BeNil())
		g.Expect(applied.Message).To(Or(ContainSubstring(down.lastError), ContainSubstring(failing.lastError)))
	}).WithContext(ctx).WithTimeout(time.Minute).Should(Succeed())
}

// awaitRecovery is awaitApplied after a fault: gardener-resource-manager pauses
// longer and longer between its attempts.
func awaitRecovery(ctx context.Context, namespace string) {
	GinkgoHelper()
	Eventually(func() []resourcesv1alpha1.ManagedResource { return managedResources(ctx, namespace) }).
		WithContext(ctx).WithTimeout(time.Minute).Should(HaveLen(4))
	awaitApplied(ctx, namespace)
}
