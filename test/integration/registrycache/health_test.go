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
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	v1beta1helper "github.com/gardener/gardener/pkg/api/core/v1beta1/helper"
	gardencorev1beta1 "github.com/gardener/gardener/pkg/apis/core/v1beta1"
)

var _ = Describe("Conditions of the Extension", func() {
	const (
		systemComponents        = gardencorev1beta1.ShootSystemComponentsHealthy
		observabilityComponents = gardencorev1beta1.ShootObservabilityComponentsHealthy
	)

	It("say which cache is ill, and why", func(ctx SpecContext) {
		namespace := newShoot(ctx)
		reconcile(ctx, namespace, cache{"upstream": "ill.example.com"}, cache{"upstream": "well.example.com"})
		awaitApplied(ctx, namespace)
		ill, _ := awaitPodAndClaim(ctx, "registry-ill-example-com")
		well, _ := awaitPodAndClaim(ctx, "registry-well-example-com")
		setReady(ctx, well)

		By("not finding a node for one")
		setStatus(ctx, ill, corev1.PodStatus{Phase: corev1.PodPending, Conditions: []corev1.PodCondition{{
			Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: "Unschedulable", Message: "0/3 nodes are available: 3 Insufficient memory.",
		}}})
		expectCondition(ctx, namespace, systemComponents, gardencorev1beta1.ConditionFalse, And(
			ContainSubstring("registry-ill-example-com: pod registry-ill-example-com-0 is Pending: 0/3 nodes are available: 3 Insufficient memory."),
			Not(ContainSubstring("registry-well-example-com-0")),
		))

		By("not getting its image")
		setStatus(ctx, ill, corev1.PodStatus{Phase: corev1.PodPending, ContainerStatuses: []corev1.ContainerStatus{{
			Name: "registry-cache", State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{
				Reason: "ImagePullBackOff", Message: `Back-off pulling image "registry.test/registry-cache:v1"`,
			}},
		}}})
		expectCondition(ctx, namespace, systemComponents, gardencorev1beta1.ConditionFalse,
			ContainSubstring(`registry-ill-example-com-0 waits, ImagePullBackOff: Back-off pulling image "registry.test/registry-cache:v1"`))

		By("ending again and again")
		setStatus(ctx, ill, corev1.PodStatus{Phase: corev1.PodRunning, ContainerStatuses: []corev1.ContainerStatus{{
			Name: "registry-cache", RestartCount: 7,
			State:                corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "CrashLoopBackOff", Message: "back-off 5m0s"}},
			LastTerminationState: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: 137, Reason: "OOMKilled"}},
		}}})
		expectCondition(ctx, namespace, systemComponents, gardencorev1beta1.ConditionFalse,
			ContainSubstring("registry-ill-example-com-0 waits, CrashLoopBackOff: it ended with exit code 137, OOMKilled, after 7 restarts"))

		By("recovering")
		setReady(ctx, ill)
		Eventually(func() string { return checkedCondition(ctx, namespace, systemComponents).Message }).
			WithContext(ctx).WithTimeout(2 * time.Minute).WithPolling(time.Second).ShouldNot(ContainSubstring("registry-ill-example-com-0"))
	}, SpecTimeout(5*time.Minute))

	It("say that the Shoot's API server does not answer, and recover", func(ctx SpecContext) {
		namespace, proxy := newShoot(ctx), startProxy()
		reachShootBy(ctx, namespace, proxy.Kubeconfig)
		reconcile(ctx, namespace, cache{"upstream": "unheard.example.com"})
		awaitApplied(ctx, namespace)
		Expect(hanging.begin(proxy)).To(Succeed())
		unanswered := And(ContainSubstring("read the Shoot's pods of caches"), ContainSubstring("no answer within 10s"))
		expectCondition(ctx, namespace, systemComponents, gardencorev1beta1.ConditionUnknown, unanswered)
		Expect(proxy.Pass()).To(Succeed())
		Eventually(func() string { return checkedCondition(ctx, namespace, systemComponents).Message }).
			WithContext(ctx).WithTimeout(2 * time.Minute).WithPolling(time.Second).ShouldNot(unanswered)
	}, SpecTimeout(5*time.Minute))

	It("say what is missing for the caches to be monitored", func(ctx SpecContext) {
		namespace := newShoot(ctx)
		reconcile(ctx, namespace, cache{"upstream": "docker.io"})
		expectCondition(ctx, namespace, observabilityComponents, gardencorev1beta1.ConditionTrue, Equal("All health checks successful"))
		_, rule, _ := monitoringObjects(ctx, namespace)
		Expect(seed.Delete(ctx, rule)).To(Succeed())
		expectCondition(ctx, namespace, observabilityComponents, gardencorev1beta1.ConditionProgressing,
			ContainSubstring("PrometheusRule shoot-registry-cache is missing, the next reconciliation writes it"))

		reconcile(ctx, namespace, cache{"upstream": "docker.io"})
		expectCondition(ctx, namespace, observabilityComponents, gardencorev1beta1.ConditionTrue, Equal("All health checks successful"))
	}, SpecTimeout(2*time.Minute))

	It("are well of a Shoot without nodes", func(ctx SpecContext) {
		namespace := newShoot(ctx)
		updateShoot(ctx, namespace, func(shoot *gardencorev1beta1.Shoot) { shoot.Spec.Provider.Workers = nil })
		awaitExtension(ctx, applyExtension(ctx, namespace, cache{"upstream": "docker.io"}), gardencorev1beta1.LastOperationStateSucceeded)
		expectCondition(ctx, namespace, systemComponents, gardencorev1beta1.ConditionTrue, Equal("All health checks successful"))
		expectCondition(ctx, namespace, observabilityComponents, gardencorev1beta1.ConditionTrue, Equal("All health checks successful"))
	}, SpecTimeout(2*time.Minute))
})

// expectCondition has the Extension checked until it is as expected.
func expectCondition(ctx context.Context, namespace string, conditionType gardencorev1beta1.ConditionType, status gardencorev1beta1.ConditionStatus, message OmegaMatcher) {
	GinkgoHelper()
	Eventually(func(g Gomega) {
		condition := checkedCondition(ctx, namespace, conditionType)
		g.Expect(condition.Message).To(message)
		g.Expect(condition.Status).To(Equal(status))
	}).WithContext(ctx).WithTimeout(2 * time.Minute).WithPolling(time.Second).Should(Succeed())
}

// checkedCondition returns a condition as it is, which is empty if there is none, and
// has the Extension checked: a change of the Shoot does, and the next check by itself
// may be half a minute away.
func checkedCondition(ctx context.Context, namespace string, conditionType gardencorev1beta1.ConditionType) gardencorev1beta1.Condition {
	GinkgoHelper()
	updateShoot(ctx, namespace, func(shoot *gardencorev1beta1.Shoot) {
		metav1.SetMetaDataAnnotation(&shoot.ObjectMeta, "test/checked", time.Now().Format(time.RFC3339Nano))
	})
	return ptr.Deref(v1beta1helper.GetCondition(getExtension(ctx, namespace).Status.Conditions, conditionType), gardencorev1beta1.Condition{})
}

// setStatus does what a scheduler and a kubelet do.
func setStatus(ctx context.Context, pod *corev1.Pod, status corev1.PodStatus) {
	GinkgoHelper()
	Eventually(func() error {
		if err := shoot.Get(ctx, client.ObjectKeyFromObject(pod), pod); err != nil {
			return err
		}
		pod.Status = status
		return shoot.Status().Update(ctx, pod)
	}).WithContext(ctx).Should(Succeed())
}

func setReady(ctx context.Context, pod *corev1.Pod) {
	GinkgoHelper()
	setStatus(ctx, pod, corev1.PodStatus{Phase: corev1.PodRunning, Conditions: []corev1.PodCondition{
		{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: metav1.Now()},
	}})
}
