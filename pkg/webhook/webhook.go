// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

// Package webhook adds to OperatingSystemConfigs what makes containerd pull
// through the caches and mirrors of a Shoot. It reads what the controller
// published and what is configured, and leaves to package hosts what lands on a
// node.
package webhook

import (
	"fmt"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/manager"

	extensionswebhook "github.com/gardener/gardener/extensions/pkg/webhook"
	extensionsv1alpha1 "github.com/gardener/gardener/pkg/apis/extensions/v1alpha1"

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
// readTimeout, so that the webhook itself decides what to do without its inputs.
const timeoutSeconds = 5

// NewCacheWebhook returns the webhook for the OperatingSystemConfigs of Shoots
// with caches, and perhaps with mirrors.
func NewCacheWebhook(mgr manager.Manager) (*extensionswebhook.Webhook, error) {
	return newWebhook(mgr, CacheName, extensionswebhook.BuildExtensionTypeNamespaceSelector(v1alpha3.ExtensionType, nil))
}

// NewMirrorWebhook returns the webhook for the OperatingSystemConfigs of Shoots
// with mirrors and without caches: no OperatingSystemConfig is sent twice.
func NewMirrorWebhook(mgr manager.Manager) (*extensionswebhook.Webhook, error) {
	selector := extensionswebhook.BuildExtensionTypeNamespaceSelector(v1alpha1.ExtensionType, nil)
	for _, caches := range extensionswebhook.BuildExtensionTypeNamespaceSelector(v1alpha3.ExtensionType, nil).MatchExpressions {
		caches.Operator = metav1.LabelSelectorOpNotIn
		selector.MatchExpressions = append(selector.MatchExpressions, caches)
	}
	return newWebhook(mgr, MirrorName, selector)
}

func newWebhook(mgr manager.Manager, name string, namespaces *metav1.LabelSelector) (*extensionswebhook.Webhook, error) {
	webhook, err := extensionswebhook.New(mgr, extensionswebhook.Args{
		Name:              name,
		Path:              name,
		Target:            extensionswebhook.TargetSeed,
		NamespaceSelector: namespaces,
		Mutators: map[extensionswebhook.Mutator][]extensionswebhook.Type{
			// Not the cached client: gardenlet creates the OperatingSystemConfig
			// right after the Extension's status was written.
			NewMutator(mgr.GetAPIReader(), mgr.GetLogger().WithName(name)): {{Obj: &extensionsv1alpha1.OperatingSystemConfig{}}},
		},
	})
	if err != nil {
		return nil, fmt.Errorf("create webhook %s: %w", name, err)
	}
	// A webhook that is down must not stop a Shoot's reconciliation: nodes pull
	// directly until the next one.
	webhook.FailurePolicy = ptr.To(admissionregistrationv1.Ignore)
	webhook.TimeoutSeconds = ptr.To[int32](timeoutSeconds)
	return webhook, nil
}
