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
	k8slabels "k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

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
	// caches are those whose StatefulSet makes claims that are too small, or has
	// pending ones.
	caches []v1alpha3.RegistryCache
	// pending are claims without a volume that ask for too little, or that are missing
	// since an earlier reconcile got no further than their deletion. They cannot be
	// changed, but hold nothing either, and their pods have never run: both are made
	// anew.
	pending []sizedClaim
	// others says whether there are StatefulSets or claims of caches that are not
	// configured.
	others bool
}

type sizedClaim struct {
	// PersistentVolumeClaim has nothing but its name if it is missing.
	*corev1.PersistentVolumeClaim
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

	others, err := hasOthers(in, statefulSets.Items, claims.Items)
	if err != nil {
		return nil, err
	}
	v := &volumes{shoot: shoot, others: others}
	var problems field.ErrorList
	for i, cache := range in.caches {
		statefulSet := findStatefulSet(cache, statefulSets.Items)
		bound, pending := smallClaims(cache, claims.Items)
		pending = append(pending, missingClaims(cache, statefulSet, claims.Items)...)
		if len(pending) > 0 || hasSmallTemplate(cache, statefulSet) {
			v.caches = append(v.caches, cache)
		}
		v.bound, v.pending = append(v.bound, bound...), append(v.pending, pending...)
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

func hasOthers(in *inputs, statefulSets []appsv1.StatefulSet, claims []corev1.PersistentVolumeClaim) (bool, error) {
	selector, err := resources.OthersSelector(in.caches)
	if err != nil {
		return false, err
	}
	return slices.ContainsFunc(statefulSets, func(s appsv1.StatefulSet) bool {
		return s.DeletionTimestamp == nil && selector.Matches(k8slabels.Set(s.Labels))
	}) || slices.ContainsFunc(claims, func(c corev1.PersistentVolumeClaim) bool {
		return c.DeletionTimestamp == nil && selector.Matches(k8slabels.Set(c.Labels))
	}), nil
}

// findStatefulSet returns nil if there is none.
func findStatefulSet(cache v1alpha3.RegistryCache, statefulSets []appsv1.StatefulSet) *appsv1.StatefulSet {
	for i := range statefulSets {
		if statefulSets[i].Name == upstream.ResourceName(cache.Upstream) {
			return &statefulSets[i]
		}
	}
	return nil
}

func hasSmallTemplate(cache v1alpha3.RegistryCache, statefulSet *appsv1.StatefulSet) bool {
	return statefulSet != nil && slices.ContainsFunc(statefulSet.Spec.VolumeClaimTemplates, func(template corev1.PersistentVolumeClaim) bool {
		return isSmaller(template.Spec, *cache.Volume.Size)
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

// missingClaims returns those that pods of a cache may wait for in vain: a StatefulSet
// does not notice what its pods lack. A new one does.
func missingClaims(cache v1alpha3.RegistryCache, statefulSet *appsv1.StatefulSet, claims []corev1.PersistentVolumeClaim) []sizedClaim {
	if statefulSet == nil {
		return nil
	}
	var missing []sizedClaim
	for ordinal := range ptr.Deref(statefulSet.Spec.Replicas, 1) {
		name := resources.ClaimName(cache.Upstream, ordinal)
		if !slices.ContainsFunc(claims, func(claim corev1.PersistentVolumeClaim) bool {
			return claim.Name == name && claim.DeletionTimestamp == nil
		}) {
			claim := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: resources.Namespace, Name: name}}
			missing = append(missing, sizedClaim{claim, *cache.Volume.Size})
		}
	}
	return missing
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

// replaceSmall replaces the StatefulSets that make claims that are too small, after the
// ManagedResource has the new ones, and then the claims that have no volume.
func (a *cacheActuator) replaceSmall(ctx context.Context, log logr.Logger, namespace string, v *volumes) error {
	if err := a.replaceStatefulSets(ctx, log, namespace, v); err != nil {
		return fmt.Errorf("replace the Shoot's StatefulSets for the size of volumes, which are all there still: %w",
			errors.Join(err, a.unhealthy(ctx, namespace, cachesManagedResource)))
	}
	for _, claim := range v.pending {
		if err := v.deletePendingClaim(ctx, claim); err != nil {
			return fmt.Errorf("replace the Shoot's PersistentVolumeClaim %s, which has no volume, by one of %s: %w", claim.Name, &claim.size, err)
		}
		log.Info("Deleted claim without a volume and its pod, both are made anew", "persistentVolumeClaim", claim.Name, "size", claim.size.String())
	}
	return nil
}

// replaceStatefulSets returns when all make claims with the new size.
func (a *cacheActuator) replaceStatefulSets(ctx context.Context, log logr.Logger, namespace string, v *volumes) error {
	if len(v.caches) == 0 {
		return nil
	}
	return wait.PollUntilContextTimeout(ctx, time.Second, managedResourceTimeout, true, func(ctx context.Context) (bool, error) {
		statefulSets := &appsv1.StatefulSetList{}
		if err := v.shoot.List(ctx, statefulSets, resources.ListOptions()...); err != nil {
			return false, err
		}
		done := true
		for _, cache := range v.caches {
			statefulSet := findStatefulSet(cache, statefulSets.Items)
			switch {
			case statefulSet == nil, statefulSet.DeletionTimestamp != nil: // to be made anew
				done = false
			case hasSmallTemplate(cache, statefulSet):
				done = false
				log.Info("Replacing StatefulSet for the size of its volumes", "statefulSet", statefulSet.Name, "size", cache.Volume.Size.String())
				// Kubernetes keeps what belongs to it, and no pod is restarted. A conflict means
				// that gardener-resource-manager was faster.
				err := v.shoot.Delete(ctx, statefulSet, client.PropagationPolicy(metav1.DeletePropagationOrphan), client.Preconditions{UID: &statefulSet.UID})
				if client.IgnoreNotFound(err) != nil && !apierrors.IsConflict(err) {
					return false, err
				}
			}
		}
		if done {
			return true, nil
		}
		// gardener-resource-manager does not hear of what is deleted.
		return false, a.requestManagedResourceReconciliation(ctx, namespace, cachesManagedResource)
	})
}

// deletePendingClaim deletes a claim that has no volume, and then its pod: the
// StatefulSet makes a pod anew at once, with the claim if that is there still.
func (v *volumes) deletePendingClaim(ctx context.Context, claim sizedClaim) error {
	if claim.UID != "" {
		// If it was bound in the meantime, it is another version, and grows when this is
		// tried again.
		err := v.shoot.Delete(ctx, claim.PersistentVolumeClaim, client.Preconditions{UID: &claim.UID, ResourceVersion: &claim.ResourceVersion})
		if client.IgnoreNotFound(err) != nil {
			return err
		}
	}
	pod := &corev1.Pod{}
	if err := v.shoot.Get(ctx, client.ObjectKey{Namespace: claim.Namespace, Name: resources.PodOfClaim(claim.Name)}, pod); err != nil {
		return client.IgnoreNotFound(err)
	}
	if pod.Spec.NodeName != "" {
		return nil
	}
	return client.IgnoreNotFound(v.shoot.Delete(ctx, pod, client.Preconditions{UID: &pod.UID, ResourceVersion: &pod.ResourceVersion}))
}

func isSmaller(spec corev1.PersistentVolumeClaimSpec, size resource.Quantity) bool {
	return spec.Resources.Requests.Storage().Cmp(size) < 0
}
