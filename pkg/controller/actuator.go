// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"fmt"
	"time"

	"github.com/go-logr/logr"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"

	extensionscontroller "github.com/gardener/gardener/extensions/pkg/controller"
	"github.com/gardener/gardener/extensions/pkg/controller/extension"
	v1beta1helper "github.com/gardener/gardener/pkg/api/core/v1beta1/helper"
	extensionsv1alpha1 "github.com/gardener/gardener/pkg/apis/extensions/v1alpha1"
	resourcesv1alpha1 "github.com/gardener/gardener/pkg/apis/resources/v1alpha1"
	"github.com/gardener/gardener/pkg/utils/imagevector"
)

// managedResourceTimeout is how long a reconcile or a deletion waits for
// gardener-resource-manager before it fails and is tried again.
const managedResourceTimeout = 2 * time.Minute

// hibernatedTimeout is how long a deletion waits where that is most likely in vain:
// gardener-resource-manager of a hibernated Shoot does not run.
const hibernatedTimeout = 10 * time.Second

// reportsTimeout is how long a deletion waits for what only shows the caches.
const reportsTimeout = 10 * time.Second

// operationTimeout is how long any operation takes at most. It ends before that which
// controller-runtime sets, reconciliationTimeout: after it there is no time left to
// write into the Extension's status what was wrong.
const (
	operationTimeout      = 3 * time.Minute
	reconciliationTimeout = operationTimeout + 30*time.Second
)

// cacheActuator deploys the caches of registry-cache Extensions.
type cacheActuator struct {
	client      client.Client
	reader      client.Reader
	shootClient ShootClientFunc
	clock       clock.Clock
	images      imagevector.ImageVector
}

// NewCacheActuator returns the actuator of registry-cache Extensions. Client and
// reader are of the Seed; the reader must not read from a cache, for it watches
// the progress of what the client wrote.
func NewCacheActuator(c client.Client, reader client.Reader, shootClient ShootClientFunc, clock clock.Clock, images imagevector.ImageVector) extension.Actuator {
	return &cacheActuator{client: c, reader: reader, shootClient: shootClient, clock: clock, images: images}
}

// Reconcile deploys the caches of a Shoot. Everything that can be wrong with
// the configuration is found before anything is written, so that a mistake
// leaves what is deployed as it is. It waits for no pod: a new Shoot has no node
// before its Extensions are ready.
func (a *cacheActuator) Reconcile(ctx context.Context, log logr.Logger, ex *extensionsv1alpha1.Extension) error {
	ctx, cancel := context.WithTimeout(ctx, operationTimeout)
	defer cancel()
	cluster, err := readAwakeCluster(ctx, log, a.client, ex.Namespace)
	if err != nil || cluster == nil {
		return err
	}

	if v1beta1helper.IsWorkerless(cluster.Shoot) {
		log.Info("Shoot has no workers that could pull, nothing is deployed")
		return nil
	}

	inputs, err := a.readInputs(ctx, ex, cluster)
	if err != nil {
		return err
	}
	shoot, release, err := a.shootClient(ctx, a.client, ex.Namespace)
	if err != nil {
		return err
	}
	defer release()
	volumes, err := readVolumes(ctx, shoot, inputs)
	if err != nil {
		return err
	}
	if err := volumes.deleteForgotten(ctx, log, ex, inputs.caches); err != nil {
		return err
	}
	services, err := a.deployAddresses(ctx, log, ex.Namespace, shoot, inputs)
	if err != nil {
		return err
	}
	certificates, err := a.generateCertificates(ctx, log, cluster, inputs, services.addresses)
	if err != nil {
		return err
	}
	if err := volumes.growClaims(ctx, log); err != nil {
		return err
	}
	if err := a.deployCaches(ctx, log, ex.Namespace, inputs, services.addresses, certificates); err != nil {
		return err
	}
	if err := a.replaceSmall(ctx, log, ex.Namespace, volumes); err != nil {
		return err
	}
	a.reconcileMonitoring(ctx, log, ex.Namespace, cluster.Shoot, inputs)
	if err := a.updateStatus(ctx, ex, inputs, services.addresses, certificates); err != nil {
		return err
	}
	if err := certificates.cleanup(ctx); err != nil {
		return err
	}
	return services.removeLeaving(ctx)
}

// Delete removes the caches of a Shoot with their volumes, and waits until they
// are gone. In a hibernated Shoot they go when it wakes up. Nobody is alerted of that.
func (a *cacheActuator) Delete(ctx context.Context, log logr.Logger, ex *extensionsv1alpha1.Extension) error {
	ctx, cancel := context.WithTimeout(ctx, operationTimeout)
	defer cancel()
	if err := a.deleteMonitoring(ctx, ex.Namespace); err != nil {
		return err
	}
	if err := a.deleteNotDeployed(ctx, log, ex); err != nil {
		return err
	}
	if a.isHibernated(ctx, ex.Namespace) {
		if err := a.deleteManagedResources(ctx, ex.Namespace, hibernatedTimeout); err != nil {
			return fmt.Errorf("the Shoot is hibernated, its caches are deleted when it wakes up: %w", err)
		}
		return a.deleteCertificates(ctx, log, ex.Namespace)
	}
	a.deleteReports(ctx, log, ex.Namespace)
	if err := a.deleteManagedResource(ctx, ex.Namespace, cachesManagedResource, managedResourceTimeout); err != nil {
		return err
	}
	if err := a.awaitNodesOfDeleted(ctx, log, ex.Namespace); err != nil {
		return err
	}
	if err := a.deleteManagedResource(ctx, ex.Namespace, servicesManagedResource, managedResourceTimeout); err != nil {
		return err
	}
	return a.deleteCertificates(ctx, log, ex.Namespace)
}

// awaitNodesOfDeleted returns when nodes have withdrawn the caches of a Shoot, whose
// pods have just gone and whose Services are the next to go.
func (a *cacheActuator) awaitNodesOfDeleted(ctx context.Context, log logr.Logger, namespace string) error {
	err := a.client.Get(ctx, client.ObjectKey{Namespace: namespace, Name: servicesManagedResource}, &resourcesv1alpha1.ManagedResource{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read ManagedResource %s: %w", servicesManagedResource, err)
	}
	since := a.clock.Now()
	shoot, release, err := a.shootClient(ctx, a.client, namespace)
	if err != nil {
		log.Error(err, "Cannot find out whether the Shoot has nodes")
		return a.awaitWithdrawal(ctx, log, since)
	}
	defer release()
	return a.awaitNodes(ctx, log, shoot, since)
}

// ForceDelete removes the caches of a Shoot and waits for nothing: the Shoot's
// API server may be gone.
func (a *cacheActuator) ForceDelete(ctx context.Context, log logr.Logger, ex *extensionsv1alpha1.Extension) error {
	if err := a.deleteMonitoring(ctx, ex.Namespace); err != nil {
		return err
	}
	for _, name := range managedResourceNames {
		if err := a.requestManagedResourceDeletion(ctx, ex.Namespace, name); err != nil {
			return err
		}
	}
	return a.deleteCertificates(ctx, log, ex.Namespace)
}

// Migrate hands the caches over to another Seed: their objects stay in the
// Shoot. The certificate authority stays too, for gardenlet to take it along
// with the Shoot's state; it goes with the namespace.
func (a *cacheActuator) Migrate(ctx context.Context, _ logr.Logger, ex *extensionsv1alpha1.Extension) error {
	ctx, cancel := context.WithTimeout(ctx, operationTimeout)
	defer cancel()
	if err := a.deleteMonitoring(ctx, ex.Namespace); err != nil {
		return err
	}
	for _, name := range managedResourceNames {
		if err := a.keepObjects(ctx, ex.Namespace, name); err != nil {
			return err
		}
	}
	return a.deleteManagedResources(ctx, ex.Namespace, managedResourceTimeout)
}

// Restore deploys the caches from another Seed: their objects are in the Shoot
// still, and the certificate authority came with the Shoot's state. If the Shoot is
// hibernated that waits until it wakes up.
func (a *cacheActuator) Restore(ctx context.Context, log logr.Logger, ex *extensionsv1alpha1.Extension) error {
	cluster, err := extensionscontroller.GetCluster(ctx, a.client, ex.Namespace)
	if err != nil {
		return fmt.Errorf("read Cluster %s: %w", ex.Namespace, err)
	}
	if cluster.Shoot == nil || !v1beta1helper.IsWorkerless(cluster.Shoot) {
		if err := a.rememberRestoration(ctx, ex); err != nil {
			return err
		}
	}
	return a.Reconcile(ctx, log, ex)
}
