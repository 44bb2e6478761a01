// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/runtime/serializer/json"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/go-logr/logr"

	v1beta1helper "github.com/gardener/gardener/pkg/api/core/v1beta1/helper"
	v1beta1constants "github.com/gardener/gardener/pkg/apis/core/v1beta1/constants"
	resourcesv1alpha1 "github.com/gardener/gardener/pkg/apis/resources/v1alpha1"
	"github.com/gardener/gardener/pkg/client/kubernetes"
	"github.com/gardener/gardener/pkg/utils/kubernetes/health"
	"github.com/gardener/gardener/pkg/utils/managedresources"

	shootv1alpha3 "github.com/gardener/gardener-extension-registry-cache/pkg/apis/shoot/v1alpha3"
	"github.com/gardener/gardener-extension-registry-cache/pkg/resources"
)

const (
	servicesManagedResource = "extension-registry-cache-services"
	cachesManagedResource   = "extension-registry-cache"
	// reportsManagedResource has the RegistryCaches, definitionManagedResource their
	// definition and the right to report. They only show something: nothing waits for
	// them, and what keeps them from the Shoot keeps nothing else from it. They are two
	// because gardener-resource-manager forgets what it has applied of one that it cannot
	// apply as a whole, and RegistryCaches cannot be before they are defined.
	reportsManagedResource    = "extension-registry-cache-reports"
	definitionManagedResource = "extension-registry-cache-definition"

	// origin tells the ManagedResources of this extension from others'.
	origin = "registry-cache"
)

// managedResourceNames are all, in the order in which they go.
var managedResourceNames = []string{reportsManagedResource, definitionManagedResource, cachesManagedResource, servicesManagedResource}

// deployServices deploys the Services of the caches and waits until they are in
// the Shoot: the certificates and the nodes need their addresses. Those that are
// leaving stay, and refuse connections from then on.
func (a *cacheActuator) deployServices(ctx context.Context, namespace string, in *inputs, leaving []corev1.Service) error {
	var objects []client.Object
	for _, cache := range in.caches {
		objects = append(objects, resources.Service(cache, in.kubernetesVersion))
	}
	for _, service := range leaving {
		objects = append(objects, resources.RefusingService(service))
	}
	if err := a.deployManagedResource(ctx, namespace, servicesManagedResource, objects); err != nil {
		return err
	}

	waitCtx, cancel := context.WithTimeout(ctx, managedResourceTimeout)
	defer cancel()
	if err := managedresources.WaitUntilHealthy(waitCtx, a.reader, namespace, servicesManagedResource); err != nil {
		return fmt.Errorf("wait for ManagedResource %s: %w", servicesManagedResource, errors.Join(err, a.unhealthy(ctx, namespace, servicesManagedResource)))
	}
	return nil
}

// unhealthy returns what gardener-resource-manager says is wrong with a
// ManagedResource, for instance that the Shoot's API server does not answer: who
// waits for it in vain is not told. It says nothing if that cannot be read.
func (a *cacheActuator) unhealthy(ctx context.Context, namespace, name string) error {
	// The wait may have used up all the time that there was.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	managedResource := &resourcesv1alpha1.ManagedResource{}
	if err := a.reader.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, managedResource); err != nil {
		return nil
	}
	err := health.CheckManagedResource(managedResource)
	applied := v1beta1helper.GetCondition(managedResource.Status.Conditions, resourcesv1alpha1.ResourcesApplied)
	if err != nil && applied != nil && managedResource.Status.ObservedGeneration != managedResource.Generation {
		// The error says nothing but that.
		return fmt.Errorf("%w, and condition %s is %s: %s", err, applied.Type, applied.Status, applied.Message)
	}
	return err
}

// deployCaches deploys everything of the caches but their Services, and what they report
// their status to.
func (a *cacheActuator) deployCaches(ctx context.Context, log logr.Logger, namespace string, in *inputs, addresses map[string]net.IP, certs *certificates) error {
	objects := []client.Object{resources.NetworkPolicy()}
	var reports, rights []client.Object
	for _, config := range in.caches {
		cache := resources.Cache{
			Config:                config,
			Image:                 in.image,
			Credentials:           in.credentials[config.Upstream],
			Certificate:           certs.servers[config.Upstream],
			Endpoint:              resources.Endpoint(config, addresses[config.Upstream].String()),
			VerticalPodAutoscaler: in.verticalPodAutoscaler,
		}
		cacheObjects, err := cache.Objects()
		if err != nil {
			return err
		}
		objects, reports, rights = append(objects, cacheObjects...), append(reports, cache.RegistryCache()), append(rights, cache.ReportRights()...)
	}
	if err := a.deployManagedResource(ctx, namespace, cachesManagedResource, objects); err != nil {
		return err
	}
	if err := a.deployReports(ctx, namespace, reports, rights); err != nil {
		log.Error(err, "Cannot show the caches in the Shoot")
	}
	return nil
}

func (a *cacheActuator) deployReports(ctx context.Context, namespace string, reports, rights []client.Object) error {
	definition, err := resources.CustomResourceDefinition()
	if err != nil {
		return err
	}
	if err := a.deployManagedResource(ctx, namespace, definitionManagedResource, append([]client.Object{definition}, rights...)); err != nil {
		return err
	}
	return a.deployManagedResource(ctx, namespace, reportsManagedResource, reports)
}

// deleteReports deletes what the caches report to, and waits for that no longer than it
// usually takes: whoever holds it up holds up nothing else.
func (a *cacheActuator) deleteReports(ctx context.Context, log logr.Logger, namespace string) {
	for _, name := range []string{reportsManagedResource, definitionManagedResource} {
		if err := a.deleteManagedResource(ctx, namespace, name, reportsTimeout); err != nil {
			log.Error(err, "RegistryCaches are in the Shoot still")
		}
	}
}

// objectScheme knows the kinds of the objects that are deployed.
var objectScheme = sync.OnceValue(func() *runtime.Scheme {
	scheme := runtime.NewScheme()
	utilruntime.Must(kubernetes.AddShootSchemeToScheme(scheme))
	utilruntime.Must(shootv1alpha3.AddToScheme(scheme))
	return scheme
})

// newObjectRegistry returns what serializes objects for gardener-resource-manager.
func newObjectRegistry() *managedresources.Registry {
	scheme := objectScheme()
	yaml := json.NewSerializerWithOptions(json.DefaultMetaFactory, scheme, scheme, json.SerializerOptions{Yaml: true})
	return managedresources.NewRegistry(scheme, serializer.NewCodecFactory(scheme), yaml)
}

func (a *cacheActuator) deployManagedResource(ctx context.Context, namespace, name string, objects []client.Object) error {
	data, err := newObjectRegistry().AddAllAndSerialize(objects...)
	if err != nil {
		return fmt.Errorf("serialize the objects of ManagedResource %s: %w", name, err)
	}

	secretName, secret := managedresources.NewSecret(a.client, namespace, name, data, true)
	if err := secret.Reconcile(ctx); err != nil {
		return fmt.Errorf("write Secret %s of ManagedResource %s: %w", secretName, name, err)
	}
	if err := managedresources.NewForShoot(a.client, namespace, name, origin, false).
		WithSecretRef(secretName).
		DeletePersistentVolumeClaims(true).
		Reconcile(ctx); err != nil {
		return fmt.Errorf("write ManagedResource %s: %w", name, err)
	}
	return nil
}

// requestManagedResourceReconciliation has gardener-resource-manager look at a
// ManagedResource at once.
func (a *cacheActuator) requestManagedResourceReconciliation(ctx context.Context, namespace, name string) error {
	managedResource := &resourcesv1alpha1.ManagedResource{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
	patch := client.MergeFrom(managedResource.DeepCopy())
	metav1.SetMetaDataAnnotation(&managedResource.ObjectMeta, v1beta1constants.GardenerOperation, v1beta1constants.GardenerOperationReconcile)
	if err := a.client.Patch(ctx, managedResource, patch); err != nil {
		return fmt.Errorf("request the reconciliation of ManagedResource %s: %w", name, err)
	}
	return nil
}

func (a *cacheActuator) keepObjects(ctx context.Context, namespace, name string) error {
	if err := managedresources.SetKeepObjects(ctx, a.client, namespace, name, true); err != nil {
		return fmt.Errorf("keep the objects of ManagedResource %s: %w", name, err)
	}
	return nil
}

// deleteManagedResources deletes the ManagedResources and waits for each until it is
// gone, timeout at most. It is for when nobody asks the caches, or their objects stay.
func (a *cacheActuator) deleteManagedResources(ctx context.Context, namespace string, timeout time.Duration) error {
	for _, name := range managedResourceNames {
		if err := a.deleteManagedResource(ctx, namespace, name, timeout); err != nil {
			return err
		}
	}
	return nil
}

func (a *cacheActuator) deleteManagedResource(ctx context.Context, namespace, name string, timeout time.Duration) error {
	if err := a.requestManagedResourceDeletion(ctx, namespace, name); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	if err := managedresources.WaitUntilDeleted(ctx, a.client, namespace, name); err != nil {
		return fmt.Errorf("wait for the deletion of ManagedResource %s: %w", name, err)
	}
	return nil
}

func (a *cacheActuator) requestManagedResourceDeletion(ctx context.Context, namespace, name string) error {
	if err := managedresources.DeleteForShoot(ctx, a.client, namespace, name); err != nil {
		return fmt.Errorf("delete ManagedResource %s: %w", name, err)
	}
	return nil
}
