// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"errors"

	"github.com/go-logr/logr"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/gardener/gardener/extensions/pkg/controller/extension"
	v1beta1helper "github.com/gardener/gardener/pkg/api/core/v1beta1/helper"
	gardencorev1beta1 "github.com/gardener/gardener/pkg/apis/core/v1beta1"
	extensionsv1alpha1 "github.com/gardener/gardener/pkg/apis/extensions/v1alpha1"

	"github.com/gardener/gardener-extension-registry-cache/pkg/apis/mirror/v1alpha1"
	"github.com/gardener/gardener-extension-registry-cache/pkg/apis/mirror/validation"
)

// mirrorActuator tells the owner of a Shoot what is wrong with the mirrors. It
// writes nothing: nodes are the business of package webhook.
type mirrorActuator struct {
	client client.Client
}

// NewMirrorActuator returns the actuator of registry-mirror Extensions. The
// client is of the Seed.
func NewMirrorActuator(c client.Client) extension.Actuator {
	return &mirrorActuator{client: c}
}

// Reconcile checks the mirrors of a Shoot and the Secrets with their CA bundles.
func (a *mirrorActuator) Reconcile(ctx context.Context, log logr.Logger, ex *extensionsv1alpha1.Extension) error {
	cluster, err := readAwakeCluster(ctx, log, a.client, ex.Namespace)
	if err != nil || cluster == nil {
		return err
	}
	if v1beta1helper.IsWorkerless(cluster.Shoot) {
		log.Info("Shoot has no workers that could pull, nothing is checked")
		return nil
	}
	fldPath := field.NewPath("spec", "providerConfig")
	config, err := decodeConfig(ex, fldPath, v1alpha1.Decode, validation.ValidateMirrorConfig)
	if err != nil {
		return err
	}
	return a.checkCABundles(ctx, ex.Namespace, config, cluster.Shoot.Spec.Resources, fldPath)
}

func (a *mirrorActuator) checkCABundles(
	ctx context.Context,
	namespace string,
	config *v1alpha1.MirrorConfig,
	references []gardencorev1beta1.NamedResourceReference,
	fldPath *field.Path,
) error {
	if errs := validation.ValidateSecretReferences(config, references, fldPath); len(errs) > 0 {
		return configurationProblem(errs.ToAggregate())
	}
	var errs []error
	for i, mirror := range config.Mirrors {
		for j, host := range mirror.Hosts {
			if name := host.CABundleSecretReferenceName; name != nil {
				path := fldPath.Child("mirrors").Index(i).Child("hosts").Index(j).Child("caBundleSecretReferenceName")
				_, err := readReferencedSecret(ctx, a.client, namespace, references, *name, path, validation.ValidateSecretData)
				errs = append(errs, err)
			}
		}
	}
	return errors.Join(errs...)
}

// Delete has nothing to do: nothing was written.
func (a *mirrorActuator) Delete(context.Context, logr.Logger, *extensionsv1alpha1.Extension) error {
	return nil
}

// ForceDelete has nothing to do: nothing was written.
func (a *mirrorActuator) ForceDelete(context.Context, logr.Logger, *extensionsv1alpha1.Extension) error {
	return nil
}

// Migrate has nothing to do: nothing was written.
func (a *mirrorActuator) Migrate(context.Context, logr.Logger, *extensionsv1alpha1.Extension) error {
	return nil
}

// Restore checks the mirrors from another Seed.
func (a *mirrorActuator) Restore(ctx context.Context, log logr.Logger, ex *extensionsv1alpha1.Extension) error {
	return a.Reconcile(ctx, log, ex)
}
