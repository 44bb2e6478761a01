// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/go-logr/logr"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	v1beta1constants "github.com/gardener/gardener/pkg/apis/core/v1beta1/constants"
	resourcesv1alpha1 "github.com/gardener/gardener/pkg/apis/resources/v1alpha1"

	"github.com/gardener/gardener-extension-registry-cache/pkg/apis/registry/v1alpha3"
	"github.com/gardener/gardener-extension-registry-cache/pkg/resources"
	"github.com/gardener/gardener-extension-registry-cache/pkg/upstream"
)

// volumes are what has to be done in a Shoot for the volumes of its caches to have
// the configured size. A claim that is bound grows in place. The template from which
// a StatefulSet makes claims cannot be changed, so the StatefulSet is replaced; its
// pods and claims stay, and belong to the new one. Each step can be the last for now:
// what is left to do is found in the Shoot by the next reconcile.
type volumes struct {
	shoot client.Client
	// bound are claims with a volume that is too small.
	bound []sizedClaim
	// pending are claims without a volume that ask for too little. These cannot be
	// changed, but hold nothing either, and their pods have never run: both are deleted
	// while there is no StatefulSet, and made by the new one.
	pending []sizedClaim
	// statefulSets are those whose template, or a pending claim, asks for too little.
	statefulSets []sizedStatefulSet
	// missing are those of pending claims that are not there: an earlier reconcile got
	// no further than their deletion.
	missing []sizedStatefulSet
}

type sizedClaim struct {
	*corev1.PersistentVolumeClaim
	size resource.Quantity
}

type sizedStatefulSet struct {
	*appsv1.StatefulSet
	size resource.Quantity
}

// readVolumes finds out what has to grow. It returns an error, before anything is
// written, if there is a volume that cannot.
func readVolumes(ctx context.Context, shoot client.Client, in *inputs) (*volumes, error) {
	statefulSets := &appsv1.StatefulSetList{}
	if err := shoot.List(ctx, statefulSets, resources.ListOptions()...); err != nil {
		return nil, fmt.Errorf("read the Shoot's StatefulSets of caches: %w", err)
	}
	claims := &corev1.PersistentVolumeClaimList{}
	if err := shoot.List(ctx, claims, resources.ListOptions()...); err != nil {
		return nil, fmt.Errorf("read the Shoot's PersistentVolumeClaims of caches: %w", err)
	}

	v := &volumes{shoot: shoot}
	var problems field.ErrorList
	for i, cache := range in.caches {
		bound, pending := smallClaims(cache, claims.Items)
		v.bound, v.pending = append(v.bound, bound...), append(v.pending, pending...)
		statefulSet := findStatefulSet(cache, statefulSets.Items)
		switch {
		case statefulSet != nil && (len(pending) > 0 || hasSmallTemplate(statefulSet, *cache.Volume.Size)):
			v.statefulSets = append(v.statefulSets, sizedStatefulSet{statefulSet, *cache.Volume.Size})
		case statefulSet == nil && len(pending) > 0:
			statefulSet = &appsv1.StatefulSet{ObjectMeta: metav1.ObjectMeta{Namespace: resources.Namespace, Name: upstream.ResourceName(cache.Upstream)}}
			v.missing = append(v.missing, sizedStatefulSet{statefulSet, *cache.Volume.Size})
		}
		problem, err := checkExpansion(ctx, shoot, bound, in.fldPath.Child("caches").Index(i).Child("volume", "size"))
		if err != nil {
			return nil, err
		}
		if problem != nil {
			problems = append(problems, problem)
		}
	}
	if len(problems) > 0 {
		return nil, configurationProblem(problems.ToAggregate())
	}
	return v, nil
}

func findStatefulSet(cache v1alpha3.RegistryCache, statefulSets []appsv1.StatefulSet) *appsv1.StatefulSet {
	for i := range statefulSets {
		if statefulSets[i].Name == upstream.ResourceName(cache.Upstream) {
			return &statefulSets[i]
		}
	}
	return nil
}

func hasSmallTemplate(statefulSet *appsv1.StatefulSet, size resource.Quantity) bool {
	return slices.ContainsFunc(statefulSet.Spec.VolumeClaimTemplates, func(template corev1.PersistentVolumeClaim) bool {
		return isSmaller(template.Spec, size)
	})
}

// smallClaims returns those claims of a cache that ask for too little, with and
// without a volume.
func smallClaims(cache v1alpha3.RegistryCache, claims []corev1.PersistentVolumeClaim) (bound, pending []sizedClaim) {
	for i := range claims {
		claim := sizedClaim{&claims[i], *cache.Volume.Size}
		if !resources.IsClaimOf(cache.Upstream, claim.Name) || claim.DeletionTimestamp != nil || !isSmaller(claim.Spec, claim.size) {
			continue
		}
		switch claim.Status.Phase {
		case corev1.ClaimBound:
			bound = append(bound, claim)
		case corev1.ClaimLost: // with its volume: there is nothing that could grow
		default:
			pending = append(pending, claim)
		}
	}
	return bound, pending
}

// checkExpansion returns a problem if the claims of a cache cannot grow. fldPath is
// where the size is configured.
func checkExpansion(ctx context.Context, shoot client.Reader, claims []sizedClaim, fldPath *field.Path) (*field.Error, error) {
	for _, claim := range claims {
		size := claim.Spec.Resources.Requests.Storage()
		refuse := func(reason string) *field.Error {
			return field.Forbidden(fldPath, fmt.Sprintf("the volume of PersistentVolumeClaim %s cannot grow from %s to %s, as %s: "+
				"set %s again, or remove the cache and add it again in a second update, which deletes its content", claim.Name, size, &claim.size, reason, size))
		}
		name := ptr.Deref(claim.Spec.StorageClassName, "")
		if name == "" {
			return refuse("it has no StorageClass"), nil
		}
		class := &storagev1.StorageClass{}
		err := shoot.Get(ctx, client.ObjectKey{Name: name}, class)
		if apierrors.IsNotFound(err) {
			return refuse(fmt.Sprintf("its StorageClass %q does not exist", name)), nil
		}
		if err != nil {
			return nil, fmt.Errorf("read the Shoot's StorageClass %q: %w", name, err)
		}
		if !ptr.Deref(class.AllowVolumeExpansion, false) {
			return refuse(fmt.Sprintf("its StorageClass %q does not have allowVolumeExpansion: true", name)), nil
		}
	}
	return nil, nil
}

// growClaims has the volumes of bound claims grow.
func (v *volumes) growClaims(ctx context.Context, log logr.Logger) error {
	for _, claim := range v.bound {
		patch := client.MergeFrom(claim.DeepCopy())
		before := claim.Spec.Resources.Requests.Storage().String()
		claim.Spec.Resources.Requests[corev1.ResourceStorage] = claim.size
		if err := v.shoot.Patch(ctx, claim.PersistentVolumeClaim, patch); err != nil {
			return fmt.Errorf("grow the Shoot's PersistentVolumeClaim %s to %s: %w", claim.Name, &claim.size, err)
		}
		log.Info("Volume grows", "persistentVolumeClaim", claim.Name, "from", before, "to", claim.size.String())
	}
	return nil
}

// replaceStatefulSets replaces those whose template asks for too little, after the
// ManagedResource has the new ones, with the claims that have no volume.
func (a *cacheActuator) replaceStatefulSets(ctx context.Context, log logr.Logger, namespace string, v *volumes) error {
	if err := a.awaitMissing(ctx, namespace, v); err != nil {
		return err
	}
	if len(v.statefulSets) == 0 {
		return nil
	}
	for _, statefulSet := range v.statefulSets {
		log.Info("Replacing StatefulSet for the size of its volumes", "statefulSet", statefulSet.Name, "size", statefulSet.size.String())
		// Kubernetes keeps what belongs to it, and no pod is restarted.
		err := v.shoot.Delete(ctx, statefulSet.StatefulSet, client.PropagationPolicy(metav1.DeletePropagationOrphan), client.Preconditions{UID: &statefulSet.UID})
		if client.IgnoreNotFound(err) != nil {
			return fmt.Errorf("replace the Shoot's StatefulSet %s: %w", statefulSet.Name, err)
		}
	}
	if err := v.awaitStatefulSets(ctx, isGone); err != nil {
		return err
	}
	if err := v.deletePendingClaims(ctx, log); err != nil {
		return err
	}
	// gardener-resource-manager would miss them within a minute.
	if err := a.requestManagedResourceReconciliation(ctx, namespace, cachesManagedResource); err != nil {
		return err
	}
	return v.awaitStatefulSets(ctx, isReplaced)
}

// awaitMissing waits for StatefulSets that are made anew, with a pod and the claim
// that is too small, and adds them to those that are to be replaced.
func (a *cacheActuator) awaitMissing(ctx context.Context, namespace string, v *volumes) error {
	if len(v.missing) == 0 {
		return nil
	}
	if err := a.requestManagedResourceReconciliation(ctx, namespace, cachesManagedResource); err != nil {
		return err
	}
	for _, statefulSet := range v.missing {
		key := client.ObjectKeyFromObject(statefulSet.StatefulSet)
		if err := wait.PollUntilContextTimeout(ctx, 500*time.Millisecond, managedResourceTimeout, true, func(ctx context.Context) (bool, error) {
			err := v.shoot.Get(ctx, key, statefulSet.StatefulSet)
			return err == nil, client.IgnoreNotFound(err)
		}); err != nil {
			return fmt.Errorf("wait for the Shoot's StatefulSet %s, which was deleted for the size of its volumes: %w", key.Name, err)
		}
		v.statefulSets = append(v.statefulSets, statefulSet)
	}
	return nil
}

// deletePendingClaims deletes claims that have no volume after their pods: a
// StatefulSet does not notice what its pods lack.
func (v *volumes) deletePendingClaims(ctx context.Context, log logr.Logger) error {
	for _, claim := range v.pending {
		if err := v.deletePendingPod(ctx, client.ObjectKey{Namespace: claim.Namespace, Name: resources.PodOfClaim(claim.Name)}); err != nil {
			return fmt.Errorf("replace the Shoot's PersistentVolumeClaim %s, which has no volume, by one of %s: delete its pod: %w", claim.Name, &claim.size, err)
		}
		// If it was bound in the meantime, it is another version, and grows when this is
		// tried again.
		err := v.shoot.Delete(ctx, claim.PersistentVolumeClaim, client.Preconditions{UID: &claim.UID, ResourceVersion: &claim.ResourceVersion})
		if client.IgnoreNotFound(err) != nil {
			return fmt.Errorf("replace the Shoot's PersistentVolumeClaim %s, which has no volume, by one of %s: %w", claim.Name, &claim.size, err)
		}
		log.Info("Deleted claim without a volume and its pod, both are made anew", "persistentVolumeClaim", claim.Name, "size", claim.size.String())
	}
	return nil
}

// deletePendingPod deletes a pod if it waits for its volume still.
func (v *volumes) deletePendingPod(ctx context.Context, key client.ObjectKey) error {
	pod := &corev1.Pod{}
	if err := v.shoot.Get(ctx, key, pod); err != nil {
		return client.IgnoreNotFound(err)
	}
	if pod.Status.Phase != corev1.PodPending {
		return nil
	}
	return client.IgnoreNotFound(v.shoot.Delete(ctx, pod, client.Preconditions{UID: &pod.UID, ResourceVersion: &pod.ResourceVersion}))
}

// isGone says that a StatefulSet was deleted; current is nil if there is none.
func isGone(old sizedStatefulSet, current *appsv1.StatefulSet) bool {
	return current == nil || current.UID != old.UID
}

// isReplaced says that there is another StatefulSet in place of a deleted one.
func isReplaced(old sizedStatefulSet, current *appsv1.StatefulSet) bool {
	return current != nil && current.UID != old.UID
}

// awaitStatefulSets waits until a condition holds for all that are to be replaced.
func (v *volumes) awaitStatefulSets(ctx context.Context, condition func(old sizedStatefulSet, current *appsv1.StatefulSet) bool) error {
	for _, old := range v.statefulSets {
		err := wait.PollUntilContextTimeout(ctx, 500*time.Millisecond, managedResourceTimeout, true, func(ctx context.Context) (bool, error) {
			current := &appsv1.StatefulSet{}
			err := v.shoot.Get(ctx, client.ObjectKeyFromObject(old.StatefulSet), current)
			if apierrors.IsNotFound(err) {
				return condition(old, nil), nil
			}
			return err == nil && condition(old, current), err
		})
		if errors.Is(err, context.DeadlineExceeded) {
			return fmt.Errorf("the Shoot's StatefulSet %s was not replaced within %s, its pods and volumes are still there: %w", old.Name, managedResourceTimeout, err)
		}
		if err != nil {
			return fmt.Errorf("wait for the replacement of the Shoot's StatefulSet %s: %w", old.Name, err)
		}
	}
	return nil
}

// requestManagedResourceReconciliation has gardener-resource-manager look at a
// ManagedResource at once.
func (a *cacheActuator) requestManagedResourceReconciliation(ctx context.Context, namespace, name string) error {
	managedResource := &resourcesv1alpha1.ManagedResource{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
	patch := client.MergeFrom(managedResource.DeepCopy())
	metav1.SetMetaDataAnnotation(&managedResource.ObjectMeta, v1beta1constants.GardenerOperation, v1beta1constants.GardenerOperationReconcile)
	if err := a.client.Patch(ctx, managedResource, patch); err != nil {
		return fmt.Errorf("request the reconciliation of ManagedResource %s: %w", name, err)
	}
	return nil
}

func isSmaller(spec corev1.PersistentVolumeClaimSpec, size resource.Quantity) bool {
	return spec.Resources.Requests.Storage().Cmp(size) < 0
}
