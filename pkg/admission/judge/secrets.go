// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package judge

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	v1beta1helper "github.com/gardener/gardener/pkg/api/core/v1beta1/helper"
	gardencorev1beta1 "github.com/gardener/gardener/pkg/apis/core/v1beta1"

	mirrorv1alpha1 "github.com/gardener/gardener-extension-registry-cache/pkg/apis/mirror/v1alpha1"
	mirrorvalidation "github.com/gardener/gardener-extension-registry-cache/pkg/apis/mirror/validation"
	"github.com/gardener/gardener-extension-registry-cache/pkg/apis/registry/v1alpha3"
	"github.com/gardener/gardener-extension-registry-cache/pkg/apis/registry/validation"
)

// SecretUse is a field of a configuration that leads to a Secret by way of the
// Shoot's spec.resources.
type SecretUse struct {
	// Field is the path of the field.
	Field *field.Path
	// Reference is the value of the field, and the name of an entry there.
	Reference string
	// Validate judges the Secret.
	Validate func(secret *corev1.Secret, fldPath *field.Path, reference string) field.ErrorList
	// Secret is the name of the Secret, in the namespace of the Shoot.
	Secret string
}

func cacheSecrets(config *v1alpha3.RegistryConfig, fldPath *field.Path) []SecretUse {
	var uses []SecretUse
	for i, cache := range config.Caches {
		if name := cache.SecretReferenceName; name != nil {
			uses = append(uses, SecretUse{
				Field:     fldPath.Child("caches").Index(i).Child("secretReferenceName"),
				Reference: *name,
				Validate:  validation.ValidateSecret,
			})
		}
	}
	return uses
}

func mirrorSecrets(config *mirrorv1alpha1.MirrorConfig, fldPath *field.Path) []SecretUse {
	var uses []SecretUse
	for i, mirror := range config.Mirrors {
		for j, host := range mirror.Hosts {
			if name := host.CABundleSecretReferenceName; name != nil {
				uses = append(uses, SecretUse{
					Field:     fldPath.Child("mirrors").Index(i).Child("hosts").Index(j).Child("caBundleSecretReferenceName"),
					Reference: *name,
					Validate:  mirrorvalidation.ValidateSecret,
				})
			}
		}
	}
	return uses
}

// resolve returns the uses that lead to a Secret, the first of each: what is wrong
// with it is then said once. What others lead to is reported without a look at it.
func resolve(uses []SecretUse, resources []gardencorev1beta1.NamedResourceReference) []SecretUse {
	var resolved []SecretUse
	seen := make(map[string]bool)
	for _, use := range uses {
		resource := v1beta1helper.GetResourceByName(resources, use.Reference)
		if resource == nil || resource.ResourceRef.APIVersion != "v1" || resource.ResourceRef.Kind != "Secret" || seen[resource.ResourceRef.Name] {
			continue
		}
		use.Secret = resource.ResourceRef.Name
		seen[use.Secret] = true
		resolved = append(resolved, use)
	}
	return resolved
}
