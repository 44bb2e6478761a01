// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	gardencorev1beta1 "github.com/gardener/gardener/pkg/apis/core/v1beta1"
	resourcesv1alpha1 "github.com/gardener/gardener/pkg/apis/resources/v1alpha1"
	"github.com/gardener/gardener/pkg/client/kubernetes"
)

func TestWaitInVainNamesTheReason(t *testing.T) {
	// It has the generation of before until gardener-resource-manager has applied it.
	for name, generation := range map[string]int64{"applied before": 0, "never applied": 1} {
		t.Run(name, func(t *testing.T) { testWaitInVain(t, generation) })
	}
}

func testWaitInVain(t *testing.T, generation int64) {
	g := NewWithT(t)
	const namespace = "shoot--foo--bar"
	c := fake.NewClientBuilder().WithScheme(kubernetes.SeedScheme).WithObjects(&resourcesv1alpha1.ManagedResource{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: servicesManagedResource, Generation: generation},
		Status: resourcesv1alpha1.ManagedResourceStatus{Conditions: []gardencorev1beta1.Condition{{
			Type: resourcesv1alpha1.ResourcesApplied, Status: gardencorev1beta1.ConditionFalse, Reason: "ApplyFailed", Message: "connection refused",
		}}},
	}).Build()
	// Here the time of the reconcile ends first, otherwise that of the wait.
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()

	err := (&cacheActuator{client: c, reader: c}).deployServices(ctx, namespace, &inputs{}, nil)

	g.Expect(err).To(MatchError(And(ContainSubstring(servicesManagedResource), ContainSubstring("ResourcesApplied"), ContainSubstring("connection refused"))))
}
