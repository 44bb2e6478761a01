// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

// Package webhook adds to OperatingSystemConfigs what makes containerd pull
// through the caches of a Shoot. It reads what the controller published and
// leaves to package hosts what lands on a node.
package webhook

import (
	"fmt"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/manager"

	extensionswebhook "github.com/gardener/gardener/extensions/pkg/webhook"
	extensionsv1alpha1 "github.com/gardener/gardener/pkg/apis/extensions/v1alpha1"

	"github.com/gardener/gardener-extension-registry-cache/pkg/apis/registry/v1alpha3"
)

// Name is the name of the webhook, in its configuration and in the flag that
// disables it.
const Name = "registry-hosts"

// timeoutSeconds bounds what an API server waits for the webhook. It exceeds
// readTimeout, so that the webhook itself decides what to do without its inputs.
const timeoutSeconds = 5

// New returns the webhook for the OperatingSystemConfigs of Shoots with caches.
func New(mgr manager.Manager) (*extensionswebhook.Webhook, error) {
	webhook, err := extensionswebhook.New(mgr, extensionswebhook.Args{
		Name:              Name,
		Path:              Name,
		Target:            extensionswebhook.TargetSeed,
		NamespaceSelector: extensionswebhook.BuildExtensionTypeNamespaceSelector(v1alpha3.ExtensionType, nil),
		Mutators: map[extensionswebhook.Mutator][]extensionswebhook.Type{
			// Not the cached client: gardenlet creates the OperatingSystemConfig
			// right after the Extension's status was written.
			NewMutator(mgr.GetAPIReader(), mgr.GetLogger().WithName(Name)): {{Obj: &extensionsv1alpha1.OperatingSystemConfig{}}},
		},
	})
	if err != nil {
		return nil, fmt.Errorf("create webhook %s: %w", Name, err)
	}
	// A webhook that is down must not stop a Shoot's reconciliation: nodes pull
	// directly until the next one.
	webhook.FailurePolicy = ptr.To(admissionregistrationv1.Ignore)
	webhook.TimeoutSeconds = ptr.To[int32](timeoutSeconds)
	return webhook, nil
}
