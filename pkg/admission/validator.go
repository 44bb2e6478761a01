// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package admission

import (
	"context"

	"k8s.io/apimachinery/pkg/util/validation/field"
	"sigs.k8s.io/controller-runtime/pkg/client"

	gardencorev1beta1 "github.com/gardener/gardener/pkg/apis/core/v1beta1"

	"github.com/gardener/gardener-extension-registry-cache/pkg/admission/judge"
)

// Validator judges Shoots.
type Validator struct {
	reader client.Reader
	// reads has an element for each Secret that is being read.
	reads chan struct{}
}

// NewValidator returns a Validator. The reader is of the garden cluster and must
// not have a cache: a Secret may be as new as the Shoot that refers to it.
func NewValidator(reader client.Reader) *Validator {
	return &Validator{reader: reader, reads: make(chan struct{}, maxReads)}
}

// Validate returns all that is wrong with the caches and mirrors of a Shoot that
// is to be created, or to replace old. What an update leaves as it is, is not
// judged again: rules may have become stricter, and Secrets may have gone, and
// neither must be in the way of other changes.
func (v *Validator) Validate(ctx context.Context, shoot, old *gardencorev1beta1.Shoot) field.ErrorList {
	problems, secrets := judge.Shoot(shoot, old)
	return append(problems, v.validateSecrets(ctx, shoot.Namespace, secrets)...)
}
