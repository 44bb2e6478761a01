// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package registrycache_test

import (
	"context"
	"encoding/json"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	extensionscontroller "github.com/gardener/gardener/extensions/pkg/controller"
	gardencorev1beta1 "github.com/gardener/gardener/pkg/apis/core/v1beta1"
	v1beta1constants "github.com/gardener/gardener/pkg/apis/core/v1beta1/constants"
	extensionsv1alpha1 "github.com/gardener/gardener/pkg/apis/extensions/v1alpha1"
	resourcesv1alpha1 "github.com/gardener/gardener/pkg/apis/resources/v1alpha1"
	"github.com/gardener/gardener/pkg/client/kubernetes"
	"github.com/gardener/gardener/pkg/utils/gardener/shootstate"

	"github.com/gardener/gardener-extension-registry-cache/pkg/apis/registry/v1alpha3"
	"github.com/gardener/gardener-extension-registry-cache/pkg/upstream"
	"github.com/gardener/gardener-extension-registry-cache/test/gardener"
)

var _ = Describe("Control plane migration", func() {
	It("leaves the caches running and trusted, with their objects", func(ctx SpecContext) {
		source := startUpstream("", "")
		name := upstream.ResourceName(source.Host())
		namespace := newShoot(ctx)
		reconcile(ctx, namespace, cache{"upstream": source.Host(), "remoteURL": source.URL()})
		image := pushImage(source, "library/app", "v1")
		cachePod := startPod(ctx, name)
		osc := eventuallyMutated(ctx, newOperatingSystemConfig(namespace, "pool-a"))
		node := newNode(osc)
		node.start(osc)
		Eventually(node.hostsTOML).WithArguments(source.Host()).Should(BeAnExistingFile())
		node.expectPull(ctx, source, "before the migration", "library/app:v1", image)
		cachePod.awaitStored()

		unchanged := expectUnchanged(ctx, name)
		issued := readTrust(ctx, namespace, name)
		bundle, err := publishedBundle(ctx, seed, namespace)
		Expect(err).NotTo(HaveOccurred())
		// Nodes keep what they have throughout.
		observer := observeHandshakes(ctx, cachePod, time.Now, func(context.Context) ([]byte, error) { return bundle, nil })

		By("starting another Seed")
		destinationSeed, err := environment.StartSeed(ctx, "destination-seed")
		Expect(err).NotTo(HaveOccurred())
		DeferCleanup(destinationSeed.Stop)
		destination, err := client.New(destinationSeed.Config, client.Options{Scheme: kubernetes.SeedScheme})
		Expect(err).NotTo(HaveOccurred())
		startExtension(ctx, destination, destinationSeed.AddUser)

		By("migrating")
		config := migrateExtension(ctx, namespace)
		list := &resourcesv1alpha1.ManagedResourceList{}
		Expect(seed.List(ctx, list, client.InNamespace(namespace))).To(Succeed())
		Expect(list.Items).To(BeEmpty())
		unchanged(cachePod)
		observer.await(HaveField("SerialNumber", issued.server.SerialNumber))
		Expect(node.expectPull(ctx, source, "migrated, not restored", "library/app:v1", image).Blobs).To(BeZero())
		cluster, err := extensionscontroller.GetCluster(ctx, seed, namespace)
		Expect(err).NotTo(HaveOccurred())
		state := shootState(ctx, cluster.Shoot, namespace)
		deleteNamespaceContent(ctx, namespace)

		By("restoring")
		cluster.Shoot.Status.TechnicalID = namespace
		Expect(destinationSeed.NewShootNamespace(ctx, cluster.Shoot)).To(Equal(namespace))
		DeferCleanup(func(ctx SpecContext) {
			Expect(gardener.DeleteExtension(ctx, destination, namespace, v1alpha3.ExtensionType)).To(Succeed())
		}, NodeTimeout(2*time.Minute))
		restoreSecrets(ctx, destination, namespace, state)
		restoreExtension(ctx, destination, namespace, config)

		restored := readTrustIn(ctx, destination, namespace, name)
		Expect(restored.authorities).To(Equal(issued.authorities))
		restoredOSC := eventuallyMutatedIn(ctx, destination, newOperatingSystemConfig(namespace, "pool-a"))
		Expect(restoredOSC.Spec).To(Equal(osc.Spec), "nodes have nothing to do")
		unchanged(cachePod)

		By("having the pod serve with the certificate of the other Seed")
		eventuallyServedInShoot(ctx, name, restored.server)
		cachePod.syncSecret(ctx, name+"-tls")
		observer.await(HaveField("SerialNumber", restored.server.SerialNumber))
		Expect(node.expectPull(ctx, source, "restored", "library/app:v1", image).Blobs).To(BeZero())
		Expect(observer.stop()).To(BeEmpty())
		unchanged(cachePod)
	}, SpecTimeout(4*time.Minute))
})

// migrateExtension does what gardenlet does with the Extension of a Shoot whose
// control plane leaves the Seed, and returns its configuration.
func migrateExtension(ctx context.Context, namespace string) *extensionsv1alpha1.ExtensionSpec {
	GinkgoHelper()
	extension := &extensionsv1alpha1.Extension{}
	Expect(seed.Get(ctx, client.ObjectKey{Namespace: namespace, Name: v1alpha3.ExtensionType}, extension)).To(Succeed())
	Expect(gardener.RequestOperation(ctx, seed, extension, v1beta1constants.GardenerOperationMigrate)).To(Succeed())
	awaitOperation(ctx, seed, extension, Equal(gardencorev1beta1.LastOperationTypeMigrate))
	// What holds the Extension is gone: it is deleted without another deletion in
	// the Shoot.
	Eventually(func() ([]string, error) {
		err := seed.Get(ctx, client.ObjectKeyFromObject(extension), extension)
		return extension.Finalizers, err
	}).WithContext(ctx).Should(BeEmpty())
	Expect(gardener.DeleteExtension(ctx, seed, namespace, v1alpha3.ExtensionType)).To(Succeed())
	return &extension.Spec
}

// restoreExtension does what gardenlet does with the Extension of a Shoot whose
// control plane comes to a Seed.
func restoreExtension(ctx context.Context, c client.Client, namespace string, spec *extensionsv1alpha1.ExtensionSpec) {
	GinkgoHelper()
	extension := &extensionsv1alpha1.Extension{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: v1alpha3.ExtensionType}, Spec: *spec}
	metav1.SetMetaDataAnnotation(&extension.ObjectMeta, v1beta1constants.GardenerOperation, v1beta1constants.GardenerOperationWaitForState)
	Expect(c.Create(ctx, extension)).To(Succeed())
	Expect(gardener.RequestOperation(ctx, c, extension, v1beta1constants.GardenerOperationRestore)).To(Succeed())
	// The controller may look again at once, at the Extension without the annotation.
	awaitOperation(ctx, c, extension, BeElementOf(gardencorev1beta1.LastOperationTypeRestore, gardencorev1beta1.LastOperationTypeReconcile))
}

// awaitOperation waits as gardenlet does for the end of migration or restoration,
// when the annotation that asked for it goes.
func awaitOperation(ctx context.Context, c client.Client, extension *extensionsv1alpha1.Extension, operation OmegaMatcher) {
	GinkgoHelper()
	Eventually(func(g Gomega) {
		g.Expect(c.Get(ctx, client.ObjectKeyFromObject(extension), extension)).To(Succeed())
		g.Expect(extension.Status.LastOperation).To(HaveValue(And(
			HaveField("Type", operation), HaveField("State", gardencorev1beta1.LastOperationStateSucceeded))), "%+v", extension.Status.LastError)
		g.Expect(extension.Annotations).NotTo(HaveKey(v1beta1constants.GardenerOperation))
	}).WithContext(ctx).WithTimeout(2 * time.Minute).Should(Succeed())
}

// shootState returns what gardenlet takes along of a Shoot's namespace in the Seed.
func shootState(ctx context.Context, shootObject *gardencorev1beta1.Shoot, namespace string) *gardencorev1beta1.ShootState {
	GinkgoHelper()
	garden := fake.NewClientBuilder().WithScheme(kubernetes.GardenScheme).Build()
	Expect(shootstate.Deploy(ctx, clock.RealClock{}, garden, seed, shootObject, namespace, true)).To(Succeed())
	state := &gardencorev1beta1.ShootState{}
	Expect(garden.Get(ctx, client.ObjectKeyFromObject(shootObject), state)).To(Succeed())
	return state
}

// restoreSecrets creates the Secrets of a ShootState as gardenlet does.
func restoreSecrets(ctx context.Context, c client.Client, namespace string, state *gardencorev1beta1.ShootState) {
	GinkgoHelper()
	for _, data := range state.Spec.Gardener {
		Expect(data.Type).To(Equal(v1beta1constants.DataTypeSecret))
		content := &shootstate.SecretState{}
		Expect(json.Unmarshal(data.Data.Raw, content)).To(Succeed())
		Expect(c.Create(ctx, &corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: data.Name, Labels: data.Labels},
			Type:       content.Type, Data: content.Data, Immutable: content.Immutable,
		})).To(Succeed())
	}
}

// deleteNamespaceContent deletes what a Shoot's namespace in the Seed held, as its
// deletion by gardenlet does: there is no controller of namespaces here.
func deleteNamespaceContent(ctx context.Context, namespace string) {
	GinkgoHelper()
	Expect(seed.DeleteAllOf(ctx, &corev1.Secret{}, client.InNamespace(namespace))).To(Succeed())
	Expect(seed.DeleteAllOf(ctx, &extensionsv1alpha1.OperatingSystemConfig{}, client.InNamespace(namespace))).To(Succeed())
	Expect(seed.Delete(ctx, &extensionsv1alpha1.Cluster{ObjectMeta: metav1.ObjectMeta{Name: namespace}})).To(Succeed())
}
