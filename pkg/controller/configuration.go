// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"fmt"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"sigs.k8s.io/controller-runtime/pkg/client"

	extensionscontroller "github.com/gardener/gardener/extensions/pkg/controller"
	v1beta1helper "github.com/gardener/gardener/pkg/api/core/v1beta1/helper"
	gardencorev1beta1 "github.com/gardener/gardener/pkg/apis/core/v1beta1"
	extensionsv1alpha1 "github.com/gardener/gardener/pkg/apis/extensions/v1alpha1"

	"github.com/gardener/gardener-extension-registry-cache/pkg/apis/secretref"
)

// readAwakeCluster returns the Cluster of a Shoot, and nil if the Shoot is
// hibernated: then all is left as it is.
func readAwakeCluster(ctx context.Context, log logr.Logger, c client.Client, namespace string) (*extensionscontroller.Cluster, error) {
	cluster, err := extensionscontroller.GetCluster(ctx, c, namespace)
	if err != nil {
		return nil, fmt.Errorf("read Cluster %s: %w", namespace, err)
	}
	if cluster.Shoot == nil {
		return nil, fmt.Errorf("the Cluster %s has no Shoot", namespace)
	}
	if extensionscontroller.IsHibernated(cluster) {
		log.Info("Shoot is hibernated, all is left as it is")
		return nil, nil
	}
	return cluster, nil
}

// isHibernated says whether a Shoot is hibernated, as far as that can be known: the
// Cluster may be gone while what belongs to it is deleted.
func (a *cacheActuator) isHibernated(ctx context.Context, namespace string) bool {
	cluster, err := extensionscontroller.GetCluster(ctx, a.client, namespace)
	return err == nil && cluster.Shoot != nil && extensionscontroller.IsHibernated(cluster)
}

// decodeConfig returns the valid configuration of an Extension. fldPath is the
// field that holds it.
func decodeConfig[C any](
	ex *extensionsv1alpha1.Extension,
	fldPath *field.Path,
	decode func([]byte) (*C, error),
	validate func(*C, *field.Path) field.ErrorList,
) (
	*C,
	error,
) {
	var raw []byte
	if ex.Spec.ProviderConfig != nil {
		raw = ex.Spec.ProviderConfig.Raw
	}
	config, err := decode(raw)
	if err != nil {
		return nil, configurationProblem(fmt.Errorf("%s: %w", fldPath, err))
	}
	if errs := validate(config, fldPath); len(errs) > 0 {
		return nil, configurationProblem(errs.ToAggregate())
	}
	return config, nil
}

// readReferencedSecret returns the valid content of the Secret to which name,
// the value of fldPath, leads by way of references, the Shoot's spec.resources,
// which must have an entry of that name. gardenlet copies such Secrets into the
// Shoot's namespace in the Seed.
func readReferencedSecret(
	ctx context.Context,
	c client.Client,
	namespace string,
	references []gardencorev1beta1.NamedResourceReference,
	name string,
	fldPath *field.Path,
	validate secretref.ValidateDataFunc,
) (
	map[string][]byte,
	error,
) {
	reference := v1beta1helper.GetResourceByName(references, name).ResourceRef
	secret := &corev1.Secret{}
	err := extensionscontroller.GetObjectByReference(ctx, c, &reference, namespace, secret)
	if apierrors.IsNotFound(err) {
		return nil, configurationProblem(fmt.Errorf("%s: Secret %q does not exist: %w", fldPath, reference.Name, err))
	}
	if err != nil {
		return nil, fmt.Errorf("%s: read Secret %q: %w", fldPath, reference.Name, err)
	}
	if errs := validate(secret.Data, fldPath, name, reference.Name); len(errs) > 0 {
		return nil, configurationProblem(errs.ToAggregate())
	}
	return secret.Data, nil
}

// configurationProblem marks an error as one that the Shoot's owner has to
// mend, so that Gardener does not retry it as its own.
func configurationProblem(err error) error {
	return v1beta1helper.NewErrorWithCodes(err, gardencorev1beta1.ErrorConfigurationProblem)
}
