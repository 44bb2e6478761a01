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

	v1beta1helper "github.com/gardener/gardener/pkg/api/core/v1beta1/helper"
	gardencorev1beta1 "github.com/gardener/gardener/pkg/apis/core/v1beta1"

	mirrorv1alpha1 "github.com/gardener/gardener-extension-registry-cache/pkg/apis/mirror/v1alpha1"
	mirrorvalidation "github.com/gardener/gardener-extension-registry-cache/pkg/apis/mirror/validation"
	"github.com/gardener/gardener-extension-registry-cache/pkg/apis/registry/v1alpha3"
	"github.com/gardener/gardener-extension-registry-cache/pkg/apis/registry/validation"
)

const (
	// readTimeout bounds how long all Secrets of a Shoot are waited for.
	readTimeout = 5 * time.Second
	// maxReads is how many Secrets are in memory at the same time, for all Shoots.
	maxReads = 50
	// maxSecrets is how many Secrets a Shoot may have for its caches and mirrors.
	maxSecrets = 100
)

// secretUse is a field of a configuration that leads to a Secret by way of the
// Shoot's spec.resources.
type secretUse struct {
	fldPath *field.Path
	// reference is the value of the field, and the name of an entry there.
	reference string
	// validate judges the Secret.
	validate func(secret *corev1.Secret, fldPath *field.Path, reference string) field.ErrorList
	// secret is the name of the Secret; resolve sets it.
	secret string
}

func cacheSecrets(config *v1alpha3.RegistryConfig, fldPath *field.Path) []secretUse {
	var uses []secretUse
	for i, cache := range config.Caches {
		if name := cache.SecretReferenceName; name != nil {
			uses = append(uses, secretUse{
				fldPath:   fldPath.Child("caches").Index(i).Child("secretReferenceName"),
				reference: *name,
				validate:  validation.ValidateSecret,
			})
		}
	}
	return uses
}

func mirrorSecrets(config *mirrorv1alpha1.MirrorConfig, fldPath *field.Path) []secretUse {
	var uses []secretUse
	for i, mirror := range config.Mirrors {
		for j, host := range mirror.Hosts {
			if name := host.CABundleSecretReferenceName; name != nil {
				uses = append(uses, secretUse{
					fldPath:   fldPath.Child("mirrors").Index(i).Child("hosts").Index(j).Child("caBundleSecretReferenceName"),
					reference: *name,
					validate:  mirrorvalidation.ValidateSecret,
				})
			}
		}
	}
	return uses
}

// resolve returns the uses that lead to a Secret, the first of each: what is wrong
// with it is then said once. What others lead to is reported without a look at it.
func resolve(uses []secretUse, resources []gardencorev1beta1.NamedResourceReference) []secretUse {
	var resolved []secretUse
	seen := make(map[string]bool)
	for _, use := range uses {
		resource := v1beta1helper.GetResourceByName(resources, use.reference)
		if resource == nil || resource.ResourceRef.APIVersion != "v1" || resource.ResourceRef.Kind != "Secret" || seen[resource.ResourceRef.Name] {
			continue
		}
		use.secret = resource.ResourceRef.Name
		seen[use.secret] = true
		resolved = append(resolved, use)
	}
	return resolved
}

// validateSecrets judges the Secrets to which uses lead, several at the same time.
func (v *Validator) validateSecrets(ctx context.Context, namespace string, uses []secretUse) field.ErrorList {
	if len(uses) > maxSecrets {
		return field.ErrorList{field.Forbidden(uses[maxSecrets].fldPath, fmt.Sprintf(
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
func (v *Validator) validateSecret(ctx context.Context, namespace string, use secretUse) (problems field.ErrorList) {
	select {
	case v.reads <- struct{}{}:
		defer func() { <-v.reads }()
	case <-ctx.Done():
		return field.ErrorList{readProblem(ctx, ctx.Err(), namespace, use)}
	}
	secret := &corev1.Secret{}
	err := v.reader.Get(ctx, client.ObjectKey{Namespace: namespace, Name: use.secret}, secret)
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
			problems = field.ErrorList{field.InternalError(use.fldPath, fmt.Errorf("the Secret %q could not be judged", namespace+"/"+use.secret))}
		}
	}()
	return use.validate(secret, use.fldPath, use.reference)
}

// readProblem says why a Secret could not be read. A Shoot whose Secrets cannot
// be judged is refused: to let it through would only move the message to where
// its author does not look. What else there is in err, addresses for example, is for
// the operators.
func readProblem(ctx context.Context, err error, namespace string, use secretUse) *field.Error {
	name := namespace + "/" + use.secret
	if apierrors.IsNotFound(err) {
		problem := field.NotFound(use.fldPath, use.reference)
		problem.Detail = fmt.Sprintf("the Secret %q, to which the entry of this name in spec.resources of the Shoot refers, does not exist: create it, or correct resourceRef.name", name)
		return problem
	}
	logf.FromContext(ctx).Error(err, "Secret could not be read", "secret", name)
	switch {
	case apierrors.IsForbidden(err):
		return field.InternalError(use.fldPath, fmt.Errorf(
			"the Secret %q cannot be checked, for the extension's admission is not allowed to read it: ask the operators of Gardener, who can change that", name))
	case errors.Is(err, context.DeadlineExceeded):
		return field.InternalError(use.fldPath, fmt.Errorf("the Secret %q could not be checked within %s: try again", name, readTimeout))
	default:
		return field.InternalError(use.fldPath, fmt.Errorf("the Secret %q could not be read: try again", name))
	}
}
