// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package control

import (
	"context"
	"errors"
	"fmt"
	"strings"

	gardencorev1beta1 "github.com/gardener/gardener/pkg/apis/core/v1beta1"
	"github.com/gardener/gardener/pkg/extensions"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/gardener/gardener-extension-registry-cache/test/gardener"
)

// extensionType is the extension that the Shoots use.
const extensionType = "registry-cache"

// NewShootNamespace creates in the Seed what gardenlet creates for a Shoot and
// extensions rely on: its namespace, the Secret by which extensions reach the
// Shoot's API server, and the Cluster resource with the Shoot, a CloudProfile
// and a Seed. It returns the namespace's name, which is the Shoot's
// status.technicalID or, when that is empty, made of the Shoot's namespace and
// name as Gardener does. Called again for the same Shoot it updates the Cluster
// resource.
//
// All Shoots of an Environment share its one Shoot API server, so that objects
// of the same name that two of them have there are in each other's way.
func (e *Environment) NewShootNamespace(ctx context.Context, shoot *gardencorev1beta1.Shoot) (string, error) {
	return newShootNamespace(ctx, e.seedClient, e.ShootKubeconfig, shoot)
}

func newShootNamespace(ctx context.Context, seedClient client.Client, shootKubeconfig []byte, shoot *gardencorev1beta1.Shoot) (string, error) {
	name := shoot.Status.TechnicalID
	if name == "" {
		if shoot.Name == "" || shoot.Namespace == "" {
			return "", errors.New("the Shoot has no name or no namespace")
		}
		name = "shoot--" + strings.TrimPrefix(shoot.Namespace, "garden-") + "--" + shoot.Name
	}
	if err := gardener.NewNamespace(ctx, seedClient, name, shootKubeconfig); err != nil {
		return "", err
	}
	if err := gardener.LabelNamespace(ctx, seedClient, name, extensionType, true); err != nil {
		return "", err
	}
	profile := &gardencorev1beta1.CloudProfile{ObjectMeta: metav1.ObjectMeta{Name: "local"}}
	seed := &gardencorev1beta1.Seed{ObjectMeta: metav1.ObjectMeta{Name: "local"}}
	if err := extensions.SyncClusterResourceToSeed(ctx, seedClient, name, shoot, profile, seed); err != nil {
		return "", fmt.Errorf("write Cluster %s in the Seed: %w", name, err)
	}
	return name, nil
}
