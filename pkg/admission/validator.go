// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package admission

import (
	"context"

	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	gardencorev1beta1 "github.com/gardener/gardener/pkg/apis/core/v1beta1"
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
	// Finalizers, and all that Gardener does until the Shoot is gone.
	if shoot.DeletionTimestamp != nil {
		return nil
	}
	var (
		problems field.ErrorList
		secrets  []secretUse
	)
	for i := range shoot.Spec.Extensions {
		extension := &shoot.Spec.Extensions[i]
		if judge, ours := judges[extension.Type]; ours && isEnabled(extension) {
			found, used := judge.judge(shoot, old, i)
			problems = append(problems, found...)
			secrets = append(secrets, used...)
		}
	}
	problems = append(problems, validateContainerRuntimes(shoot, old)...)
	return append(problems, v.validateSecrets(ctx, shoot.Namespace, secrets)...)
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
