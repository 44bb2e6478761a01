// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

// Package validation holds the rules of the registry-mirror API that types and
// defaults cannot express. It judges objects that were decoded and defaulted,
// and Secrets that were read by its caller: it reads nothing itself. All
// problems are reported at once, each with the field to change and how.
package validation

import (
	"slices"

	"k8s.io/apimachinery/pkg/util/validation/field"

	gardencorev1beta1 "github.com/gardener/gardener/pkg/apis/core/v1beta1"

	"github.com/gardener/gardener-extension-registry-cache/pkg/apis/mirror/v1alpha1"
	"github.com/gardener/gardener-extension-registry-cache/pkg/apis/secretref"
	"github.com/gardener/gardener-extension-registry-cache/pkg/upstream"
)

// maxHosts is how many mirrors of one upstream the two digits in the names of their
// files can count.
const maxHosts = 99

var capabilities = []v1alpha1.MirrorHostCapability{v1alpha1.MirrorHostCapabilityPull, v1alpha1.MirrorHostCapabilityResolve}

// ValidateMirrorConfig checks a defaulted MirrorConfig. fldPath is the field
// that holds it, and may be nil.
func ValidateMirrorConfig(config *v1alpha1.MirrorConfig, fldPath *field.Path) field.ErrorList {
	fldPath = fldPath.Child("mirrors")
	if len(config.Mirrors) == 0 {
		return field.ErrorList{field.Required(fldPath, "at least one upstream with its mirrors is needed: add one, or disable the extension")}
	}

	var errs field.ErrorList
	seen := make(map[string]bool, len(config.Mirrors))
	for i, mirror := range config.Mirrors {
		mirrorPath := fldPath.Index(i)
		errs = append(errs, upstream.Validate(mirror.Upstream, mirrorPath.Child("upstream"))...)
		// An empty upstream is reported as missing.
		if mirror.Upstream != "" && seen[mirror.Upstream] {
			errs = append(errs, field.Duplicate(mirrorPath.Child("upstream"), mirror.Upstream))
		}
		seen[mirror.Upstream] = true
		errs = append(errs, validateHosts(mirror.Hosts, mirrorPath.Child("hosts"))...)
	}
	return errs
}

// ValidateSecretReferences checks that every caBundleSecretReferenceName of
// config is the name of an entry in resources, the Shoot's spec.resources, that
// refers to a Secret. fldPath is the field that holds config, and may be nil.
func ValidateSecretReferences(config *v1alpha1.MirrorConfig, resources []gardencorev1beta1.NamedResourceReference, fldPath *field.Path) field.ErrorList {
	var errs field.ErrorList
	for i, mirror := range config.Mirrors {
		for j, host := range mirror.Hosts {
			if name := host.CABundleSecretReferenceName; name != nil {
				namePath := fldPath.Child("mirrors").Index(i).Child("hosts").Index(j).Child("caBundleSecretReferenceName")
				errs = append(errs, secretref.ValidateEntry(resources, namePath, *name, "the CA bundle")...)
			}
		}
	}
	return errs
}

func validateHosts(hosts []v1alpha1.MirrorHost, fldPath *field.Path) field.ErrorList {
	if len(hosts) == 0 {
		return field.ErrorList{field.Required(fldPath, "at least one mirror is needed: add one, or remove the upstream")}
	}

	var errs field.ErrorList
	if len(hosts) > maxHosts {
		errs = append(errs, field.TooMany(fldPath, len(hosts), maxHosts))
	}
	seen := make(map[string]bool, len(hosts))
	for i, host := range hosts {
		hostPath := fldPath.Index(i)
		hostErrs := validateURL(host.Host, hostPath.Child("host"))
		// Two spellings of one URL are let through: nodes use the mirror once, or try
		// it twice.
		if len(hostErrs) == 0 && seen[host.Host] {
			hostErrs = field.ErrorList{field.Duplicate(hostPath.Child("host"), host.Host)}
		}
		seen[host.Host] = true
		errs = append(errs, hostErrs...)
		errs = append(errs, validateCapabilities(host.Capabilities, hostPath.Child("capabilities"))...)
	}
	return errs
}

func validateCapabilities(values []v1alpha1.MirrorHostCapability, fldPath *field.Path) field.ErrorList {
	var errs field.ErrorList
	for i, value := range values {
		switch {
		case !slices.Contains(capabilities, value):
			errs = append(errs, field.NotSupported(fldPath.Index(i), value, capabilities))
		case slices.Contains(values[:i], value):
			errs = append(errs, field.Duplicate(fldPath.Index(i), value))
		}
	}
	return errs
}
