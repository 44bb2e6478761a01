// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package admission

import (
	"context"
	"fmt"
	"net/http"
	"slices"

	admissionv1 "k8s.io/api/admission/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	logf "sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	gardencorev1beta1 "github.com/gardener/gardener/pkg/apis/core/v1beta1"

	"github.com/gardener/gardener-extension-registry-cache/pkg/admission/judge"
)

// maxProblems bounds an answer: a configuration of a few kilobytes can have thousands of
// mistakes.
const maxProblems = 100

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
	logf.FromContext(ctx).Info("Refused", "problems", len(problems), "firstField", judge.Shorten(problems[0]).Field, "firstType", problems[0].Type)
	return refuse(name, problems)
}

// decode returns the Shoot and, on an update, the one that it is to replace.
// Whatever their version is: fields that another version does not have stay
// empty.
func decode(request admission.Request) (shoot, old *gardencorev1beta1.Shoot, err error) {
	if shoot, err = judge.DecodeShoot(request.Object.Raw); err != nil {
		return nil, nil, fmt.Errorf("decode Shoot: %w", err)
	}
	if request.Operation == admissionv1.Update {
		if old, err = judge.DecodeShoot(request.OldObject.Raw); err != nil {
			return nil, nil, fmt.Errorf("decode old Shoot: %w", err)
		}
	}
	return shoot, old, nil
}

func refuse(name string, problems field.ErrorList) admission.Response {
	shown := make(field.ErrorList, 0, min(len(problems), maxProblems+1))
	for _, problem := range problems[:min(len(problems), maxProblems)] {
		shown = append(shown, judge.Shorten(problem))
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
