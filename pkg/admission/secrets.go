// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package admission

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"sigs.k8s.io/controller-runtime/pkg/client"
	logf "sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/gardener/gardener-extension-registry-cache/pkg/admission/judge"
)

const (
	// readTimeout bounds how long all Secrets of a Shoot are waited for.
	readTimeout = 5 * time.Second
	// maxReads is how many Secrets are in memory at the same time, for all Shoots.
	maxReads = 50
	// maxSecrets is how many Secrets a Shoot may have for its caches and mirrors.
	maxSecrets = 100
)

// validateSecrets judges the Secrets to which uses lead, several at the same time.
func (v *Validator) validateSecrets(ctx context.Context, namespace string, uses []judge.SecretUse) field.ErrorList {
	if len(uses) > maxSecrets {
		return field.ErrorList{field.Forbidden(uses[maxSecrets].Field, fmt.Sprintf(
			"the Shoot has caches and mirrors with %d Secrets, at most %d are allowed: use one for several", len(uses), maxSecrets))}
	}
	// The end of this program cancels ctx, and is no reason to refuse a Shoot.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), readTimeout)
	defer cancel()
	problems := make([]field.ErrorList, len(uses))
	var group sync.WaitGroup
	for i, use := range uses {
		group.Go(func() { problems[i] = v.validateSecret(ctx, namespace, use) })
	}
	group.Wait()
	return slices.Concat(problems...)
}

// validateSecret reads and judges few Secrets at the same time, however many
// requests come at once.
func (v *Validator) validateSecret(ctx context.Context, namespace string, use judge.SecretUse) (problems field.ErrorList) {
	select {
	case v.reads <- struct{}{}:
		defer func() { <-v.reads }()
	case <-ctx.Done():
		return field.ErrorList{readProblem(ctx, ctx.Err(), namespace, use)}
	}
	secret := &corev1.Secret{}
	err := v.reader.Get(ctx, client.ObjectKey{Namespace: namespace, Name: use.Secret}, secret)
	if err == nil {
		// After that time nobody waits any more.
		err = ctx.Err()
	}
	if err != nil {
		return field.ErrorList{readProblem(ctx, err, namespace, use)}
	}
	// The content is anybody's, and must not end the program.
	defer func() {
		if r := recover(); r != nil {
			logf.FromContext(ctx).Error(fmt.Errorf("panic: %v", r), "Secret could not be judged", "secret", client.ObjectKeyFromObject(secret), "stack", string(debug.Stack()))
			problems = field.ErrorList{field.InternalError(use.Field, fmt.Errorf("the Secret %q could not be judged", namespace+"/"+use.Secret))}
		}
	}()
	return use.Validate(secret, use.Field, use.Reference)
}

// readProblem says why a Secret could not be read. A Shoot whose Secrets cannot
// be judged is refused: to let it through would only move the message to where
// its author does not look. What else there is in err, addresses for example, is for
// the operators.
func readProblem(ctx context.Context, err error, namespace string, use judge.SecretUse) *field.Error {
	name := namespace + "/" + use.Secret
	if apierrors.IsNotFound(err) {
		problem := field.NotFound(use.Field, use.Reference)
		problem.Detail = fmt.Sprintf("the Secret %q, to which the entry of this name in spec.resources of the Shoot refers, does not exist: create it, or correct resourceRef.name", name)
		return problem
	}
	logf.FromContext(ctx).Error(err, "Secret could not be read", "secret", name)
	switch {
	case apierrors.IsForbidden(err):
		return field.InternalError(use.Field, fmt.Errorf(
			"the Secret %q cannot be checked, for the extension's admission is not allowed to read it: ask the operators of Gardener, who can change that", name))
	case errors.Is(err, context.DeadlineExceeded):
		return field.InternalError(use.Field, fmt.Errorf("the Secret %q could not be checked within %s: try again", name, readTimeout))
	default:
		return field.InternalError(use.Field, fmt.Errorf("the Secret %q could not be read: try again", name))
	}
}
