// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package registrycache_test

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	containerregistry "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"k8s.io/utils/ptr"

	gardencorev1beta1 "github.com/gardener/gardener/pkg/apis/core/v1beta1"

	"github.com/gardener/gardener-extension-registry-cache/pkg/upstream"
	upstreamtest "github.com/gardener/gardener-extension-registry-cache/test/upstream"
)

const (
	layers    = 3
	layerSize = 4 << 20
)

// From the block in a Shoot to the bytes on a node.
var _ = Describe("Main job", func() {
	DescribeTable("pulls through the cache, cold and warm, and without it when it is dead",
		func(ctx SpecContext, config cache, scheme string) {
			source := startUpstream("", "")
			image, index := pushImage(source, "library/app", "v1"), pushIndex(source, "library/multi", "v1")
			config["upstream"], config["remoteURL"] = source.Host(), source.URL()
			namespace := newShoot(ctx)
			status := reconcile(ctx, namespace, config)
			Expect(status.Caches).To(ConsistOf(HaveField("Endpoint", HavePrefix(scheme+"://127."))))
			osc := eventuallyMutated(ctx, newOperatingSystemConfig(namespace, "pool-a"))
			node := newNode(osc)

			By("pulling before the cache runs")
			node.start(osc)
			Consistently(node.hostsTOML).WithArguments(source.Host()).WithTimeout(time.Second).ShouldNot(BeAnExistingFile())
			direct := node.expectPull(ctx, source, "direct", "library/app:v1", image)
			Expect(direct.BlobBytes).To(BeNumerically(">", layers*layerSize))

			By("starting the cache")
			cachePod := startPod(ctx, upstream.ResourceName(source.Host()))
			Eventually(node.hostsTOML).WithArguments(source.Host()).Should(BeAnExistingFile())
			written, err := os.ReadFile(node.hostsTOML(source.Host()))
			Expect(err).NotTo(HaveOccurred())
			Expect(string(written)).To(And(ContainSubstring(source.URL()), ContainSubstring(status.Caches[0].Endpoint)))

			for _, pull := range []struct {
				name, reference string
				digest          fmt.Stringer
			}{
				{"image", "library/app:v1", image},
				{"index with two platforms", "library/multi:v1", index},
			} {
				cold := node.expectPull(ctx, source, "cold "+pull.name, pull.reference, pull.digest)
				Expect(cold.BlobBytes).To(BeNumerically(">", layers*layerSize))
				cachePod.awaitStored()

				warm := node.expectPull(ctx, source, "warm "+pull.name, pull.reference, pull.digest)
				Expect(warm.Blobs).To(BeZero())
				Expect(warm.BlobBytes).To(BeZero())
			}

			By("pulling right after the cache died")
			cachePod.kill()
			Expect(node.expectPull(ctx, source, "cache just died", "library/app:v1", image).BlobBytes).To(BeNumerically(">", layers*layerSize))

			By("pulling when the node knows")
			Eventually(node.hostsTOML).WithArguments(source.Host()).ShouldNot(BeAnExistingFile())
			Expect(node.expectPull(ctx, source, "cache withdrawn", "library/app:v1", image).BlobBytes).To(BeNumerically(">", layers*layerSize))

			By("starting the cache again")
			cachePod.start()
			Eventually(node.hostsTOML).WithArguments(source.Host()).Should(BeAnExistingFile())
			Expect(node.expectPull(ctx, source, "warm, cache restarted", "library/app:v1", image).Blobs).To(BeZero())

			By("stopping the unit")
			node.stop()
			Expect(node.hostsTOML(source.Host())).NotTo(BeAnExistingFile())
		},
		Entry("with TLS", cache{}, "https", SpecTimeout(3*time.Minute)),
		Entry("without TLS", cache{"http": map[string]any{"tls": false}}, "http", SpecTimeout(3*time.Minute)),
	)

	It("serves stored content while the upstream is down", func(ctx SpecContext) {
		source := startUpstream("", "")
		image := pushImage(source, "library/app", "v1")
		node, cachePod := startNodeAndCache(ctx, source, cache{})
		reference := "library/app@" + image.String()
		node.expectPull(ctx, source, "cold", reference, image)
		cachePod.awaitStored()

		source.Intercept(func(http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) })
		})
		node.expectPull(ctx, source, "upstream down", reference, image)
	}, SpecTimeout(2*time.Minute))

	It("pulls private images with the credentials of the Shoot", func(ctx SpecContext) {
		source := startUpstream("robot", "s3cr3t")
		auth := remote.WithAuth(&authn.Basic{Username: "robot", Password: "s3cr3t"})
		image := pushImage(source, "private/app", "v1", auth)
		namespace := newShoot(ctx, secretReference("robot", "robot-credentials"))
		createReferencedSecret(ctx, namespace, "robot-credentials", map[string]string{"username": "robot", "password": "s3cr3t"})
		reconcile(ctx, namespace, cache{"upstream": source.Host(), "remoteURL": source.URL(), "secretReferenceName": "robot"})
		osc := eventuallyMutated(ctx, newOperatingSystemConfig(namespace, "pool-a"))
		node := newNode(osc)

		By("being refused without the cache")
		_, err := node.pull(ctx, source.Host()+"/private/app:v1")
		Expect(err).To(MatchError(ContainSubstring("401")))

		node.start(osc)
		cachePod := startPod(ctx, upstream.ResourceName(source.Host()))
		Eventually(node.hostsTOML).WithArguments(source.Host()).Should(BeAnExistingFile())
		Expect(node.expectPull(ctx, source, "cold private image", "private/app:v1", image).BlobBytes).To(BeNumerically(">", layers*layerSize))
		cachePod.awaitStored()
		Expect(node.expectPull(ctx, source, "warm private image", "private/app:v1", image).Blobs).To(BeZero())
		Expect(string(cachePod.session.Err.Contents())).NotTo(ContainSubstring("s3cr3t"))
	}, SpecTimeout(2*time.Minute))

	It("pulls private images with credentials that were changed, and is not restarted", func(ctx SpecContext) {
		source := startUpstream("robot", "s3cr3t")
		first := pushImage(source, "private/app", "v1", remote.WithAuth(&authn.Basic{Username: "robot", Password: "s3cr3t"}))
		namespace := newShoot(ctx, secretReference("robot", "robot-v1"))
		createReferencedSecret(ctx, namespace, "robot-v1", map[string]string{"username": "robot", "password": "s3cr3t"})
		createReferencedSecret(ctx, namespace, "robot-v2", map[string]string{"username": "robot", "password": "n3w"})
		private, cacheName := cache{"upstream": source.Host(), "remoteURL": source.URL(), "secretReferenceName": "robot"}, upstream.ResourceName(source.Host())
		reconcile(ctx, namespace, private)
		osc := eventuallyMutated(ctx, newOperatingSystemConfig(namespace, "pool-a"))
		node := newNode(osc)
		node.start(osc)
		cachePod := startPod(ctx, cacheName)
		Eventually(node.hostsTOML).WithArguments(source.Host()).Should(BeAnExistingFile())
		node.expectPull(ctx, source, "with the old credentials", "private/app:v1", first)
		cachePod.awaitStored()

		updateShoot(ctx, namespace, func(shoot *gardencorev1beta1.Shoot) {
			shoot.Spec.Resources = []gardencorev1beta1.NamedResourceReference{secretReference("robot", "robot-v2")}
		})
		reconcile(ctx, namespace, private)
		Eventually(func() map[string][]byte { return secretOf(ctx, cacheName+"-credentials").Data }).
			WithContext(ctx).Should(HaveKeyWithValue("password", []byte("n3w")))
		cachePod.syncSecret(ctx, cacheName+"-credentials")
		Expect(source.SetUser("robot", "n3w")).To(Succeed())
		second := pushImage(source, "private/app", "v2", remote.WithAuth(&authn.Basic{Username: "robot", Password: "n3w"}))

		// The node has no credentials: what it gets, it gets from the cache.
		Eventually(func() error {
			_, err := node.pull(ctx, source.Host()+"/private/app:v2")
			return err
		}).WithContext(ctx).Should(Succeed())
		cachePod.awaitStored()
		Expect(node.expectPull(ctx, source, "with the new credentials", "private/app:v2", second).Blobs).To(BeZero())
		Expect(cachePod.session.ExitCode()).To(Equal(-1), "it is the same process")
		Expect(string(cachePod.session.Err.Contents())).NotTo(Or(ContainSubstring("s3cr3t"), ContainSubstring("n3w")))
	}, SpecTimeout(2*time.Minute))

	It("has stored what it stored when its volume has grown", func(ctx SpecContext) {
		createStorageClass(ctx, growingClass, ptr.To(true))
		source := startUpstream("", "")
		image := pushImage(source, "library/app", "v1")
		cacheName := upstream.ResourceName(source.Host())
		sizedCache := func(size string) cache {
			config := sized(source.Host(), size, growingClass)
			config["remoteURL"] = source.URL()
			return config
		}
		namespace := newShoot(ctx)
		reconcile(ctx, namespace, sizedCache("10Gi"))
		osc := eventuallyMutated(ctx, newOperatingSystemConfig(namespace, "pool-a"))
		node := newNode(osc)
		node.start(osc)
		cachePod := startPod(ctx, cacheName)
		Eventually(node.hostsTOML).WithArguments(source.Host()).Should(BeAnExistingFile())
		node.expectPull(ctx, source, "before the volume grows", "library/app:v1", image)
		cachePod.awaitStored()
		before := awaitStoredObjects(ctx, cacheName)
		bindClaim(ctx, before.claim)

		for _, size := range []string{"20Gi", "30Gi"} {
			reconcile(ctx, namespace, sizedCache(size))
			after := awaitSize(ctx, cacheName, size)
			Expect(after.claim.UID).To(Equal(before.claim.UID))
			after.expectAdopted(ctx, before.pod)
			Expect(node.expectPull(ctx, source, "with "+size, "library/app:v1", image).Blobs).To(BeZero())
		}

		By("running the pod anew with the same volume")
		cachePod.stop()
		again := startPodIn(ctx, cacheName, cachePod.root)
		// It may still be there from before, and go for a moment.
		Eventually(node.hostsTOML).WithArguments(source.Host()).MustPassRepeatedly(30).Should(BeAnExistingFile())
		Expect(node.expectPull(ctx, source, "after a restart", "library/app:v1", image).Blobs).To(BeZero())
		Expect(again.object.UID).To(Equal(before.pod.UID))
	}, SpecTimeout(3*time.Minute))
})

// startNodeAndCache takes a cache all the way from the Shoot to a node.
func startNodeAndCache(ctx context.Context, source *upstreamtest.Registry, config cache) (*node, *pod) {
	GinkgoHelper()
	config["upstream"], config["remoteURL"] = source.Host(), source.URL()
	namespace := newShoot(ctx)
	reconcile(ctx, namespace, config)
	osc := eventuallyMutated(ctx, newOperatingSystemConfig(namespace, "pool-a"))
	n := newNode(osc)
	n.start(osc)
	p := startPod(ctx, upstream.ResourceName(source.Host()))
	Eventually(n.hostsTOML).WithArguments(source.Host()).Should(BeAnExistingFile())
	return n, p
}

// expectPull pulls an image, checks that it is the right one, and returns what
// the upstream saw of it. The figures are part of the suite's report.
func (n *node) expectPull(ctx context.Context, source *upstreamtest.Registry, title, reference string, digest fmt.Stringer) upstreamtest.Counts {
	GinkgoHelper()
	before := source.Counts()
	result, err := n.pull(ctx, source.Host()+"/"+reference)
	Expect(err).NotTo(HaveOccurred())
	Expect(result.root.Digest.String()).To(Equal(digest.String()))
	Expect(result.bytes).To(BeNumerically(">", layers*layerSize))

	counts := source.Since(before)
	AddReportEntry("Pull: "+title, ReportEntryVisibilityAlways, fmt.Sprintf(
		"%.3f s for %d contents of %.1f MiB; upstream: %d blobs of %.1f MiB, %d requests in all",
		result.took.Seconds(), result.contents, mebibytes(result.bytes), counts.Blobs, mebibytes(counts.BlobBytes), counts.Requests()))
	return counts
}

func mebibytes(bytes int64) float64 {
	return float64(bytes) / (1 << 20)
}

func startUpstream(username, password string) *upstreamtest.Registry {
	GinkgoHelper()
	registry, err := upstreamtest.Start(GinkgoT().TempDir(), username, password)
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(registry.Close)
	return registry
}

// pushImage pushes an image of several layers and returns its digest.
func pushImage(registry *upstreamtest.Registry, repository, tag string, options ...remote.Option) containerregistry.Hash {
	GinkgoHelper()
	image, err := random.Image(layerSize, layers)
	Expect(err).NotTo(HaveOccurred())
	Expect(remote.Write(pushReference(registry, repository, tag), image, options...)).To(Succeed())
	digest, err := image.Digest()
	Expect(err).NotTo(HaveOccurred())
	return digest
}

// pushIndex pushes an index with an image each for two platforms and returns
// its digest.
func pushIndex(registry *upstreamtest.Registry, repository, tag string) containerregistry.Hash {
	GinkgoHelper()
	index := containerregistry.ImageIndex(empty.Index)
	for _, architecture := range []string{"amd64", "arm64"} {
		image, err := random.Image(layerSize, layers)
		Expect(err).NotTo(HaveOccurred())
		index = mutate.AppendManifests(index, mutate.IndexAddendum{
			Add:        image,
			Descriptor: containerregistry.Descriptor{Platform: &containerregistry.Platform{OS: "linux", Architecture: architecture}},
		})
	}
	Expect(remote.WriteIndex(pushReference(registry, repository, tag), index)).To(Succeed())
	digest, err := index.Digest()
	Expect(err).NotTo(HaveOccurred())
	return digest
}

func pushReference(registry *upstreamtest.Registry, repository, tag string) name.Reference {
	GinkgoHelper()
	reference, err := name.ParseReference(registry.Host()+"/"+repository+":"+tag, name.Insecure)
	Expect(err).NotTo(HaveOccurred())
	return reference
}
