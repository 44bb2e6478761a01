// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"fmt"

	"github.com/Masterminds/semver/v3"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	extensionscontroller "github.com/gardener/gardener/extensions/pkg/controller"
	v1beta1helper "github.com/gardener/gardener/pkg/api/core/v1beta1/helper"
	gardencorev1beta1 "github.com/gardener/gardener/pkg/apis/core/v1beta1"
	extensionsv1alpha1 "github.com/gardener/gardener/pkg/apis/extensions/v1alpha1"

	"github.com/gardener/gardener-extension-registry-cache/pkg/apis/registry/v1alpha3"
	"github.com/gardener/gardener-extension-registry-cache/pkg/apis/registry/validation"
	"github.com/gardener/gardener-extension-registry-cache/pkg/imagevector"
	"github.com/gardener/gardener-extension-registry-cache/pkg/resources"
)

// inputs are all that a reconcile reads before it writes.
type inputs struct {
	// caches are the configured caches, decoded with their defaults and valid.
	caches []v1alpha3.RegistryCache
	// fldPath is the field of the Extension that holds the configuration.
	fldPath *field.Path
	// credentials are those of the caches that have some, by upstream.
	credentials map[string]*resources.Credentials
	// image is the image of the cache server.
	image string
	// kubernetesVersion is the version of the Shoot.
	kubernetesVersion *semver.Version
	// verticalPodAutoscaler says whether the Shoot has one.
	verticalPodAutoscaler bool
}

func (a *cacheActuator) readInputs(ctx context.Context, ex *extensionsv1alpha1.Extension, cluster *extensionscontroller.Cluster) (*inputs, error) {
	fldPath := field.NewPath("spec", "providerConfig")
	config, err := decodeConfig(ex, fldPath, v1alpha3.Decode, validation.ValidateRegistryConfig)
	if err != nil {
		return nil, err
	}
	credentials, err := a.readCredentials(ctx, ex.Namespace, config, cluster.Shoot.Spec.Resources, fldPath)
	if err != nil {
		return nil, err
	}
	image, err := imagevector.RegistryCache(a.images)
	if err != nil {
		return nil, err
	}
	kubernetesVersion, err := semver.NewVersion(cluster.Shoot.Spec.Kubernetes.Version)
	if err != nil {
		return nil, fmt.Errorf("parse the Shoot's Kubernetes version %q: %w", cluster.Shoot.Spec.Kubernetes.Version, err)
	}
	return &inputs{
		caches:                config.Caches,
		fldPath:               fldPath,
		credentials:           credentials,
		image:                 image,
		kubernetesVersion:     kubernetesVersion,
		verticalPodAutoscaler: v1beta1helper.ShootWantsVerticalPodAutoscaler(cluster.Shoot),
	}, nil
}

// readCredentials reads the Secrets that the configuration refers to.
func (a *cacheActuator) readCredentials(
	ctx context.Context,
	namespace string,
	config *v1alpha3.RegistryConfig,
	references []gardencorev1beta1.NamedResourceReference,
	fldPath *field.Path,
) (
	map[string]*resources.Credentials,
	error,
) {
	if errs := validation.ValidateSecretReferences(config, references, fldPath); len(errs) > 0 {
		return nil, configurationProblem(errs.ToAggregate())
	}

	credentials := make(map[string]*resources.Credentials)
	for i, cache := range config.Caches {
		if cache.SecretReferenceName == nil {
			continue
		}
		path := fldPath.Child("caches").Index(i).Child("secretReferenceName")
		data, err := readReferencedSecret(ctx, a.client, namespace, references, *cache.SecretReferenceName, path, validation.ValidateSecretData)
		if err != nil {
			return nil, err
		}
		credentials[cache.Upstream] = &resources.Credentials{
			Username: data[corev1.BasicAuthUsernameKey],
			Password: data[corev1.BasicAuthPasswordKey],
		}
	}
	return credentials, nil
}
