// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"errors"
	"fmt"

	"github.com/go-logr/logr"
	monitoringv1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	monitoringv1alpha1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1alpha1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"sigs.k8s.io/controller-runtime/pkg/client"

	gardencorev1beta1 "github.com/gardener/gardener/pkg/apis/core/v1beta1"
	"github.com/gardener/gardener/pkg/controllerutils"

	"github.com/gardener/gardener-extension-registry-cache/pkg/monitoring"
)

// reconcileMonitoring has the Shoot's Prometheus and Plutono know of the caches, or
// not if it has none.
//
// It returns no error, for a Shoot that cannot be watched is still one whose pulls
// are to be fast: an error would fail its reconciliation. What went wrong is in the
// log, and the health check says in the condition ObservabilityComponentsHealthy what
// is missing. A Seed may lack the CRDs for good: then there is no Prometheus either.
// Any other error is one of the Seed's API server, which has just served all else;
// the next reconciliation makes up for it.
func (a *cacheActuator) reconcileMonitoring(ctx context.Context, log logr.Logger, namespace string, shoot *gardencorev1beta1.Shoot, in *inputs) {
	var err error
	if isMonitored(shoot) {
		err = a.deployMonitoring(ctx, namespace, in)
	} else {
		err = a.deleteMonitoring(ctx, namespace)
	}
	switch {
	case meta.IsNoMatchError(err):
		log.Info("The Seed has no Prometheus operator, caches are not monitored", "reason", err.Error())
	case err != nil:
		log.Error(err, "Cannot have the caches monitored")
	}
}

// isMonitored says whether gardenlet gives a Shoot a Prometheus and a Plutono.
func isMonitored(shoot *gardencorev1beta1.Shoot) bool {
	return shoot.Spec.Purpose == nil || *shoot.Spec.Purpose != gardencorev1beta1.ShootPurposeTesting
}

func (a *cacheActuator) deployMonitoring(ctx context.Context, namespace string, in *inputs) error {
	objects, err := monitoring.Objects(namespace, in.caches)
	if err != nil {
		return err
	}
	var errs []error
	for _, desired := range objects {
		if err := a.writeMonitoringObject(ctx, desired); err != nil {
			errs = append(errs, fmt.Errorf("write %s %s: %w", kindOf(desired), desired.GetName(), err))
		}
	}
	return errors.Join(errs...)
}

// writeMonitoringObject writes what is ours of an object.
func (a *cacheActuator) writeMonitoringObject(ctx context.Context, desired client.Object) error {
	object := desired.DeepCopyObject().(client.Object)
	_, err := controllerutils.GetAndCreateOrMergePatch(ctx, a.client, object, func() error {
		labels := object.GetLabels()
		if labels == nil {
			labels = make(map[string]string)
		}
		for key, value := range desired.GetLabels() {
			labels[key] = value
		}
		object.SetLabels(labels)
		switch desired := desired.(type) {
		case *monitoringv1alpha1.ScrapeConfig:
			object.(*monitoringv1alpha1.ScrapeConfig).Spec = desired.Spec
		case *monitoringv1.PrometheusRule:
			object.(*monitoringv1.PrometheusRule).Spec = desired.Spec
		case *corev1.ConfigMap:
			object.(*corev1.ConfigMap).Data = desired.Data
		}
		return nil
	}, controllerutils.SkipEmptyPatch{})
	return err
}

// deleteMonitoring deletes what reconcileMonitoring writes. It is no error if the
// Seed does not know of such objects.
func (a *cacheActuator) deleteMonitoring(ctx context.Context, namespace string) error {
	var errs []error
	for _, object := range monitoring.EmptyObjects(namespace) {
		if err := a.client.Delete(ctx, object); client.IgnoreNotFound(err) != nil && !meta.IsNoMatchError(err) {
			errs = append(errs, fmt.Errorf("delete %s %s: %w", kindOf(object), object.GetName(), err))
		}
	}
	return errors.Join(errs...)
}
