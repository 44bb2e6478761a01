// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

// Package admission refuses Shoots whose caches or mirrors are wrongly
// configured, in the garden cluster, where the user types them. Which value is
// wrong, and what to do about it, is the business of the packages
// apis/*/validation: this one decides when they are asked, reads the Secrets for
// them, and answers.
package admission

import (
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	extensionswebhook "github.com/gardener/gardener/extensions/pkg/webhook"
	"github.com/gardener/gardener/pkg/apis/core"
	v1beta1constants "github.com/gardener/gardener/pkg/apis/core/v1beta1/constants"

	"github.com/gardener/gardener-extension-registry-cache/pkg/apis/mirror/v1alpha1"
	"github.com/gardener/gardener-extension-registry-cache/pkg/apis/registry/v1alpha3"
)

// CacheName and MirrorName are the names of the webhooks, in their configuration
// and in the flag that disables them.
const (
	CacheName  = v1alpha3.ExtensionType
	MirrorName = v1alpha1.ExtensionType
)

// timeoutSeconds bounds what an API server waits for the webhook. It exceeds
// readTimeout, so that it is the webhook that says which Secret it waits for.
const timeoutSeconds = 8

// NewCacheWebhook returns the webhook for Shoots with caches, and perhaps with
// mirrors.
func NewCacheWebhook(mgr manager.Manager) (*extensionswebhook.Webhook, error) {
	return newWebhook(mgr, CacheName, uses(v1alpha3.ExtensionType, metav1.LabelSelectorOpIn)), nil
}

// NewMirrorWebhook returns the webhook for Shoots with mirrors and without
// caches. A label selector cannot say "or", and an API server passes on one
// webhook's answer only: so each Shoot goes to one of the two, which judges all
// of it.
func NewMirrorWebhook(mgr manager.Manager) (*extensionswebhook.Webhook, error) {
	return newWebhook(mgr, MirrorName,
		uses(v1alpha1.ExtensionType, metav1.LabelSelectorOpIn), uses(v1alpha3.ExtensionType, metav1.LabelSelectorOpNotIn)), nil
}

// newWebhook does without extensionswebhook.New: the handler that it builds
// answers every refusal as Forbidden and in one line, so that kubectl cannot
// list the problems, nor a client tell a mistake from a failure.
func newWebhook(mgr manager.Manager, name string, selected ...metav1.LabelSelectorRequirement) *extensionswebhook.Webhook {
	return &extensionswebhook.Webhook{
		Action:         extensionswebhook.ActionValidating,
		Name:           name,
		Path:           "/webhooks/" + name,
		Target:         extensionswebhook.TargetSeed,
		ObjectSelector: &metav1.LabelSelector{MatchExpressions: selected},
		// The internal type stands for all versions in which Shoots are served.
		Types: []extensionswebhook.Type{{Obj: &core.Shoot{}}},
		Webhook: &admission.Webhook{
			Handler:      NewValidator(mgr.GetAPIReader()),
			RecoverPanic: ptr.To(true),
		},
		FailurePolicy:  ptr.To(admissionregistrationv1.Fail),
		TimeoutSeconds: ptr.To[int32](timeoutSeconds),
	}
}

// uses selects by the label that Gardener keeps on Shoots that use an extension.
func uses(extensionType string, operator metav1.LabelSelectorOperator) metav1.LabelSelectorRequirement {
	return metav1.LabelSelectorRequirement{
		Key:      v1beta1constants.LabelExtensionExtensionTypePrefix + extensionType,
		Operator: operator,
		Values:   []string{"true"},
	}
}
