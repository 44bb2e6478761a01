// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

// Package controller reconciles Extension resources: it reads what a cache is
// made from, has package resources say what its objects look like, writes them
// as ManagedResources and publishes in the Extension's status where containerd
// finds the caches. Nodes are the business of package webhook.
package controller

import (
	"context"
	"fmt"

	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/manager"

	"github.com/gardener/gardener/extensions/pkg/controller/extension"
	extensionsv1alpha1 "github.com/gardener/gardener/pkg/apis/extensions/v1alpha1"
	"github.com/gardener/gardener/pkg/utils/imagevector"

	"github.com/gardener/gardener-extension-registry-cache/pkg/apis/registry/v1alpha3"
)

// CacheControllerName is the name of the controller of registry-cache Extensions.
const CacheControllerName = "registry-cache"

// Options configure the controllers.
type Options struct {
	// Controller are the options of controller-runtime.
	Controller controller.Options
	// IgnoreOperationAnnotation says whether Extensions are also reconciled when
	// gardenlet did not ask for it.
	IgnoreOperationAnnotation bool
	// ExtensionClasses are the classes of Extensions to be reconciled. Empty:
	// those of Shoots.
	ExtensionClasses []extensionsv1alpha1.ExtensionClass
	// Images is the image vector that knows the cache server's image. Required.
	Images imagevector.ImageVector
}

// AddToManager adds the controllers to a manager.
func AddToManager(ctx context.Context, mgr manager.Manager, options Options) error {
	if len(options.Images) == 0 {
		return fmt.Errorf("add controller %s: no image vector given", CacheControllerName)
	}
	if err := extension.Add(mgr, extension.AddArgs{
		Actuator:                  NewCacheActuator(mgr.GetClient(), mgr.GetAPIReader(), ShootReader, clock.RealClock{}, options.Images),
		Name:                      CacheControllerName,
		FinalizerSuffix:           v1alpha3.ExtensionType,
		Type:                      v1alpha3.ExtensionType,
		ControllerOptions:         options.Controller,
		Predicates:                extension.DefaultPredicates(ctx, mgr, options.IgnoreOperationAnnotation),
		IgnoreOperationAnnotation: options.IgnoreOperationAnnotation,
		ExtensionClasses:          options.ExtensionClasses,
	}); err != nil {
		return fmt.Errorf("add controller %s: %w", CacheControllerName, err)
	}
	return nil
}

// ShootReaderFunc returns a reader of the Services in the Shoot whose control
// plane runs in the given namespace of the Seed.
type ShootReaderFunc func(ctx context.Context, seed client.Client, namespace string) (client.Reader, error)
