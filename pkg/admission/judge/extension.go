// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package judge

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation/field"

	v1beta1helper "github.com/gardener/gardener/pkg/api/core/v1beta1/helper"
	gardencorev1beta1 "github.com/gardener/gardener/pkg/apis/core/v1beta1"

	mirrorv1alpha1 "github.com/gardener/gardener-extension-registry-cache/pkg/apis/mirror/v1alpha1"
	mirrorvalidation "github.com/gardener/gardener-extension-registry-cache/pkg/apis/mirror/validation"
	"github.com/gardener/gardener-extension-registry-cache/pkg/apis/registry/v1alpha3"
	"github.com/gardener/gardener-extension-registry-cache/pkg/apis/registry/validation"
	"github.com/gardener/gardener-extension-registry-cache/pkg/apis/strict"
)

// judges are the judges of our extensions by their types.
var judges = map[string]judge{
	v1alpha3.ExtensionType: rules[v1alpha3.RegistryConfig]{
		extensionType: v1alpha3.ExtensionType,
		required:      "must be a RegistryConfig of apiVersion " + v1alpha3.SchemeGroupVersion.String() + " with one cache or more: set it, or remove the extension",
		decode:        v1alpha3.Decode,
		validate: func(config, old *v1alpha3.RegistryConfig, fldPath *field.Path) field.ErrorList {
			if old != nil {
				return validation.ValidateRegistryConfigUpdate(config, old, fldPath)
			}
			return validation.ValidateRegistryConfig(config, fldPath)
		},
		validateReferences: validation.ValidateSecretReferences,
		secrets:            cacheSecrets,
	},
	mirrorv1alpha1.ExtensionType: rules[mirrorv1alpha1.MirrorConfig]{
		extensionType: mirrorv1alpha1.ExtensionType,
		required:      "must be a MirrorConfig of apiVersion " + mirrorv1alpha1.SchemeGroupVersion.String() + " with the mirrors of one upstream or more: set it, or remove the extension",
		decode:        mirrorv1alpha1.Decode,
		validate: func(config, _ *mirrorv1alpha1.MirrorConfig, fldPath *field.Path) field.ErrorList {
			return mirrorvalidation.ValidateMirrorConfig(config, fldPath)
		},
		validateReferences: mirrorvalidation.ValidateSecretReferences,
		secrets:            mirrorSecrets,
	},
}

// judge judges the extension of one type in a Shoot.
type judge interface {
	// judge returns what is wrong with the index-th extension of a Shoot, and
	// which Secrets are still to be judged. It returns nothing if old, which may be
	// nil, has the same.
	judge(shoot, old *gardencorev1beta1.Shoot, index int) (field.ErrorList, []SecretUse)
}

// rules are what tells one extension type from another. C is its configuration.
type rules[C any] struct {
	extensionType string
	// required says what a missing configuration should be.
	required string
	decode   func([]byte) (*C, error)
	// validate judges a configuration, which is to replace old unless that is nil.
	validate           func(config, old *C, fldPath *field.Path) field.ErrorList
	validateReferences func(*C, []gardencorev1beta1.NamedResourceReference, *field.Path) field.ErrorList
	secrets            func(*C, *field.Path) []SecretUse
}

func (r rules[C]) judge(shoot, old *gardencorev1beta1.Shoot, index int) (field.ErrorList, []SecretUse) {
	fldPath := field.NewPath("spec", "extensions").Index(index).Child("providerConfig")
	raw := providerConfig(&shoot.Spec.Extensions[index])
	oldExtension := findExtension(old, r.extensionType)
	// So it is with most updates: nothing has to be decoded.
	if oldExtension != nil && bytes.Equal(raw, providerConfig(oldExtension)) && equality.Semantic.DeepEqual(shoot.Spec.Resources, old.Spec.Resources) {
		return nil, nil
	}

	config, problems := r.read(raw, fldPath)
	var oldConfig *C
	if oldExtension != nil {
		oldRaw := providerConfig(oldExtension)
		// What is wrong with it is no news.
		var oldProblems field.ErrorList
		oldConfig, oldProblems = r.read(oldRaw, fldPath)
		if isSame(config, oldConfig, len(problems) == 0, len(oldProblems) == 0, raw, oldRaw) {
			return r.judgeReferences(config, shoot, old, fldPath)
		}
	}
	if config == nil {
		return problems, nil
	}
	problems = append(problems, r.validate(config, oldConfig, fldPath)...)
	problems = append(problems, r.validateReferences(config, shoot.Spec.Resources, fldPath)...)
	return problems, resolve(r.secrets(config, fldPath), shoot.Spec.Resources)
}

// read returns a configuration, and what is wrong with how it is written. It
// returns none if it cannot be known.
func (r rules[C]) read(raw []byte, fldPath *field.Path) (*C, field.ErrorList) {
	if err := checkBounds(raw); err != nil {
		return nil, field.ErrorList{field.Invalid(fldPath, field.OmitValueType{}, err.Error())}
	}
	config, err := r.decode(raw)
	if errors.Is(err, strict.ErrEmpty) {
		return nil, field.ErrorList{field.Required(fldPath, r.required)}
	}
	if problems := (strict.FieldErrors)(nil); errors.As(err, &problems) {
		return config, problems.In(fldPath)
	}
	if err != nil {
		return nil, field.ErrorList{field.Invalid(fldPath, field.OmitValueType{}, err.Error())}
	}
	return config, nil
}

// judgeReferences judges those references of an unchanged configuration that lead
// elsewhere than before.
func (r rules[C]) judgeReferences(config *C, shoot, old *gardencorev1beta1.Shoot, fldPath *field.Path) (field.ErrorList, []SecretUse) {
	if config == nil {
		return nil, nil
	}
	var changed []SecretUse
	paths := sets.New[string]()
	for _, use := range r.secrets(config, fldPath) {
		reference := v1beta1helper.GetResourceByName(shoot.Spec.Resources, use.Reference)
		oldReference := v1beta1helper.GetResourceByName(old.Spec.Resources, use.Reference)
		if !equality.Semantic.DeepEqual(reference, oldReference) {
			changed = append(changed, use)
			paths.Insert(use.Field.String())
		}
	}
	var problems field.ErrorList
	for _, problem := range r.validateReferences(config, shoot.Spec.Resources, fldPath) {
		if paths.Has(problem.Field) {
			problems = append(problems, problem)
		}
	}
	return problems, resolve(changed, shoot.Spec.Resources)
}

// isSame says whether two configurations mean the same. One that is not readable
// means what it says.
func isSame[C any](config, oldConfig *C, readable, oldReadable bool, raw, oldRaw []byte) bool {
	switch {
	case bytes.Equal(raw, oldRaw):
		return true
	case readable != oldReadable:
		return false
	case readable:
		return equality.Semantic.DeepEqual(config, oldConfig)
	}
	var document, oldDocument any
	return json.Unmarshal(raw, &document) == nil && json.Unmarshal(oldRaw, &oldDocument) == nil && reflect.DeepEqual(document, oldDocument)
}

func providerConfig(extension *gardencorev1beta1.Extension) []byte {
	if extension.ProviderConfig == nil {
		return nil
	}
	return extension.ProviderConfig.Raw
}

const (
	// maxSize leaves room for 140 caches with all fields set, or 700 mirrors: a
	// multiple of what anybody can want. What is longer is a mistake, or made to
	// keep this program busy.
	maxSize = 64 << 10
	// maxDepth is more than twice what the types have.
	maxDepth = 16
)

// checkBounds rejects what is expensive to decode and certainly a mistake. raw
// is valid JSON, or it would not have come as part of a Shoot.
func checkBounds(raw []byte) error {
	if len(raw) > maxSize {
		return fmt.Errorf("the configuration has %d bytes, at most %d are allowed: remove caches or mirrors", len(raw), maxSize)
	}
	depth, inString := 0, false
	for i := 0; i < len(raw); i++ {
		switch c := raw[i]; {
		case inString && c == '\\':
			i++
		case c == '"':
			inString = !inString
		case inString:
		case c == '{' || c == '[':
			if depth++; depth > maxDepth {
				return fmt.Errorf("the configuration is nested more than %d levels deep, which no field of it is", maxDepth)
			}
		case c == '}' || c == ']':
			depth--
		}
	}
	return nil
}
