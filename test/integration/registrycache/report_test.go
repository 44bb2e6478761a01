// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package registrycache_test

import (
	"context"
	"os"
	"path/filepath"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/gardener/gardener/pkg/client/kubernetes"

	shootv1alpha3 "github.com/gardener/gardener-extension-registry-cache/pkg/apis/shoot/v1alpha3"
	"github.com/gardener/gardener-extension-registry-cache/pkg/upstream"
)

// What a Shoot owner sees of the caches with kubectl.
var _ = Describe("RegistryCaches", func() {
	It("come and go with the caches, which report their status with no right but that", func(ctx SpecContext) {
		source := startUpstream("", "")
		image := pushImage(source, "library/app", "v1")
		name := upstream.ResourceName(source.Host())
		ours := cache{"upstream": source.Host(), "remoteURL": source.URL(), "volume": map[string]any{"size": "2Gi"}}
		namespace := newShoot(ctx)
		status := reconcile(ctx, namespace, ours, cache{"upstream": "ghcr.io"})
		owner := newOwner(environment.Shoot)

		By("mirroring the configuration")
		Eventually(registryCaches).WithArguments(ctx, owner).Should(ConsistOf(
			And(HaveField("Name", name), HaveField("Status", BeNil())), HaveField("Name", "registry-ghcr-io")))
		found := getRegistryCache(ctx, owner, name)
		Expect(found.Spec.Endpoint).To(Equal(status.Caches[0].Endpoint))
		Expect(found.Spec.Upstream).To(Equal(source.Host()))
		Expect(*found.Spec.RemoteURL).To(Equal(source.URL()))
		Expect(found.Spec.Volume.Size.String()).To(Equal("2Gi"))
		Expect(found.Spec.GarbageCollection.TTL.Duration).To(Equal(7 * 24 * time.Hour))

		By("reporting")
		osc := eventuallyMutated(ctx, newOperatingSystemConfig(namespace, "pool-a"))
		node := newNode(osc)
		node.start(osc)
		cachePod := startPod(ctx, name)
		Eventually(node.hostsTOML).WithArguments(source.Host()).Should(BeAnExistingFile())
		Eventually(registryCacheStatus).WithArguments(ctx, owner, name).Should(And(
			HaveField("Ready", true), HaveField("Requests", BeZero()), HaveField("HitRatio", ""),
			HaveField("TotalBytes", BeNumerically(">", 0)), HaveField("LastUpstreamError", BeNil()), HaveField("Replicas", HaveLen(1)),
		))
		node.expectPull(ctx, source, "cold", "library/app:v1", image)
		// The next report comes 30 seconds after the first.
		Eventually(registryCacheStatus).WithArguments(ctx, owner, name).WithTimeout(2 * time.Minute).Should(And(
			HaveField("Requests", BeNumerically(">", layers)), HaveField("HitRatio", MatchRegexp(`^[0-9]+%$`)), HaveField("Blobs", BeNumerically(">", layers)),
		))
		Expect(getRegistryCache(ctx, owner, "registry-ghcr-io").Status).To(BeNil())

		By("showing it as columns")
		table := &metav1.Table{}
		Expect(restGetTable(ctx, table)).To(Succeed())
		var columns []string
		for _, column := range table.ColumnDefinitions {
			columns = append(columns, column.Name)
		}
		Expect(columns).To(Equal([]string{"Name", "Upstream", "Endpoint", "Ready", "Hit Ratio", "Used Bytes", "Total Bytes", "Blobs", "Last Upstream Error", "Age"}))

		By("trying more with the token of the cache")
		expectNoOtherRights(ctx, cachePod, name)

		By("keeping the status when the configuration changes")
		ours["volume"] = map[string]any{"size": "2Gi"}
		ours["garbageCollection"] = map[string]any{"ttl": "24h"}
		reconcile(ctx, namespace, ours)
		Eventually(registryCaches).WithArguments(ctx, owner).Should(ConsistOf(And(HaveField("Name", name),
			HaveField("Spec.GarbageCollection.TTL.Duration", 24*time.Hour), HaveField("Status.Requests", BeNumerically(">", layers)))))

		By("ending in order")
		cachePod.stop()
		Expect(registryCacheStatus(ctx, owner, name)).To(And(HaveField("Ready", false), HaveField("Replicas", BeEmpty()), HaveField("Requests", BeNumerically(">", layers))))

		By("deleting the caches")
		deleteExtension(ctx, namespace)
		Eventually(func() error {
			return owner.Get(ctx, client.ObjectKey{Name: "registrycaches.registry.extensions.gardener.cloud"}, &apiextensionsv1.CustomResourceDefinition{})
		}).Should(Satisfy(apierrors.IsNotFound))
		expectNotInShoot(ctx, &corev1.ServiceAccount{}, name)
	}, SpecTimeout(8*time.Minute))
})

// newOwner returns a client that knows RegistryCaches.
func newOwner(config *rest.Config) client.Client {
	GinkgoHelper()
	scheme := runtime.NewScheme()
	Expect(kubernetes.AddShootSchemeToScheme(scheme)).To(Succeed())
	Expect(shootv1alpha3.AddToScheme(scheme)).To(Succeed())
	owner, err := client.New(config, client.Options{Scheme: scheme})
	Expect(err).NotTo(HaveOccurred())
	return owner
}

func registryCaches(ctx context.Context, owner client.Client) ([]shootv1alpha3.RegistryCache, error) {
	list := &shootv1alpha3.RegistryCacheList{}
	err := owner.List(ctx, list, client.InNamespace(metav1.NamespaceSystem))
	if meta.IsNoMatchError(err) {
		return nil, nil
	}
	return list.Items, err
}

func getRegistryCache(ctx context.Context, owner client.Client, name string) *shootv1alpha3.RegistryCache {
	GinkgoHelper()
	found := &shootv1alpha3.RegistryCache{}
	Expect(owner.Get(ctx, client.ObjectKey{Namespace: metav1.NamespaceSystem, Name: name}, found)).To(Succeed())
	return found
}

func registryCacheStatus(ctx context.Context, owner client.Client, name string) (shootv1alpha3.RegistryCacheStatus, error) {
	found := &shootv1alpha3.RegistryCache{}
	err := owner.Get(ctx, client.ObjectKey{Namespace: metav1.NamespaceSystem, Name: name}, found)
	if err != nil || found.Status == nil {
		return shootv1alpha3.RegistryCacheStatus{}, err
	}
	return *found.Status, nil
}

// restGetTable reads the RegistryCaches as kubectl shows them.
func restGetTable(ctx context.Context, table *metav1.Table) error {
	config := rest.CopyConfig(environment.Shoot)
	config.GroupVersion, config.APIPath = &shootv1alpha3.SchemeGroupVersion, "/apis"
	scheme := runtime.NewScheme()
	if err := metav1.AddMetaToScheme(scheme); err != nil {
		return err
	}
	config.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()
	restClient, err := rest.RESTClientFor(config)
	if err != nil {
		return err
	}
	return restClient.Get().Namespace(metav1.NamespaceSystem).Resource(shootv1alpha3.Resource).
		SetHeader("Accept", "application/json;as=Table;v=v1;g=meta.k8s.io").Do(ctx).Into(table)
}

// expectNoOtherRights tries what somebody would who got hold of the token of a cache.
func expectNoOtherRights(ctx context.Context, cachePod *pod, name string) {
	GinkgoHelper()
	token, err := os.ReadFile(filepath.Join(cachePod.root, "etc/registry-cache-report/token"))
	Expect(err).NotTo(HaveOccurred())
	config := rest.AnonymousClientConfig(environment.Shoot)
	config.BearerToken = string(token)
	thief := newOwner(config)
	in := func(name string) metav1.ObjectMeta {
		return metav1.ObjectMeta{Namespace: metav1.NamespaceSystem, Name: name}
	}
	patch := func(status string) client.Patch { return client.RawPatch(types.MergePatchType, []byte(status)) }
	key := client.ObjectKey{Namespace: metav1.NamespaceSystem, Name: name}
	own, other := &shootv1alpha3.RegistryCache{ObjectMeta: in(name)}, &shootv1alpha3.RegistryCache{ObjectMeta: in("registry-ghcr-io")}

	Expect(thief.Status().Patch(ctx, own.DeepCopy(), patch(`{"status":{"blobs":1}}`))).To(Succeed())
	Expect(getRegistryCache(ctx, newOwner(environment.Shoot), name).Status.Blobs).To(BeEquivalentTo(1), "that is the right it has")
	Expect(thief.Status().Patch(ctx, other.DeepCopy(), patch(`{"status":{"blobs":1}}`))).To(Satisfy(apierrors.IsForbidden))
	Expect(thief.Patch(ctx, own.DeepCopy(), patch(`{"spec":{"endpoint":"http://192.0.2.1"}}`))).To(Satisfy(apierrors.IsForbidden))
	Expect(thief.Get(ctx, key, own.DeepCopy())).To(Satisfy(apierrors.IsForbidden))
	Expect(thief.List(ctx, &shootv1alpha3.RegistryCacheList{}, client.InNamespace(metav1.NamespaceSystem))).To(Satisfy(apierrors.IsForbidden))
	Expect(thief.Delete(ctx, own.DeepCopy())).To(Satisfy(apierrors.IsForbidden))
	Expect(thief.Get(ctx, client.ObjectKey{Namespace: key.Namespace, Name: name + "-config"}, &corev1.Secret{})).To(Satisfy(apierrors.IsForbidden))
	Expect(thief.List(ctx, &corev1.PodList{}, client.InNamespace(metav1.NamespaceSystem))).To(Satisfy(apierrors.IsForbidden))

	// What patches the spec by way of the status changes nothing.
	endpoint := getRegistryCache(ctx, newOwner(environment.Shoot), name).Spec.Endpoint
	Expect(thief.Status().Patch(ctx, own.DeepCopy(), patch(`{"spec":{"endpoint":"http://192.0.2.1"}}`))).To(Succeed())
	Expect(getRegistryCache(ctx, newOwner(environment.Shoot), name).Spec.Endpoint).To(Equal(endpoint))
}
