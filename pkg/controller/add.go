// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

// Package controller reconciles Extension resources: it reads what a cache is
// made from, has package resources say what its objects look like, writes them
// as ManagedResources and publishes in the Extension's status where containerd
// finds the caches. Of mirrors it only says what is wrong with them. Nodes are
// the business of package webhook.
package controller

import (
	"context"
	"fmt"

	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/predicate"

	"github.com/gardener/gardener/extensions/pkg/controller/extension"
	extensionspredicate "github.com/gardener/gardener/extensions/pkg/predicate"
	extensionsv1alpha1 "github.com/gardener/gardener/pkg/apis/extensions/v1alpha1"
	"github.com/gardener/gardener/pkg/utils/imagevector"

	"github.com/gardener/gardener-extension-registry-cache/pkg/apis/mirror/v1alpha1"
	"github.com/gardener/gardener-extension-registry-cache/pkg/apis/registry/v1alpha3"
)

// Names of the controllers, by which they can be disabled.
const (
	// CacheControllerName is the name of the controller of registry-cache Extensions.
	CacheControllerName = "registry-cache"
	// MirrorControllerName is the name of the controller of registry-mirror Extensions.
	MirrorControllerName = "registry-mirror"
)

// Options configure a controller.
type Options struct {
	// Controller are the options of controller-runtime.
	Controller controller.Options
	// IgnoreOperationAnnotation says whether Extensions are also reconciled when
	// gardenlet did not ask for it.
	IgnoreOperationAnnotation bool
	// ExtensionClasses are the classes of Extensions to be reconciled. Empty:
	// those of Shoots.
	ExtensionClasses []extensionsv1alpha1.ExtensionClass
}

// AddCachesToManager adds the controller of registry-cache Extensions to a
// manager. The image vector has to know the cache server's image.
func AddCachesToManager(ctx context.Context, mgr manager.Manager, images imagevector.ImageVector, options Options) error {
	if len(images) == 0 {
		return fmt.Errorf("add controller %s: no image vector given", CacheControllerName)
	}
	actuator := NewCacheActuator(mgr.GetClient(), mgr.GetAPIReader(), ShootClient, clock.RealClock{}, images)
	return add(ctx, mgr, CacheControllerName, v1alpha3.ExtensionType, actuator, options)
}

// AddMirrorsToManager adds the controller of registry-mirror Extensions to a
// manager.
func AddMirrorsToManager(ctx context.Context, mgr manager.Manager, options Options) error {
	return add(ctx, mgr, MirrorControllerName, v1alpha1.ExtensionType, NewMirrorActuator(mgr.GetClient()), options)
}

// add adds a controller of the Extensions of one type to a manager.
func add(ctx context.Context, mgr manager.Manager, name, extensionType string, actuator extension.Actuator, options Options) error {
	options.Controller.ReconciliationTimeout = reconciliationTimeout
	if err := extension.Add(mgr, extension.AddArgs{
		Actuator:                  actuator,
		Name:                      name,
		FinalizerSuffix:           extensionType,
		Type:                      extensionType,
		ControllerOptions:         options.Controller,
		Predicates:                predicates(ctx, mgr, options.IgnoreOperationAnnotation),
		IgnoreOperationAnnotation: options.IgnoreOperationAnnotation,
		ExtensionClasses:          options.ExtensionClasses,
	}); err != nil {
		return fmt.Errorf("add controller %s: %w", name, err)
	}
	return nil
}

// predicates are Gardener's for extensions. The one that reads the Shoot's Cluster
// comes last, so that what is no reason to reconcile costs no request.
func predicates(ctx context.Context, mgr manager.Manager, ignoreOperationAnnotation bool) []predicate.Predicate {
	return append(extensionspredicate.DefaultControllerPredicates(ignoreOperationAnnotation), extensionspredicate.ShootNotFailedPredicate(ctx, mgr))
}
