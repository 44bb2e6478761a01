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

	v1beta1helper "github.com/gardener/gardener/pkg/api/core/v1beta1/helper"
	gardencorev1beta1 "github.com/gardener/gardener/pkg/apis/core/v1beta1"
	resourcesv1alpha1 "github.com/gardener/gardener/pkg/apis/resources/v1alpha1"

	"github.com/gardener/gardener-extension-registry-cache/test/integration/control"
)

var _ = Describe("Shoot API server", func() {
	// The faults of one side alone show what each of them does about it. When both
	// have them, the first of them is met first.
	DescribeTable("with a fault is tried again by the extension, which says so",
		func(ctx SpecContext, fault func(*control.Proxy) error, lastError string) {
			namespace := newShoot(ctx)
			proxy := startProxy()
			reachShootBy(ctx, namespace, proxy.Kubeconfig)
			one, two := cache{"upstream": "fault-one.example.com"}, cache{"upstream": "fault-two.example.com"}

			By("creating")
			Expect(fault(proxy)).To(Succeed())
			extension := applyExtension(ctx, namespace, one)
			awaitExtension(ctx, extension, gardencorev1beta1.LastOperationStateError)
			Expect(extension.Status.LastError.Description).To(ContainSubstring(lastError))
			Expect(extension.Status.ProviderStatus).To(BeNil())
			Expect(proxy.Pass()).To(Succeed())
			awaitExtension(ctx, extension, gardencorev1beta1.LastOperationStateSucceeded)
			Expect(extension.Status.LastError).To(BeNil())
			awaitApplied(ctx, namespace)
			before, seedBefore := observe(ctx, "fault-one.example.com", ""), observeSeed(ctx, namespace)

			By("updating")
			Expect(fault(proxy)).To(Succeed())
			extension = applyExtension(ctx, namespace, one, two)
			awaitExtension(ctx, extension, gardencorev1beta1.LastOperationStateError)
			Expect(extension.Status.LastError.Description).To(ContainSubstring(lastError))
			// Nodes go on with what they know.
			Expect(observeSeed(ctx, namespace)).To(And(HaveField("ProviderStatus", seedBefore.ProviderStatus), HaveField("Secrets", seedBefore.Secrets)))
			Expect(observe(ctx, "fault-one.example.com", "")).To(Equal(before))
			Expect(proxy.Pass()).To(Succeed())
			awaitExtension(ctx, extension, gardencorev1beta1.LastOperationStateSucceeded)
			Expect(statusOf(ctx, namespace).Caches).To(HaveLen(2))
			awaitApplied(ctx, namespace)
			Expect(observe(ctx, "fault-one.example.com", "")).To(Equal(before))

			By("deleting, which the extension leaves to gardener-resource-manager")
			Expect(fault(proxy)).To(Succeed())
			beginDeletion(ctx, namespace)
			awaitNoExtension(ctx, namespace)
		},
		Entry("down", (*control.Proxy).Refuse, "connection refused", SpecTimeout(2*time.Minute)),
		Entry("status 500", (*control.Proxy).Fail, "the proxy was told to fail", SpecTimeout(2*time.Minute)),
	)

	DescribeTable("with a fault is waited for when gardener-resource-manager meets it",
		func(ctx SpecContext, fault func(*control.Proxy) error) {
			namespace := newShoot(ctx)
			DeferCleanup(environment.ShootProxy.Pass)
			one, two := cache{"upstream": "fault-one.example.com"}, cache{"upstream": "fault-two.example.com"}

			By("creating")
			Expect(fault(environment.ShootProxy)).To(Succeed())
			extension := applyExtension(ctx, namespace, one)
			awaitFailure(ctx, namespace, "extension-registry-cache-services")
			expectNotInShoot(ctx, &corev1.Service{}, "registry-fault-one-example-com")
			Expect(environment.ShootProxy.Pass()).To(Succeed())
			awaitRecovery(ctx, namespace)
			awaitExtension(ctx, extension, gardencorev1beta1.LastOperationStateSucceeded)
			before := observe(ctx, "fault-one.example.com", "")

			By("updating")
			Expect(fault(environment.ShootProxy)).To(Succeed())
			extension = applyExtension(ctx, namespace, one, two)
			awaitFailure(ctx, namespace, "extension-registry-cache-services")
			Expect(environment.ShootProxy.Pass()).To(Succeed())
			awaitRecovery(ctx, namespace)
			awaitExtension(ctx, extension, gardencorev1beta1.LastOperationStateSucceeded)
			Expect(observe(ctx, "fault-one.example.com", "")).To(Equal(before))
			observe(ctx, "fault-two.example.com", "")

			By("deleting")
			Expect(fault(environment.ShootProxy)).To(Succeed())
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
		Entry("down", (*control.Proxy).Refuse, SpecTimeout(4*time.Minute)),
		Entry("status 500", (*control.Proxy).Fail, SpecTimeout(4*time.Minute)),
	)

	It("that is slow makes all slow, and nothing fail", func(ctx SpecContext) {
		namespace := newShoot(ctx)
		proxy := startProxy()
		reachShootBy(ctx, namespace, proxy.Kubeconfig)
		Expect(proxy.Delay(10 * time.Second)).To(Succeed())
		begin := time.Now()
		extension := applyExtension(ctx, namespace, cache{"upstream": "slow.example.com"})
		Eventually(func(g Gomega) {
			current := getExtension(ctx, namespace)
			g.Expect(current.Status.LastError).To(BeNil())
			g.Expect(current.Status.LastOperation).NotTo(BeNil())
			g.Expect(current.Status.LastOperation.State).To(Equal(gardencorev1beta1.LastOperationStateSucceeded))
		}).WithContext(ctx).WithTimeout(100 * time.Second).Should(Succeed())
		Expect(time.Since(begin)).To(BeNumerically(">=", 10*time.Second))
		awaitExtension(ctx, extension, gardencorev1beta1.LastOperationStateSucceeded)
		observe(ctx, "slow.example.com", "")
	}, SpecTimeout(2*time.Minute))
})

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
		g.Expect(applied.Message).To(Or(ContainSubstring("connection refused"), ContainSubstring("the proxy was told to fail")))
	}).WithContext(ctx).WithTimeout(time.Minute).Should(Succeed())
}

// awaitRecovery is awaitApplied after a fault: gardener-resource-manager pauses
// longer and longer between its attempts.
func awaitRecovery(ctx context.Context, namespace string) {
	GinkgoHelper()
	Eventually(func() []resourcesv1alpha1.ManagedResource { return managedResources(ctx, namespace) }).
		WithContext(ctx).WithTimeout(time.Minute).Should(HaveLen(2))
	awaitApplied(ctx, namespace)
}
