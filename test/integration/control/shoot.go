// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package control

import (
	"context"

	gardencorev1beta1 "github.com/gardener/gardener/pkg/apis/core/v1beta1"

	"github.com/gardener/gardener-extension-registry-cache/test/gardener"
)

// NewShootNamespace creates in the Seed what extensions rely on to find of a
// Shoot, see gardener.NewShootNamespace.
//
// All Shoots of an Environment share its one Shoot API server, so that objects
// of the same name that two of them have there are in each other's way.
func (e *Environment) NewShootNamespace(ctx context.Context, shoot *gardencorev1beta1.Shoot) (string, error) {
	return gardener.NewShootNamespace(ctx, e.seedClient, e.ShootKubeconfig, shoot)
}
