// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

// Package judge says what is wrong with the caches and mirrors of a Shoot, as far as
// the Shoot tells. It reads nothing from a cluster, so that admission and the kubectl
// plugin judge alike.
package judge

import (
	"reflect"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"
	kjson "sigs.k8s.io/json"

	gardencorev1beta1 "github.com/gardener/gardener/pkg/apis/core/v1beta1"
)

// Bounds of what is shown of a problem: a value that is wrong can be of any length.
const (
	maxValueLength = 200
	maxFieldLength = 500
	maxTextLength  = 1000
)

// DecodeShoot returns the Shoot that is written as JSON, as an API server reads it.
func DecodeShoot(raw []byte) (*gardencorev1beta1.Shoot, error) {
	shoot := &gardencorev1beta1.Shoot{}
	return shoot, kjson.UnmarshalCaseSensitivePreserveInts(raw, shoot)
}

// Offline returns all that is wrong with the caches and mirrors of a Shoot that
// is to be created, as far as that can be known without a garden. The function returns
// a Secret of the Shoot's project by its name, or nil; unread are the names of the
// Secrets that it does not have and that were therefore not judged.
func Offline(shoot *gardencorev1beta1.Shoot, secret func(name string) *corev1.Secret) (problems field.ErrorList, unread []string) {
	problems, secrets := Shoot(shoot, nil)
	for _, use := range secrets {
		if found := secret(use.Secret); found != nil {
			problems = append(problems, use.Validate(found, use.Field, use.Reference)...)
		} else {
			unread = append(unread, use.Secret)
		}
	}
	return problems, unread
}

// Shoot returns what is wrong with a Shoot that is to be created, or to replace old
// unless that is nil, without a look at its Secrets; and which of these are to be
// looked at, each once. What an update leaves as it is, is not judged again.
func Shoot(shoot, old *gardencorev1beta1.Shoot) (problems field.ErrorList, secrets []SecretUse) {
	// Finalizers, and all that Gardener does until the Shoot is gone.
	if shoot.DeletionTimestamp != nil {
		return nil, nil
	}
	for i := range shoot.Spec.Extensions {
		extension := &shoot.Spec.Extensions[i]
		if judge, ours := judges[extension.Type]; ours && isEnabled(extension) {
			found, used := judge.judge(shoot, old, i)
			problems = append(problems, found...)
			secrets = append(secrets, used...)
		}
	}
	return append(problems, validateContainerRuntimes(shoot, old)...), secrets
}

// validateContainerRuntimes finds worker pools that would not pull through
// caches and mirrors.
func validateContainerRuntimes(shoot, old *gardencorev1beta1.Shoot) field.ErrorList {
	if !usesOurs(shoot) {
		return nil
	}
	accepted := make(map[string]gardencorev1beta1.CRIName)
	if usesOurs(old) {
		for _, worker := range old.Spec.Provider.Workers {
			accepted[worker.Name] = containerRuntime(worker)
		}
	}
	var problems field.ErrorList
	for i, worker := range shoot.Spec.Provider.Workers {
		name := containerRuntime(worker)
		if before, existed := accepted[worker.Name]; name == gardencorev1beta1.CRINameContainerD || existed && name == before {
			continue
		}
		problems = append(problems, field.Invalid(field.NewPath("spec", "provider", "workers").Index(i).Child("cri", "name"), string(name),
			"must be containerd: registry-cache and registry-mirror work with no other container runtime"))
	}
	return problems
}

// containerRuntime returns the container runtime of a worker pool with Gardener's
// default.
func containerRuntime(worker gardencorev1beta1.Worker) gardencorev1beta1.CRIName {
	if worker.CRI == nil {
		return gardencorev1beta1.CRINameContainerD
	}
	return worker.CRI.Name
}

func usesOurs(shoot *gardencorev1beta1.Shoot) bool {
	for extensionType := range judges {
		if findExtension(shoot, extensionType) != nil {
			return true
		}
	}
	return false
}

// findExtension returns the extension of a type, or nil if the Shoot does not use
// one, or there is no Shoot.
func findExtension(shoot *gardencorev1beta1.Shoot, extensionType string) *gardencorev1beta1.Extension {
	if shoot == nil {
		return nil
	}
	for i := range shoot.Spec.Extensions {
		if extension := &shoot.Spec.Extensions[i]; extension.Type == extensionType && isEnabled(extension) {
			return extension
		}
	}
	return nil
}

func isEnabled(extension *gardencorev1beta1.Extension) bool {
	return !ptr.Deref(extension.Disabled, false)
}

// Shorten returns a copy of a problem that is not too long to be read.
func Shorten(problem *field.Error) *field.Error {
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
