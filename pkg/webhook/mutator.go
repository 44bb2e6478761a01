// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"context"
	"fmt"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/apimachinery/pkg/api/equality"
	"sigs.k8s.io/controller-runtime/pkg/client"

	extensionswebhook "github.com/gardener/gardener/extensions/pkg/webhook"
	extensionsv1alpha1 "github.com/gardener/gardener/pkg/apis/extensions/v1alpha1"
)

// readTimeout bounds what the webhook waits for its inputs.
const readTimeout = 3 * time.Second

// mutator adds the files and the unit of package hosts.
type mutator struct {
	reader client.Reader
	log    logr.Logger
}

// NewMutator returns the mutator of OperatingSystemConfigs. The reader is of the
// Seed.
func NewMutator(reader client.Reader, log logr.Logger) extensionswebhook.Mutator {
	return &mutator{reader: reader, log: log}
}

// Mutate adds what makes a node pull through the Shoot's caches and mirrors. What
// keeps it from knowing them is logged and not returned: it must not stop the
// Shoot's reconciliation. Nodes then keep what they have.
func (m *mutator) Mutate(ctx context.Context, newObj, oldObj client.Object) error {
	osc, ok := newObj.(*extensionsv1alpha1.OperatingSystemConfig)
	if !ok {
		return fmt.Errorf("expected an OperatingSystemConfig but got %T", newObj)
	}
	if osc.Spec.Purpose != extensionsv1alpha1.OperatingSystemConfigPurposeReconcile || osc.DeletionTimestamp != nil {
		return nil
	}
	// A nil pointer in oldObj is what a create request has.
	old, _ := oldObj.(*extensionsv1alpha1.OperatingSystemConfig)
	if old != nil && hasUnit(old) && equality.Semantic.DeepEqual(old.Spec, osc.Spec) {
		return nil
	}

	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	log := m.log.WithValues("operatingSystemConfig", client.ObjectKeyFromObject(osc))
	registries, err := m.readRegistries(ctx, osc.Namespace)
	if err == nil || (len(registries) > 0 && (old == nil || !hasUnit(old))) {
		if err != nil {
			log.Error(err, "Could not read all caches and mirrors, nodes get those that are known")
		}
		err = configure(log, osc, registries)
	}
	if err != nil {
		log.Error(err, "Could not configure the caches and mirrors, nodes keep what they have")
		keep(osc, old)
	}
	return nil
}
