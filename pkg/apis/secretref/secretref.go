// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

// Package secretref checks how a configuration leads to a Secret: a field holds
// the name of an entry in the Shoot's spec.resources, and that entry refers to
// the Secret. What has to be in the Secret is the business of the API that the
// field belongs to.
package secretref

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	gardencorev1beta1 "github.com/gardener/gardener/pkg/apis/core/v1beta1"
)

// ValidateEntry checks that reference is the name of an entry in resources, the
// Shoot's spec.resources, that refers to a Secret. fldPath is the field whose
// value is reference, and content says what the Secret is to hold.
func ValidateEntry(resources []gardencorev1beta1.NamedResourceReference, fldPath *field.Path, reference, content string) field.ErrorList {
	i := slices.IndexFunc(resources, func(resource gardencorev1beta1.NamedResourceReference) bool { return resource.Name == reference })
	if i < 0 {
		err := field.NotFound(fldPath, reference)
		err.Detail = fmt.Sprintf("spec.resources of the Shoot has no entry of this name: add one whose resourceRef is the v1 Secret with %s, or correct the name", content)
		return field.ErrorList{err}
	}
	if ref := resources[i].ResourceRef; ref.APIVersion != corev1.SchemeGroupVersion.String() || ref.Kind != "Secret" {
		return field.ErrorList{field.Invalid(fldPath, reference, fmt.Sprintf(
			"the entry of this name in spec.resources of the Shoot must refer to apiVersion v1 and kind Secret, but refers to %s and %s (name %q)",
			ref.APIVersion, ref.Kind, ref.Name))}
	}
	return nil
}

// ValidateDataFunc checks the content of a Secret to which reference, the value
// of fldPath, leads. secretName is named in errors; what the Secret holds must
// not be.
type ValidateDataFunc func(data map[string][]byte, fldPath *field.Path, reference, secretName string) field.ErrorList

// ValidateSecret checks the Secret, in the project namespace of the Garden, to
// which reference, the value of fldPath, leads: that it is immutable, and its
// content.
func ValidateSecret(secret *corev1.Secret, fldPath *field.Path, reference string, validateData ValidateDataFunc) field.ErrorList {
	name := secret.Name
	if secret.Namespace != "" {
		name = secret.Namespace + "/" + secret.Name
	}
	var errs field.ErrorList
	if !ptr.Deref(secret.Immutable, false) {
		// Only a new name makes the Shoot change, and its change is what brings
		// the new content to where it is used.
		errs = append(errs, Invalid(fldPath, reference, name, "must be immutable: set its field immutable to true"))
	}
	return append(errs, validateData(secret.Data, fldPath, reference, name)...)
}

// Invalid returns an error about the Secret to which reference, the value of
// fldPath, leads.
func Invalid(fldPath *field.Path, reference, secretName, problem string) *field.Error {
	return field.Invalid(fldPath, reference, fmt.Sprintf("the referenced Secret %q %s", secretName, problem))
}
