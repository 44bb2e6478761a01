// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"errors"
	"fmt"

	"github.com/go-logr/logr"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	vpaautoscalingv1 "k8s.io/autoscaler/vertical-pod-autoscaler/pkg/apis/autoscaling.k8s.io/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	extensionsv1alpha1 "github.com/gardener/gardener/pkg/apis/extensions/v1alpha1"

	"github.com/gardener/gardener-extension-registry-cache/pkg/apis/registry/v1alpha3"
	shootv1alpha3 "github.com/gardener/gardener-extension-registry-cache/pkg/apis/shoot/v1alpha3"
	"github.com/gardener/gardener-extension-registry-cache/pkg/resources"
)

// After a control plane migration the caches are in the Shoot, and no ManagedResource
// of the new Seed knows of them until the first reconcile has deployed them. If the
// Shoot is hibernated that may be months later. Caches that are removed until then would
// be forgotten: nobody would delete them.

// rememberRestoration publishes a status without caches, which is that of an Extension
// that was restored and whose caches are not deployed yet: every configuration has some.
func (a *cacheActuator) rememberRestoration(ctx context.Context, ex *extensionsv1alpha1.Extension) error {
	if ex.Status.ProviderStatus != nil {
		return nil
	}
	return a.publishStatus(ctx, ex, &v1alpha3.RegistryStatus{Caches: []v1alpha3.RegistryCacheStatus{}})
}

func isOnlyRestored(ex *extensionsv1alpha1.Extension) bool {
	if ex.Status.ProviderStatus == nil {
		return false
	}
	status, err := v1alpha3.DecodeStatus(ex.Status.ProviderStatus.Raw)
	return err == nil && len(status.Caches) == 0
}

// deleteForgotten deletes what is in the Shoot of a restored Extension but not
// configured, except Services: those are known by where they came from.
func (v *volumes) deleteForgotten(ctx context.Context, log logr.Logger, ex *extensionsv1alpha1.Extension, configured []v1alpha3.RegistryCache) error {
	if !v.others || !isOnlyRestored(ex) {
		return nil
	}
	log.Info("Deleting caches that were removed since the control plane left another Seed")
	return deleteOthers(ctx, v.shoot, configured, objectsOfCaches()...)
}

// objectsOfCaches are the kinds of objects that caches have. Claims come last:
// StatefulSets would make them anew, and as long as there are some it is known that
// something is left.
func objectsOfCaches() []client.Object {
	registryCache := &metav1.PartialObjectMetadata{}
	registryCache.SetGroupVersionKind(shootv1alpha3.SchemeGroupVersion.WithKind(shootv1alpha3.Kind))
	return []client.Object{
		&appsv1.StatefulSet{}, &vpaautoscalingv1.VerticalPodAutoscaler{}, &policyv1.PodDisruptionBudget{}, &corev1.Secret{},
		registryCache, &rbacv1.RoleBinding{}, &rbacv1.Role{}, &corev1.ServiceAccount{}, &corev1.PersistentVolumeClaim{},
	}
}

// deleteOthers deletes the objects, of the kinds of the given ones, of all caches but
// the configured ones from the Shoot.
func deleteOthers(ctx context.Context, shoot client.Client, configured []v1alpha3.RegistryCache, kinds ...client.Object) error {
	others, err := resources.OthersSelector(configured)
	if err != nil {
		return err
	}
	for _, object := range kinds {
		err := shoot.DeleteAllOf(ctx, object, client.InNamespace(resources.Namespace), client.MatchingLabelsSelector{Selector: others},
			client.PropagationPolicy(metav1.DeletePropagationBackground))
		// A Shoot need not know of VerticalPodAutoscalers, nor of RegistryCaches.
		if client.IgnoreNotFound(err) != nil {
			return fmt.Errorf("delete the Shoot's objects of kind %s of caches that were removed: %w", kindOf(object), err)
		}
	}
	return nil
}

// deleteNotDeployed deletes the caches of an Extension that was restored from the Shoot,
// if they are not deployed yet: no ManagedResource would.
func (a *cacheActuator) deleteNotDeployed(ctx context.Context, log logr.Logger, ex *extensionsv1alpha1.Extension) error {
	if !isOnlyRestored(ex) {
		return nil
	}
	shoot, release, err := a.shootClient(ctx, a.client, ex.Namespace)
	if err != nil {
		return err
	}
	defer release()
	log.Info("Deleting caches that were not deployed since the control plane came to this Seed")
	refusing := a.clock.Now()
	definition, err := resources.CustomResourceDefinition()
	if err != nil {
		return err
	}
	err = deleteOthers(ctx, shoot, nil, objectsOfCaches()...)
	for _, object := range []client.Object{resources.NetworkPolicy(), definition} {
		err = errors.Join(err, client.IgnoreNotFound(shoot.Delete(ctx, object)))
	}
	if err == nil {
		err = a.awaitNodes(ctx, log, shoot, refusing)
	}
	if err == nil {
		err = deleteOthers(ctx, shoot, nil, &corev1.Service{})
	}
	if err != nil {
		return fmt.Errorf("the caches were not deployed since the control plane came to this Seed, and are deleted when the Shoot's API server answers: %w", err)
	}
	return nil
}
