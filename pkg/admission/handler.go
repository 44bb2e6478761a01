// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package admission

import (
	"context"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strings"

	admissionv1 "k8s.io/api/admission/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	logf "sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"
	kjson "sigs.k8s.io/json"

	gardencorev1beta1 "github.com/gardener/gardener/pkg/apis/core/v1beta1"
)

// Bounds of an answer. A configuration of a few kilobytes can have thousands of
// mistakes, and a value that is wrong can be of any length.
const (
	maxProblems    = 100
	maxValueLength = 200
	maxFieldLength = 500
	maxTextLength  = 1000
)

// Handle answers a request about a Shoot. Mistakes are answered as Invalid with
// one cause each, as Gardener answers its own, so that clients show them alike.
func (v *Validator) Handle(ctx context.Context, request admission.Request) admission.Response {
	shoot, old, err := decode(request)
	if err != nil {
		return admission.Errored(http.StatusBadRequest, err)
	}
	// Taken out, so that the Shoots are garbage while their Secrets are waited for.
	name := shoot.Name
	problems := v.Validate(ctx, shoot, old)
	if len(problems) == 0 {
		return admission.Allowed("")
	}
	// Without values, which may be what should have been in a Secret.
	logf.FromContext(ctx).Info("Refused", "problems", len(problems), "firstField", shorten(problems[0]).Field, "firstType", problems[0].Type)
	return refuse(name, problems)
}

// decode returns the Shoot and, on an update, the one that it is to replace.
// Whatever their version is: fields that another version does not have stay
// empty.
func decode(request admission.Request) (shoot, old *gardencorev1beta1.Shoot, err error) {
	if shoot, err = decodeShoot(request.Object); err != nil {
		return nil, nil, fmt.Errorf("decode Shoot: %w", err)
	}
	if request.Operation == admissionv1.Update {
		if old, err = decodeShoot(request.OldObject); err != nil {
			return nil, nil, fmt.Errorf("decode old Shoot: %w", err)
		}
	}
	return shoot, old, nil
}

func decodeShoot(object runtime.RawExtension) (*gardencorev1beta1.Shoot, error) {
	shoot := &gardencorev1beta1.Shoot{}
	return shoot, kjson.UnmarshalCaseSensitivePreserveInts(object.Raw, shoot)
}

func refuse(name string, problems field.ErrorList) admission.Response {
	shown := make(field.ErrorList, 0, min(len(problems), maxProblems+1))
	for _, problem := range problems[:min(len(problems), maxProblems)] {
		shown = append(shown, shorten(problem))
	}
	if hidden := len(problems) - maxProblems; hidden > 0 {
		shown = append(shown, field.Invalid(field.NewPath("spec", "extensions"), field.OmitValueType{},
			fmt.Sprintf("%d more problems are not shown: correct these first", hidden)))
	}

	status := apierrors.NewInvalid(gardencorev1beta1.Kind("Shoot"), name, shown).ErrStatus
	// Nothing that the user could correct.
	if !slices.ContainsFunc(problems, func(problem *field.Error) bool { return problem.Type != field.ErrorTypeInternal }) {
		status = metav1.Status{
			Status: metav1.StatusFailure, Code: http.StatusInternalServerError,
			Reason: metav1.StatusReasonInternalError, Message: shown.ToAggregate().Error(),
		}
	}
	return admission.Response{AdmissionResponse: admissionv1.AdmissionResponse{Result: &status}}
}

// shorten returns a copy of a problem that is not too long to be read.
func shorten(problem *field.Error) *field.Error {
	short := *problem
	if value := reflect.ValueOf(short.BadValue); value.Kind() == reflect.String {
		short.BadValue = cut(value.String(), maxValueLength)
	}
	short.Field = cut(short.Field, maxFieldLength)
	short.Detail = cut(short.Detail, maxTextLength)
	return &short
}

func cut(text string, length int) string {
	if len(text) <= length {
		return text
	}
	return strings.ToValidUTF8(text[:length], "") + "..."
}
