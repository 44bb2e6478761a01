// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package controller_test

import (
	"context"
	"encoding/json"
	"errors"
	"testing"

	"github.com/go-logr/logr"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/gardener/gardener/extensions/pkg/controller/extension"
	gardencorev1beta1 "github.com/gardener/gardener/pkg/apis/core/v1beta1"
	extensionsv1alpha1 "github.com/gardener/gardener/pkg/apis/extensions/v1alpha1"
	resourcesv1alpha1 "github.com/gardener/gardener/pkg/apis/resources/v1alpha1"
	"github.com/gardener/gardener/pkg/client/kubernetes"

	"github.com/gardener/gardener-extension-registry-cache/pkg/controller"
	"github.com/gardener/gardener-extension-registry-cache/pkg/imagevector"
)

// What needs a Shoot's API server is tested in test/integration/registrycache.

const namespace = "shoot--foo--bar"

var managedResourceNames = []string{"extension-registry-cache", "extension-registry-cache-services"}

func TestHibernatedShootIsLeftAlone(t *testing.T) {
	g := NewWithT(t)
	writes := 0
	c := newSeed(g, func(shoot *gardencorev1beta1.Shoot) {
		shoot.Spec.Hibernation = &gardencorev1beta1.Hibernation{Enabled: ptr.To(true)}
		shoot.Status.IsHibernated = true
	}, interceptor.Funcs{
		Create: func(context.Context, client.WithWatch, client.Object, ...client.CreateOption) error {
			writes++
			return nil
		},
		Patch: func(context.Context, client.WithWatch, client.Object, client.Patch, ...client.PatchOption) error {
			writes++
			return nil
		},
	})

	g.Expect(newActuator(g, c).Reconcile(t.Context(), logr.Discard(), newExtension())).To(Succeed())

	g.Expect(writes).To(BeZero())
}

func TestWorkerlessShootGetsNothing(t *testing.T) {
	g := NewWithT(t)
	c := newSeed(g, func(shoot *gardencorev1beta1.Shoot) { shoot.Spec.Provider.Workers = nil }, interceptor.Funcs{})

	g.Expect(newActuator(g, c).Reconcile(t.Context(), logr.Discard(), newExtension())).To(Succeed())

	managedResources := &resourcesv1alpha1.ManagedResourceList{}
	g.Expect(c.List(t.Context(), managedResources)).To(Succeed())
	g.Expect(managedResources.Items).To(BeEmpty())
}

func TestClusterWithoutShootIsAnError(t *testing.T) {
	g := NewWithT(t)
	c := newSeed(g, nil, interceptor.Funcs{})
	cluster := &extensionsv1alpha1.Cluster{}
	g.Expect(c.Get(t.Context(), client.ObjectKey{Name: namespace}, cluster)).To(Succeed())
	cluster.Spec.Shoot.Raw = nil
	g.Expect(c.Update(t.Context(), cluster)).To(Succeed())

	g.Expect(newActuator(g, c).Reconcile(t.Context(), logr.Discard(), newExtension())).To(MatchError("the Cluster shoot--foo--bar has no Shoot"))
	g.Expect(newActuator(g, c).Delete(t.Context(), logr.Discard(), newExtension())).To(Succeed())
}

func TestForceDeleteWaitsForNothing(t *testing.T) {
	g := NewWithT(t)
	c := newSeed(g, nil, interceptor.Funcs{})
	for _, name := range managedResourceNames {
		// Held by a finalizer, as when the Shoot's API server is gone.
		g.Expect(c.Create(t.Context(), &resourcesv1alpha1.ManagedResource{ObjectMeta: metav1.ObjectMeta{
			Namespace: namespace, Name: name, Finalizers: []string{"resources.gardener.cloud/gardener-resource-manager"},
		}})).To(Succeed())
	}

	g.Expect(newActuator(g, c).ForceDelete(t.Context(), logr.Discard(), newExtension())).To(Succeed())

	for _, name := range managedResourceNames {
		managedResource := &resourcesv1alpha1.ManagedResource{}
		g.Expect(c.Get(t.Context(), client.ObjectKey{Namespace: namespace, Name: name}, managedResource)).To(Succeed())
		g.Expect(managedResource.DeletionTimestamp).NotTo(BeNil())
	}
}

func TestMigrateKeepsObjectsAndCertificates(t *testing.T) {
	g := NewWithT(t)
	kept := make(map[string]bool)
	c := newSeed(g, nil, interceptor.Funcs{
		Delete: func(ctx context.Context, c client.WithWatch, object client.Object, options ...client.DeleteOption) error {
			if managedResource, ok := object.(*resourcesv1alpha1.ManagedResource); ok {
				if err := c.Get(ctx, client.ObjectKeyFromObject(object), managedResource); err != nil {
					return err
				}
				kept[managedResource.Name] = ptr.Deref(managedResource.Spec.KeepObjects, false)
			}
			return c.Delete(ctx, object, options...)
		},
	})
	ca := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "ca", Labels: map[string]string{
		"managed-by": "secrets-manager", "manager-identity": "extension-registry-cache",
	}}}
	g.Expect(c.Create(t.Context(), ca)).To(Succeed())
	for _, name := range managedResourceNames {
		g.Expect(c.Create(t.Context(), &resourcesv1alpha1.ManagedResource{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}})).To(Succeed())
	}

	g.Expect(newActuator(g, c).Migrate(t.Context(), logr.Discard(), newExtension())).To(Succeed())

	g.Expect(kept).To(Equal(map[string]bool{managedResourceNames[0]: true, managedResourceNames[1]: true}))
	g.Expect(c.Get(t.Context(), client.ObjectKeyFromObject(ca), ca)).To(Succeed())
}

func TestDeleteRemovesCertificates(t *testing.T) {
	g := NewWithT(t)
	c := newSeed(g, nil, interceptor.Funcs{})
	ours := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "ours", Labels: map[string]string{
		"managed-by": "secrets-manager", "manager-identity": "extension-registry-cache",
	}}}
	gardenlets := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "gardenlets", Labels: map[string]string{
		"managed-by": "secrets-manager", "manager-identity": "gardenlet",
	}}}
	g.Expect(c.Create(t.Context(), ours)).To(Succeed())
	g.Expect(c.Create(t.Context(), gardenlets)).To(Succeed())

	g.Expect(newActuator(g, c).Delete(t.Context(), logr.Discard(), newExtension())).To(Succeed())

	g.Expect(c.Get(t.Context(), client.ObjectKeyFromObject(ours), ours)).To(Satisfy(apierrors.IsNotFound))
	g.Expect(c.Get(t.Context(), client.ObjectKeyFromObject(gardenlets), gardenlets)).To(Succeed())
}

func TestAddCachesToManagerWantsAnImageVector(t *testing.T) {
	g := NewWithT(t)
	g.Expect(controller.AddCachesToManager(t.Context(), nil, nil, controller.Options{})).To(MatchError(ContainSubstring("no image vector")))
}

func newSeed(g *WithT, change func(*gardencorev1beta1.Shoot), funcs interceptor.Funcs) client.WithWatch {
	shoot := &gardencorev1beta1.Shoot{TypeMeta: metav1.TypeMeta{APIVersion: gardencorev1beta1.SchemeGroupVersion.String(), Kind: "Shoot"}}
	shoot.Spec.Provider.Workers = []gardencorev1beta1.Worker{{Name: "pool"}}
	if change != nil {
		change(shoot)
	}
	raw, err := json.Marshal(shoot)
	g.Expect(err).NotTo(HaveOccurred())
	return fake.NewClientBuilder().WithScheme(kubernetes.SeedScheme).WithInterceptorFuncs(funcs).WithObjects(&extensionsv1alpha1.Cluster{
		ObjectMeta: metav1.ObjectMeta{Name: namespace},
		Spec:       extensionsv1alpha1.ClusterSpec{Shoot: runtime.RawExtension{Raw: raw}},
	}).Build()
}

func newActuator(g *WithT, c client.Client) extension.Actuator {
	images, err := imagevector.Read()
	g.Expect(err).NotTo(HaveOccurred())
	noShoot := func(context.Context, client.Client, string) (client.Client, func(), error) {
		return nil, nil, errors.New("there is no Shoot in this test")
	}
	return controller.NewCacheActuator(c, c, noShoot, clock.RealClock{}, images)
}

func newExtension() *extensionsv1alpha1.Extension {
	return &extensionsv1alpha1.Extension{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "registry-cache"},
		Spec: extensionsv1alpha1.ExtensionSpec{DefaultSpec: extensionsv1alpha1.DefaultSpec{
			Type: "registry-cache",
			ProviderConfig: &runtime.RawExtension{
				Raw: []byte(`{"apiVersion":"registry.extensions.gardener.cloud/v1alpha3","kind":"RegistryConfig","caches":[{"upstream":"docker.io"}]}`),
			},
		}},
	}
}
