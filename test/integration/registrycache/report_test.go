// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package registrycache_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"time"

	containername "github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/validate"
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	gomegatypes "github.com/onsi/gomega/types"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/gardener/gardener/pkg/client/kubernetes"

	shootv1alpha3 "github.com/gardener/gardener-extension-registry-cache/pkg/apis/shoot/v1alpha3"
	"github.com/gardener/gardener-extension-registry-cache/pkg/upstream"
	upstreamtest "github.com/gardener/gardener-extension-registry-cache/test/upstream"
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
			HaveField("LastReportTime.Time", BeTemporally("~", time.Now(), 5*time.Minute)),
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
		Expect(columns).To(Equal([]string{"Name", "Upstream", "Endpoint", "Ready", "Hit Ratio", "Used Bytes", "Total Bytes", "Blobs", "Last Upstream Error", "Reported", "Age"}))

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
		Expect(registryCacheStatus(ctx, owner, name)).To(And(HaveField("Ready", false), HaveField("Replicas", BeEmpty()), HaveField("LastReportTime", Not(BeNil())), HaveField("Requests", BeNumerically(">", layers))))

		By("deleting the caches")
		deleteExtension(ctx, namespace)
		Eventually(func() error {
			return owner.Get(ctx, client.ObjectKey{Name: "registrycaches.registry.extensions.gardener.cloud"}, &apiextensionsv1.CustomResourceDefinition{})
		}).Should(Satisfy(apierrors.IsNotFound))
		expectNotInShoot(ctx, &corev1.ServiceAccount{}, name)
	}, SpecTimeout(8*time.Minute))

	It("have the reports of both replicas of a cache, which come at the same time", func(ctx SpecContext) {
		source := startUpstream("", "")
		name := upstream.ResourceName(source.Host())
		namespace := newShoot(ctx)
		reconcile(ctx, namespace, cache{
			"upstream": source.Host(), "remoteURL": source.URL(), "highAvailability": map[string]any{"enabled": true},
		})
		owner := newOwner(environment.Shoot)
		Eventually(registryCaches).WithArguments(ctx, owner).Should(ConsistOf(HaveField("Name", name)))
		reports := watchReports(ctx, owner, name)
		replicas := []*pod{newReplica(ctx, name, 0), newReplica(ctx, name, 1)}
		for _, replica := range replicas {
			replica.launch()
		}
		for _, replica := range replicas {
			replica.awaitReady()
		}
		// If they meet, one of them comes up to 45 seconds later.
		Eventually(registryCacheStatus).WithArguments(ctx, owner, name).WithTimeout(2 * time.Minute).Should(And(beTheSum(2), HaveField("Requests", BeZero())))

		for round := range 3 {
			By(fmt.Sprintf("pulling by both, round %d", round+1))
			for i, replica := range replicas {
				// What the one pulls more than the other tells their figures apart.
				for image := range 1 + i {
					replica.pull(ctx, source, fmt.Sprintf("app-%d-%d-%d", round, i, image))
				}
			}
			Eventually(registryCacheStatus).WithArguments(ctx, owner, name).WithTimeout(2 * time.Minute).Should(And(beTheSum(2),
				HaveField("Replicas", And(
					HaveKeyWithValue(name+"-0", HaveField("Requests", replicas[0].requests())),
					HaveKeyWithValue(name+"-1", HaveField("Requests", replicas[1].requests()))))))
		}

		By("ending one in order")
		both := registryCacheStatusOf(ctx, owner, name)
		replicas[1].stop()
		Expect(registryCacheStatus(ctx, owner, name)).To(And(beTheSum(1), HaveField("Replicas", HaveKey(name+"-0")),
			HaveField("Requests", replicas[0].requests()), HaveField("Ready", true)))
		reports.expect(both, name+"-0", name+"-1")
	}, SpecTimeout(8*time.Minute))
})

// newReplica returns a pod of a cache with high availability, with its own name, at the
// address of the Service or, but for the first one, at one beside it.
func newReplica(ctx context.Context, name string, ordinal int) *pod {
	GinkgoHelper()
	p := &pod{object: &corev1.Pod{}, root: GinkgoT().TempDir(), hostname: fmt.Sprintf("%s-%d", name, ordinal), address: clusterIP(ctx, name)}
	if ordinal > 0 {
		p.address = fmt.Sprintf("127.77.0.%d", ordinal)
	}
	eventuallyInShoot(ctx, p.object, p.hostname)
	p.mountVolumes(ctx)
	return p
}

// pull pulls an image of its own by way of a cache, as containerd would.
func (p *pod) pull(ctx context.Context, source *upstreamtest.Registry, repository string) {
	GinkgoHelper()
	pushImage(source, repository, "v1")
	reference, err := containername.ParseReference(net.JoinHostPort(p.address, "5000")+"/"+repository+":v1", containername.Insecure)
	Expect(err).NotTo(HaveOccurred())
	transport := remote.DefaultTransport.(*http.Transport).Clone()
	transport.TLSClientConfig = &tls.Config{InsecureSkipVerify: true} // the certificate is for the address of the Service
	defer transport.CloseIdleConnections()
	image, err := remote.Image(reference, remote.WithTransport(transport), remote.WithContext(ctx))
	Expect(err).NotTo(HaveOccurred())
	Expect(validate.Image(image)).To(Succeed())
	p.awaitStored()
}

// requests returns how many requests a cache has had by its own metrics.
func (p *pod) requests() int64 {
	GinkgoHelper()
	response, err := http.Get("http://" + net.JoinHostPort(p.address, "5001") + "/metrics")
	Expect(err).NotTo(HaveOccurred())
	defer func() { _ = response.Body.Close() }()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(response.Body)
	Expect(err).NotTo(HaveOccurred())
	total := 0.0
	for _, metric := range families["registry_proxy_requests_total"].GetMetric() {
		total += metric.GetCounter().GetValue()
	}
	return int64(total)
}

// beTheSum says that a status is that of so many replicas, taken together.
func beTheSum(replicas int) gomegatypes.GomegaMatcher {
	return And(HaveField("Replicas", HaveLen(replicas)), WithTransform(func(status shootv1alpha3.RegistryCacheStatus) shootv1alpha3.Report {
		left := status.Report
		for _, replica := range status.Replicas {
			left.Ready = left.Ready && replica.Ready
			left.Requests -= replica.Requests
			left.Hits -= replica.Hits
			left.UsedBytes -= replica.UsedBytes
			left.TotalBytes -= replica.TotalBytes
			left.Blobs -= replica.Blobs
		}
		return left
	}, Equal(shootv1alpha3.Report{Ready: true})))
}

// reportWatch is what stood in the status of a RegistryCache, from first to last.
type reportWatch struct {
	watch watch.Interface
	ended chan []shootv1alpha3.RegistryCacheStatus
}

func watchReports(ctx context.Context, owner client.WithWatch, name string) *reportWatch {
	GinkgoHelper()
	watched, err := owner.Watch(ctx, &shootv1alpha3.RegistryCacheList{}, client.InNamespace(metav1.NamespaceSystem), client.MatchingFields{"metadata.name": name})
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(watched.Stop)
	reports := &reportWatch{watch: watched, ended: make(chan []shootv1alpha3.RegistryCacheStatus, 1)}
	go func() {
		var all []shootv1alpha3.RegistryCacheStatus
		for event := range watched.ResultChan() {
			if object, ok := event.Object.(*shootv1alpha3.RegistryCache); ok && object.Status != nil {
				all = append(all, *object.Status)
			}
		}
		reports.ended <- all
	}()
	return reports
}

// expect ends the watch. Until one of the replicas ended no report took away that of
// another, and none of a replica came sooner than 30 seconds after the one before.
func (r *reportWatch) expect(last shootv1alpha3.RegistryCacheStatus, replicas ...string) {
	GinkgoHelper()
	r.watch.Stop()
	all := <-r.ended
	seen := make(map[string]shootv1alpha3.ReplicaReport)
	count := 0
	for _, status := range all {
		for _, replica := range replicas {
			report, found := status.Replicas[replica]
			before, known := seen[replica]
			if !found {
				Expect(known).To(BeFalse(), "the report of %s was lost: %v", replica, status)
				continue
			}
			if known && !report.Time.Equal(before.Time) {
				// Times are of whole seconds.
				Expect(report.Time.Sub(before.Time.Time)).To(BeNumerically(">=", 29*time.Second), replica)
				count++
			}
			seen[replica] = report
		}
		if reflect.DeepEqual(status, last) {
			break
		}
	}
	Expect(seen).To(HaveLen(len(replicas)))
	Expect(count).To(BeNumerically(">=", 2*len(replicas)), "they reported again and again")
	AddReportEntry("Reports of two replicas", ReportEntryVisibilityAlways, fmt.Sprintf("%d reports, %d changes of the status", count+len(replicas), len(all)))
}

func registryCacheStatusOf(ctx context.Context, owner client.Client, name string) shootv1alpha3.RegistryCacheStatus {
	GinkgoHelper()
	status, err := registryCacheStatus(ctx, owner, name)
	Expect(err).NotTo(HaveOccurred())
	return status
}

// newOwner returns a client that knows RegistryCaches.
func newOwner(config *rest.Config) client.WithWatch {
	GinkgoHelper()
	scheme := runtime.NewScheme()
	Expect(kubernetes.AddShootSchemeToScheme(scheme)).To(Succeed())
	Expect(shootv1alpha3.AddToScheme(scheme)).To(Succeed())
	owner, err := client.NewWithWatch(config, client.Options{Scheme: scheme})
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
