// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

// Package validation holds the rules of the registry-cache API that types and
// defaults cannot express. It judges objects that were decoded and defaulted,
// and Secrets that were read by its caller: it reads nothing itself. All
// problems are reported at once, each with the field to change and how.
package validation

import (
	"fmt"

	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	gardencorev1beta1 "github.com/gardener/gardener/pkg/apis/core/v1beta1"

	"github.com/gardener/gardener-extension-registry-cache/pkg/apis/registry/v1alpha3"
	"github.com/gardener/gardener-extension-registry-cache/pkg/apis/secretref"
	"github.com/gardener/gardener-extension-registry-cache/pkg/upstream"
)

// maxServiceNameSuffixLength leaves room for upstream.ServicePrefix within the
// 63 characters of a Service's name.
const maxServiceNameSuffixLength = validation.DNS1035LabelMaxLength - len(upstream.ServicePrefix)

// ValidateRegistryConfig checks a defaulted RegistryConfig. fldPath is the
// field that holds it, and may be nil.
func ValidateRegistryConfig(config *v1alpha3.RegistryConfig, fldPath *field.Path) field.ErrorList {
	fldPath = fldPath.Child("caches")
	if len(config.Caches) == 0 {
		return field.ErrorList{field.Required(fldPath, "at least one cache is needed: add one, or disable the extension")}
	}

	var errs field.ErrorList
	for i := range config.Caches {
		errs = append(errs, validateCache(&config.Caches[i], fldPath.Index(i))...)
	}
	errs = append(errs, validateUpstreamsDistinct(config.Caches, fldPath)...)
	return append(errs, validateServiceNamesDistinct(config.Caches, fldPath)...)
}

// ValidateRegistryConfigUpdate checks a defaulted RegistryConfig that is about
// to replace oldConfig. Caches are the same if their upstreams are. An added or
// removed cache is no change of another, unless their objects have the same names.
func ValidateRegistryConfigUpdate(newConfig, oldConfig *v1alpha3.RegistryConfig, fldPath *field.Path) field.ErrorList {
	errs := ValidateRegistryConfig(newConfig, fldPath)

	oldCaches := make(map[string]v1alpha3.RegistryCache, len(oldConfig.Caches))
	for _, cache := range oldConfig.Caches {
		oldCaches[upstream.ResourceName(cache.Upstream)] = cache
	}
	for i, cache := range newConfig.Caches {
		name, cachePath := upstream.ResourceName(cache.Upstream), fldPath.Child("caches").Index(i)
		switch oldCache, existed := oldCaches[name]; {
		case !existed:
		case oldCache.Upstream == cache.Upstream:
			errs = append(errs, validateVolumeUpdate(cache.Volume, oldCache.Volume, cachePath.Child("volume"))...)
		default:
			errs = append(errs, field.Invalid(cachePath.Child("upstream"), cache.Upstream, fmt.Sprintf(
				"the cache's objects would have the same name %q as those of the cache of %q, with the content of that: "+
					"remove the cache of %q first, and add this one in a second update", name, oldCache.Upstream, oldCache.Upstream)))
		}
	}
	return errs
}

// ValidateSecretReferences checks that every secretReferenceName of config is
// the name of an entry in resources, the Shoot's spec.resources, that refers to
// a Secret. fldPath is the field that holds config, and may be nil.
func ValidateSecretReferences(config *v1alpha3.RegistryConfig, resources []gardencorev1beta1.NamedResourceReference, fldPath *field.Path) field.ErrorList {
	var errs field.ErrorList
	for i, cache := range config.Caches {
		if name := cache.SecretReferenceName; name != nil {
			namePath := fldPath.Child("caches").Index(i).Child("secretReferenceName")
			errs = append(errs, secretref.ValidateEntry(resources, namePath, *name, "the credentials")...)
		}
	}
	return errs
}

func validateCache(cache *v1alpha3.RegistryCache, fldPath *field.Path) field.ErrorList {
	errs := upstream.Validate(cache.Upstream, fldPath.Child("upstream"))

	// A default that was made from an invalid upstream is not the user's error.
	if len(errs) == 0 || *cache.RemoteURL != upstream.RemoteURL(cache.Upstream) {
		errs = append(errs, upstream.ValidateURL(*cache.RemoteURL, fldPath.Child("remoteURL"))...)
	}
	errs = append(errs, validateVolume(cache.Volume, fldPath.Child("volume"))...)
	if ttl := cache.GarbageCollection.TTL; ttl.Duration < 0 {
		errs = append(errs, field.Invalid(fldPath.Child("garbageCollection", "ttl"), ttl.Duration.String(), "must not be negative; 0s disables the deletion by age"))
	}
	if proxy := cache.Proxy; proxy != nil {
		if proxy.HTTPProxy != nil {
			errs = append(errs, upstream.ValidateURL(*proxy.HTTPProxy, fldPath.Child("proxy", "httpProxy"))...)
		}
		if proxy.HTTPSProxy != nil {
			errs = append(errs, upstream.ValidateURL(*proxy.HTTPSProxy, fldPath.Child("proxy", "httpsProxy"))...)
		}
	}
	if suffix := cache.ServiceNameSuffix; suffix != nil {
		errs = append(errs, validateServiceNameSuffix(*suffix, fldPath.Child("serviceNameSuffix"))...)
	}
	return errs
}

func validateVolume(volume *v1alpha3.Volume, fldPath *field.Path) field.ErrorList {
	var errs field.ErrorList
	if volume.Size.Sign() <= 0 {
		errs = append(errs, field.Invalid(fldPath.Child("size"), volume.Size.String(), "must be greater than 0"))
	}
	if name := volume.StorageClassName; name != nil {
		for _, problem := range validation.IsDNS1123Subdomain(*name) {
			errs = append(errs, field.Invalid(fldPath.Child("storageClassName"), *name, "must be the name of a StorageClass: "+problem))
		}
	}
	return errs
}

func validateVolumeUpdate(newVolume, oldVolume *v1alpha3.Volume, fldPath *field.Path) field.ErrorList {
	var errs field.ErrorList
	if newVolume.Size.Cmp(*oldVolume.Size) < 0 {
		errs = append(errs, field.Invalid(fldPath.Child("size"), newVolume.Size.String(), fmt.Sprintf(
			"must not shrink: set %s or more, or remove the cache and add it again in a second update, which deletes its content", oldVolume.Size)))
	}
	if !ptr.Equal(newVolume.StorageClassName, oldVolume.StorageClassName) {
		old := "unset"
		if oldVolume.StorageClassName != nil {
			old = fmt.Sprintf("%q", *oldVolume.StorageClassName)
		}
		errs = append(errs, field.Invalid(fldPath.Child("storageClassName"), ptr.Deref(newVolume.StorageClassName, ""), fmt.Sprintf(
			"is immutable: leave it %s, or remove the cache and add it again in a second update, which deletes its content", old)))
	}
	return errs
}

func validateServiceNameSuffix(suffix string, fldPath *field.Path) field.ErrorList {
	var errs field.ErrorList
	if len(suffix) > maxServiceNameSuffixLength {
		errs = append(errs, field.Invalid(fldPath, suffix, validation.MaxLenError(maxServiceNameSuffixLength)))
	}
	for _, problem := range validation.IsDNS1123Label(suffix) {
		// The limit above is the lower one.
		if problem != validation.MaxLenError(validation.DNS1123LabelMaxLength) {
			errs = append(errs, field.Invalid(fldPath, suffix, problem))
		}
	}
	return errs
}

// validateUpstreamsDistinct also finds upstreams that differ, but whose objects
// would have the same names.
func validateUpstreamsDistinct(caches []v1alpha3.RegistryCache, fldPath *field.Path) field.ErrorList {
	var errs field.ErrorList
	firstOf := make(map[string]string, len(caches))
	for i, cache := range caches {
		// An empty upstream is reported as missing.
		if cache.Upstream == "" {
			continue
		}
		upstreamPath := fldPath.Index(i).Child("upstream")
		name := upstream.ResourceName(cache.Upstream)
		first, taken := firstOf[name]
		switch {
		case !taken:
			firstOf[name] = cache.Upstream
		case first == cache.Upstream:
			errs = append(errs, field.Duplicate(upstreamPath, cache.Upstream))
		default:
			errs = append(errs, field.Invalid(upstreamPath, cache.Upstream, fmt.Sprintf(
				"the objects of the caches of %q and %q would have the same name %q: remove one of the two caches", first, cache.Upstream, name)))
		}
	}
	return errs
}

// validateServiceNamesDistinct finds suffixes that give a Service the name of
// another cache's. Names that collide without a suffix belong to upstreams that
// collide, which validateUpstreamsDistinct reports.
func validateServiceNamesDistinct(caches []v1alpha3.RegistryCache, fldPath *field.Path) field.ErrorList {
	bySuffix := make(map[string]bool, len(caches))
	byUpstream := make(map[string]string, len(caches))
	for _, cache := range caches {
		if cache.ServiceNameSuffix == nil {
			byUpstream[upstream.ServiceName(cache.Upstream, nil)] = cache.Upstream
		}
	}

	var errs field.ErrorList
	for i, cache := range caches {
		if cache.ServiceNameSuffix == nil {
			continue
		}
		suffixPath := fldPath.Index(i).Child("serviceNameSuffix")
		name := upstream.ServiceName(cache.Upstream, cache.ServiceNameSuffix)
		if bySuffix[name] {
			errs = append(errs, field.Duplicate(suffixPath, *cache.ServiceNameSuffix))
			continue
		}
		bySuffix[name] = true
		if other, taken := byUpstream[name]; taken {
			errs = append(errs, field.Invalid(suffixPath, *cache.ServiceNameSuffix, fmt.Sprintf(
				"the Service of the cache of %q would have the same name %q as the one of %q: choose another suffix", cache.Upstream, name, other)))
		}
	}
	return errs
}
