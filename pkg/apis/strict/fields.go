// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package strict

import (
	"fmt"
	"slices"

	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// maxShown is how many fields the text of FieldErrors names.
const maxShown = 20

// FieldErrors are fields of a document that it must not have (Forbidden), has
// twice (Duplicate), or that have a value of a wrong type or form (Invalid, with
// the type TypeInvalid). Their paths begin in the document.
type FieldErrors field.ErrorList

// Error returns the first of the errors in one line.
func (e FieldErrors) Error() string {
	shown := make([]error, 0, maxShown+1)
	for _, err := range e[:min(len(e), maxShown)] {
		shown = append(shown, err)
	}
	if hidden := len(e) - maxShown; hidden > 0 {
		shown = append(shown, fmt.Errorf("and %d more", hidden))
	}
	return utilerrors.NewAggregate(shown).Error()
}

// In returns the errors with their paths in an object that has the document at
// fldPath.
func (e FieldErrors) In(fldPath *field.Path) field.ErrorList {
	errs := make(field.ErrorList, 0, len(e))
	for _, err := range e {
		inner := *err
		inner.Field = fldPath.Child(err.Field).String()
		errs = append(errs, &inner)
	}
	return errs
}

// areUnknown says whether all errors are of fields that the type does not have:
// all others could be decoded.
func (e FieldErrors) areUnknown() bool {
	return !slices.ContainsFunc(e, func(err *field.Error) bool { return err.Type != field.ErrorTypeForbidden })
}
