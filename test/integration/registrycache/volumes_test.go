// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package registrycache_test

import (
	"context"
	"errors"
	"time"

	"github.com/go-logr/logr"
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	gardencorev1beta1 "github.com/gardener/gardener/pkg/apis/core/v1beta1"
	extensionsv1alpha1 "github.com/gardener/gardener/pkg/apis/extensions/v1alpha1"

	"github.com/gardener/gardener-extension-registry-cache/pkg/apis/registry/v1alpha3"
	"github.com/gardener/gardener-extension-registry-cache/pkg/controller"
	"github.com/gardener/gardener-extension-registry-cache/pkg/imagevector"
)

const (
	growingClass = "growing"
	fixedClass   = "fixed"
)

var _ = Describe("Volumes", Ordered, func() {
	BeforeAll(func(ctx SpecContext) {
		createStorageClass(ctx, growingClass, ptr.To(true))
		createStorageClass(ctx, fixedClass, nil)
	})

	It("grow in place, several times, and no pod is restarted", func(ctx SpecContext) {
		namespace := newShoot(ctx)
		other := cache{"upstream": "ghcr.io"}
		reconcile(ctx, namespace, sized("docker.io", "10Gi", growingClass), other)
		before := awaitStoredObjects(ctx, "registry-docker-io")
		otherBefore := awaitStoredObjects(ctx, "registry-ghcr-io")
		bindClaim(ctx, before.claim)

		for _, size := range []string{"20Gi", "21Gi", "1Ti"} {
			By("growing to " + size)
			reconcile(ctx, namespace, sized("docker.io", size, growingClass), other)

			after := awaitSize(ctx, "registry-docker-io", size)
			Expect(after.claim.UID).To(Equal(before.claim.UID))
			Expect(after.statefulSet.UID).NotTo(Equal(before.statefulSet.UID))
			before.statefulSet = after.statefulSet
			after.expectAdopted(ctx, before.pod)
		}
		Expect(awaitStoredObjects(ctx, "registry-ghcr-io").uids()).To(Equal(otherBefore.uids()))

		By("reconciling again")
		reconcile(ctx, namespace, sized("docker.io", "1Ti", growingClass), other)
		Expect(awaitStoredObjects(ctx, "registry-docker-io").uids()).To(Equal(before.uids()))
	}, SpecTimeout(3*time.Minute))

	It("that are not there yet are made with the new size", func(ctx SpecContext) {
		namespace := newShoot(ctx)
		reconcile(ctx, namespace, sized("docker.io", "10Gi", fixedClass))
		before := awaitStoredObjects(ctx, "registry-docker-io")

		reconcile(ctx, namespace, sized("docker.io", "20Gi", fixedClass))

		expectMadeAnew(ctx, before, "20Gi")
	}, SpecTimeout(2*time.Minute))

	It("that cannot grow are an error of the Shoot's owner that changes nothing", func(ctx SpecContext) {
		namespace := newShoot(ctx)
		reconcile(ctx, namespace, sized("docker.io", "10Gi", fixedClass), sized("ghcr.io", "10Gi", growingClass))
		docker, ghcr := awaitStoredObjects(ctx, "registry-docker-io"), awaitStoredObjects(ctx, "registry-ghcr-io")
		bindClaim(ctx, docker.claim)
		bindClaim(ctx, ghcr.claim)

		extension := awaitExtension(ctx, applyExtension(ctx, namespace,
			sized("docker.io", "20Gi", fixedClass), sized("ghcr.io", "20Gi", growingClass), cache{"upstream": "quay.io"}), gardencorev1beta1.LastOperationStateError)

		Expect(extension.Status.LastError.Description).To(ContainSubstring(
			`spec.providerConfig.caches[0].volume.size: Forbidden: the volume of PersistentVolumeClaim cache-volume-registry-docker-io-0 cannot grow from 10Gi to 20Gi, ` +
				`as its StorageClass "fixed" does not have allowVolumeExpansion: true: set 10Gi again, or remove the cache`))
		Expect(extension.Status.LastError.Codes).To(ConsistOf(gardencorev1beta1.ErrorConfigurationProblem))
		Expect(awaitSize(ctx, "registry-docker-io", "10Gi").uids()).To(Equal(docker.uids()))
		Expect(awaitSize(ctx, "registry-ghcr-io", "10Gi").uids()).To(Equal(ghcr.uids()))
		expectNotInShoot(ctx, &corev1.Service{}, "registry-quay-io")

		By("going back")
		reconcile(ctx, namespace, sized("docker.io", "10Gi", fixedClass), sized("ghcr.io", "20Gi", growingClass))
		Expect(awaitStoredObjects(ctx, "registry-docker-io").uids()).To(Equal(docker.uids()))
		awaitSize(ctx, "registry-ghcr-io", "20Gi").expectAdopted(ctx, ghcr.pod)
	}, SpecTimeout(3*time.Minute))

	DescribeTable("go on growing after an interruption", func(ctx SpecContext, funcs interceptor.Funcs) {
		namespace := newShoot(ctx)
		reconcile(ctx, namespace, sized("docker.io", "10Gi", growingClass), sized("ghcr.io", "10Gi", growingClass))
		docker, ghcr := awaitStoredObjects(ctx, "registry-docker-io"), awaitStoredObjects(ctx, "registry-ghcr-io")
		bindClaim(ctx, docker.claim)
		wanted := []cache{sized("docker.io", "20Gi", growingClass), sized("ghcr.io", "20Gi", growingClass)}

		By("losing the Shoot's API server on the way")
		Expect(reconcileWith(ctx, namespace, funcs, wanted...)).To(MatchError(ContainSubstring(errLost.Error())))

		By("reconciling again")
		reconcile(ctx, namespace, wanted...)
		after := awaitSize(ctx, "registry-docker-io", "20Gi")
		Expect(after.claim.UID).To(Equal(docker.claim.UID))
		after.expectAdopted(ctx, docker.pod)
		expectMadeAnew(ctx, ghcr, "20Gi")
	},
		Entry("before a claim grows", interceptor.Funcs{Patch: losePatch}, SpecTimeout(2*time.Minute)),
		Entry("before a StatefulSet is deleted", interceptor.Funcs{Delete: loseDelete[*appsv1.StatefulSet](false)}, SpecTimeout(2*time.Minute)),
		Entry("after a StatefulSet was deleted", interceptor.Funcs{Delete: loseDelete[*appsv1.StatefulSet](true)}, SpecTimeout(2*time.Minute)),
		Entry("before a claim is deleted", interceptor.Funcs{Delete: loseDelete[*corev1.PersistentVolumeClaim](false)}, SpecTimeout(2*time.Minute)),
		Entry("after a claim was deleted", interceptor.Funcs{Delete: loseDelete[*corev1.PersistentVolumeClaim](true)}, SpecTimeout(2*time.Minute)),
		Entry("before a pod is deleted", interceptor.Funcs{Delete: loseDelete[*corev1.Pod](false)}, SpecTimeout(2*time.Minute)),
		Entry("after a pod was deleted", interceptor.Funcs{Delete: loseDelete[*corev1.Pod](true)}, SpecTimeout(2*time.Minute)),
	)

	It("that are bound while they are to be made anew grow instead", func(ctx SpecContext) {
		namespace := newShoot(ctx)
		reconcile(ctx, namespace, sized("docker.io", "10Gi", growingClass))
		before := awaitStoredObjects(ctx, "registry-docker-io")

		Expect(reconcileWith(ctx, namespace, interceptor.Funcs{
			Delete: func(_ context.Context, c client.WithWatch, object client.Object, options ...client.DeleteOption) error {
				if object.GetUID() == before.claim.UID {
					bindClaim(ctx, before.claim)
				}
				return c.Delete(ctx, object, options...)
			},
		}, sized("docker.io", "20Gi", growingClass))).To(MatchError(ContainSubstring("cache-volume-registry-docker-io-0")))

		reconcile(ctx, namespace, sized("docker.io", "20Gi", growingClass))
		after := awaitSize(ctx, "registry-docker-io", "20Gi")
		Expect(after.claim.UID).To(Equal(before.claim.UID))
		after.expectAdopted(ctx, before.pod)
	}, SpecTimeout(2*time.Minute))
})

var errLost = errors.New("connection lost")

func losePatch(context.Context, client.WithWatch, client.Object, client.Patch, ...client.PatchOption) error {
	return errLost
}

// loseDelete loses the request, or the answer, when an object of a kind is deleted.
func loseDelete[T client.Object](answer bool) func(context.Context, client.WithWatch, client.Object, ...client.DeleteOption) error {
	return func(ctx context.Context, c client.WithWatch, object client.Object, options ...client.DeleteOption) error {
		if _, ok := object.(T); !ok {
			return c.Delete(ctx, object, options...)
		}
		if answer {
			if err := c.Delete(ctx, object, options...); err != nil {
				return err
			}
		}
		return errLost
	}
}

func createStorageClass(ctx context.Context, name string, expansion *bool) {
	GinkgoHelper()
	class := &storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: name}, Provisioner: "provisioner.test", AllowVolumeExpansion: expansion}
	Expect(shoot.Create(ctx, class)).To(Succeed())
	DeferCleanup(deleteStorageClass, class, NodeTimeout(time.Minute))
}

func deleteStorageClass(ctx SpecContext, class *storagev1.StorageClass) {
	GinkgoHelper()
	Expect(shoot.Delete(ctx, class)).To(Succeed())
}

// reconcileWith reconciles an Extension with other caches, without changing it, by a
// client of the Shoot that does something else.
func reconcileWith(ctx context.Context, namespace string, funcs interceptor.Funcs, caches ...cache) error {
	GinkgoHelper()
	return reconcileBy(ctx, namespace, func(context.Context, client.Client, string) (client.Client, func(), error) {
		whole, err := client.NewWithWatch(environment.Shoot, client.Options{Scheme: shoot.Scheme()})
		if err != nil {
			return nil, nil, err
		}
		return interceptor.NewClient(whole, funcs), func() {}, nil
	}, caches...)
}

// reconcileBy does what the extension does with an Extension, in this process and
// without one.
func reconcileBy(ctx context.Context, namespace string, shootClient controller.ShootClientFunc, caches ...cache) error {
	GinkgoHelper()
	images, err := imagevector.Read()
	Expect(err).NotTo(HaveOccurred())
	extension := &extensionsv1alpha1.Extension{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: v1alpha3.ExtensionType}}
	extension.Spec.ProviderConfig = &runtime.RawExtension{Raw: registryConfig(caches)}
	return controller.NewCacheActuator(seed, seed, shootClient, clock.RealClock{}, images).Reconcile(ctx, logr.Discard(), extension)
}

func sized(upstreamHost, size, class string) cache {
	return cache{"upstream": upstreamHost, "volume": map[string]any{"size": size, "storageClassName": class}}
}

// storedObjects are the objects of a cache that hold its content.
type storedObjects struct {
	statefulSet *appsv1.StatefulSet
	pod         *corev1.Pod
	claim       *corev1.PersistentVolumeClaim
}

func awaitStoredObjects(ctx context.Context, name string) storedObjects {
	GinkgoHelper()
	o := storedObjects{statefulSet: &appsv1.StatefulSet{}}
	eventuallyInShoot(ctx, o.statefulSet, name)
	o.pod, o.claim = awaitPodAndClaim(ctx, name)
	return o
}

// awaitSize waits until claims will be made with a size, and expects that the claim
// that is there has it.
func awaitSize(ctx context.Context, name, size string) storedObjects {
	GinkgoHelper()
	wanted := HaveKeyWithValue(corev1.ResourceStorage, resource.MustParse(size))
	Eventually(func(g Gomega) {
		statefulSet := &appsv1.StatefulSet{}
		g.Expect(shoot.Get(ctx, client.ObjectKey{Namespace: metav1.NamespaceSystem, Name: name}, statefulSet)).To(Succeed())
		g.Expect(statefulSet.DeletionTimestamp).To(BeNil())
		g.Expect(statefulSet.Spec.VolumeClaimTemplates[0].Spec.Resources.Requests).To(wanted)
	}).WithContext(ctx).Should(Succeed())
	o := awaitStoredObjects(ctx, name)
	Expect(o.claim.Spec.Resources.Requests).To(wanted)
	return o
}

func (o storedObjects) uids() []types.UID {
	return []types.UID{o.statefulSet.UID, o.pod.UID, o.claim.UID}
}

// expectAdopted expects that the pod of an earlier StatefulSet is that of this one
// now, and has the revision that it wants: it will not be restarted.
func (o storedObjects) expectAdopted(ctx context.Context, pod *corev1.Pod) {
	GinkgoHelper()
	Eventually(func(g Gomega) {
		current, statefulSet := &corev1.Pod{}, &appsv1.StatefulSet{}
		g.Expect(shoot.Get(ctx, client.ObjectKeyFromObject(pod), current)).To(Succeed())
		g.Expect(shoot.Get(ctx, client.ObjectKeyFromObject(o.statefulSet), statefulSet)).To(Succeed())
		g.Expect(current.UID).To(Equal(pod.UID))
		g.Expect(current.DeletionTimestamp).To(BeNil())
		g.Expect(metav1.IsControlledBy(current, statefulSet)).To(BeTrue())
		g.Expect(statefulSet.Status.ObservedGeneration).To(Equal(statefulSet.Generation))
		g.Expect(current.Labels).To(HaveKeyWithValue(appsv1.StatefulSetRevisionLabel, statefulSet.Status.UpdateRevision))
	}).WithContext(ctx).Should(Succeed())
}

// expectMadeAnew expects that a claim that had no volume is replaced by one of
// another size, which a pod of the new StatefulSet gets.
func expectMadeAnew(ctx context.Context, before storedObjects, size string) {
	GinkgoHelper()
	Eventually(func(g Gomega) {
		for _, object := range []client.Object{before.statefulSet.DeepCopy(), before.claim.DeepCopy()} {
			uid := object.GetUID()
			g.Expect(shoot.Get(ctx, client.ObjectKeyFromObject(object), object)).To(Succeed())
			g.Expect(object.GetUID()).NotTo(Equal(uid), "%T", object)
			g.Expect(object.GetDeletionTimestamp()).To(BeNil(), "%T", object)
		}
	}).WithContext(ctx).Should(Succeed())
	after := awaitSize(ctx, before.statefulSet.Name, size)
	after.expectAdopted(ctx, after.pod)
}
