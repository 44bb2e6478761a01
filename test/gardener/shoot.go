// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package gardener

import (
	"context"
	"errors"
	"fmt"
	"strings"

	gardencorev1beta1 "github.com/gardener/gardener/pkg/apis/core/v1beta1"
	v1beta1constants "github.com/gardener/gardener/pkg/apis/core/v1beta1/constants"
	"github.com/gardener/gardener/pkg/controllerutils"
	"github.com/gardener/gardener/pkg/extensions"
	"github.com/gardener/gardener/pkg/utils/secrets"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// extensionLabel is what gardenlet sets on the namespace of a Shoot that uses
// the extension; the selector of our webhook asks for it.
const extensionLabel = "extensions.gardener.cloud/registry-cache"

// NewShootNamespace creates in the Seed what gardenlet creates for a Shoot and
// extensions rely on: its namespace, the Secret with the kubeconfig by which
// extensions reach the Shoot's API server, and the Cluster resource with the
// Shoot, a CloudProfile and a Seed. It returns the namespace's name, which is the Shoot's
// status.technicalID or, when that is empty, made of the Shoot's namespace and
// name as Gardener does. Called again for the same Shoot it updates the Cluster
// resource.
func NewShootNamespace(ctx context.Context, c client.Client, kubeconfig []byte, shoot *gardencorev1beta1.Shoot) (string, error) {
	name := shoot.Status.TechnicalID
	if name == "" {
		if shoot.Name == "" || shoot.Namespace == "" {
			return "", errors.New("the Shoot has no name or no namespace")
		}
		name = "shoot--" + strings.TrimPrefix(shoot.Namespace, "garden-") + "--" + shoot.Name
	}

	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}
	if _, err := controllerutils.GetAndCreateOrMergePatch(ctx, c, namespace, func() error {
		metav1.SetMetaDataLabel(&namespace.ObjectMeta, v1beta1constants.GardenRole, v1beta1constants.GardenRoleShoot)
		metav1.SetMetaDataLabel(&namespace.ObjectMeta, extensionLabel, "true")
		return nil
	}); err != nil {
		return "", fmt.Errorf("create namespace %s in the Seed: %w", name, err)
	}

	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: name, Name: v1beta1constants.SecretNameGardener}}
	if _, err := controllerutils.GetAndCreateOrMergePatch(ctx, c, secret, func() error {
		secret.Data = map[string][]byte{secrets.DataKeyKubeconfig: kubeconfig}
		return nil
	}); err != nil {
		return "", fmt.Errorf("create Secret %s/%s in the Seed: %w", name, secret.Name, err)
	}

	profile := &gardencorev1beta1.CloudProfile{ObjectMeta: metav1.ObjectMeta{Name: "local"}}
	seed := &gardencorev1beta1.Seed{ObjectMeta: metav1.ObjectMeta{Name: "local"}}
	if err := extensions.SyncClusterResourceToSeed(ctx, c, name, shoot, profile, seed); err != nil {
		return "", fmt.Errorf("write Cluster %s in the Seed: %w", name, err)
	}
	return name, nil
}
