// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package registrycache_test

import (
	"context"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	gardencorev1beta1 "github.com/gardener/gardener/pkg/apis/core/v1beta1"
)

// Where there are nodes, an address stays until they do not ask it any more.
var _ = Describe("Service of a cache that is not configured any more", func() {
	const (
		goneName, renamedName, newName = "registry-gone-example-com", "registry-renamed-example-com", "registry-renamed"
		staysName                      = "registry-stays-example-com"
	)
	var (
		gone    = cache{"upstream": "gone.example.com"}
		renamed = cache{"upstream": "renamed.example.com"}
		stays   = cache{"upstream": "stays.example.com"}
	)

	It("refuses connections until nodes have withdrawn it, and goes then", func(ctx SpecContext) {
		namespace := newShoot(ctx)
		reconcile(ctx, namespace, gone, renamed, stays)
		addNode(ctx)
		before, stayed := make(map[string]*corev1.Service), serviceOf(ctx, staysName)
		for _, name := range []string{goneName, renamedName} {
			before[name] = serviceOf(ctx, name)
		}

		extension := applyExtension(ctx, namespace, cache{"upstream": "renamed.example.com", "serviceNameSuffix": "renamed"}, stays)
		eventuallyNotInShoot(ctx, &appsv1.StatefulSet{}, goneName)
		Eventually(func() int { return len(statusOf(ctx, namespace).Caches) }).WithContext(ctx).Should(Equal(2))
		// All at once: they go 15 s after they began to refuse.
		leaving := make(map[string]*corev1.Service)
		for name := range before {
			leaving[name] = serviceOf(ctx, name)
		}
		Expect(getExtension(ctx, namespace).Status.LastOperation.State).To(Equal(gardencorev1beta1.LastOperationStateProcessing))
		for name, service := range before {
			Expect(leaving[name].UID).To(Equal(service.UID))
			Expect(leaving[name].Spec.ClusterIP).To(Equal(service.Spec.ClusterIP))
			Expect(leaving[name].Spec.Ports).To(Equal(service.Spec.Ports))
			Eventually(podsOf).WithArguments(ctx, service).Should(HaveLen(map[string]int{goneName: 0, renamedName: 1}[name]))
			Expect(podsOf(ctx, leaving[name])).To(BeEmpty(), "it has no endpoint, whichever pods there are")
		}
		Expect(podsOf(ctx, serviceOf(ctx, newName))).To(HaveLen(1))

		awaitExtension(ctx, extension, gardencorev1beta1.LastOperationStateSucceeded)
		for name := range before {
			expectNotInShoot(ctx, &corev1.Service{}, name)
		}
		Expect(serviceOf(ctx, staysName).UID).To(Equal(stayed.UID))
	}, SpecTimeout(2*time.Minute))

	It("goes after its pods when the extension is removed", func(ctx SpecContext) {
		namespace := newShoot(ctx)
		reconcile(ctx, namespace, gone)
		awaitApplied(ctx, namespace)
		addNode(ctx)

		beginDeletion(ctx, namespace)
		eventuallyNotInShoot(ctx, &appsv1.StatefulSet{}, goneName)
		eventuallyNotInShoot(ctx, &corev1.Pod{}, goneName+"-0")
		Consistently(func() *corev1.Service { return serviceOf(ctx, goneName) }).WithTimeout(3 * time.Second).Should(HaveField("DeletionTimestamp", BeNil()))
		awaitNoExtension(ctx, namespace)
		expectNotInShoot(ctx, &corev1.Service{}, goneName)
	}, SpecTimeout(2*time.Minute))

	It("of another Shoot, or of nobody, is left alone", func(ctx SpecContext) {
		other := newShoot(ctx)
		reconcile(ctx, other, gone)
		foreign := &corev1.Service{
			ObjectMeta: metav1.ObjectMeta{Namespace: metav1.NamespaceSystem, Name: "foreign", Labels: map[string]string{"upstream-host": "gone.example.com"}},
			Spec:       corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 80}}},
		}
		Expect(shoot.Create(ctx, foreign)).To(Succeed())
		DeferCleanup(func(ctx SpecContext) { Expect(shoot.Delete(ctx, foreign)).To(Succeed()) }, NodeTimeout(time.Minute))
		before := serviceOf(ctx, goneName)

		reconcile(ctx, newShoot(ctx), stays)
		Expect(serviceOf(ctx, goneName).ResourceVersion).To(Equal(before.ResourceVersion))
		Expect(serviceOf(ctx, "foreign").ResourceVersion).To(Equal(foreign.ResourceVersion))
	}, SpecTimeout(time.Minute))
})

// addNode gives the Shoot a node until the spec ends.
func addNode(ctx context.Context) {
	GinkgoHelper()
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{GenerateName: "node-"}}
	Expect(shoot.Create(ctx, node)).To(Succeed())
	DeferCleanup(deleteNode, node, NodeTimeout(time.Minute))
}

func deleteNode(ctx SpecContext, node *corev1.Node) {
	GinkgoHelper()
	Expect(shoot.Delete(ctx, node)).To(Succeed())
}

// podsOf returns the pods that a Service selects.
func podsOf(ctx context.Context, service *corev1.Service) []corev1.Pod {
	GinkgoHelper()
	pods := &corev1.PodList{}
	Expect(shoot.List(ctx, pods, client.InNamespace(service.Namespace), client.MatchingLabels(service.Spec.Selector))).To(Succeed())
	return pods.Items
}
