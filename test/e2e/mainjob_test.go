// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/gardener/gardener-extension-registry-cache/test/landscape"
	"github.com/gardener/gardener-extension-registry-cache/test/upstream"
)

var _ = Describe("Pulls of pods", func() {
	It("go through the cache of the example, cold and warm, and past it when it is gone", func(ctx SpecContext) {
		const upstreamHost, repository = "docker.io", "e2e/app"
		registry := startUpstream(ctx, upstream.Speed{}, "", "", "registry-1.docker.io", upstreamHost)
		pushImage(ctx, registry, repository)
		pullDirect(ctx, registry, upstreamHost, repository, "direct")

		status, err := shoot.ApplyExtension(ctx)
		Expect(err).NotTo(HaveOccurred())
		Expect(status.Caches).To(ConsistOf(HaveField("Endpoint", HavePrefix("https://10.96."))))
		_, err = land.AwaitCache(ctx, upstreamHost)
		Expect(err).NotTo(HaveOccurred())
		osc, err := shoot.UpdateNode(ctx)
		Expect(err).NotTo(HaveOccurred())
		Expect(osc.Spec.Units).To(ContainElement(HaveField("Name", "registry-hosts.service")))
		Expect(land.Node.Run(ctx, "systemctl", "is-active", "registry-hosts.service")).To(Equal("active\n"))
		content, err := land.AwaitHostsTOML(ctx, upstreamHost, true)
		Expect(err).NotTo(HaveOccurred())
		Expect(content).To(And(ContainSubstring(status.Caches[0].Endpoint), ContainSubstring("https://registry-1.docker.io")))

		expectCold(pull(ctx, registry, upstreamHost, repository, "cold"))
		expectWarm(pull(ctx, registry, upstreamHost, repository, "warm"))

		By("scaling the cache to zero")
		DeferCleanup(func(ctx SpecContext) { Expect(shoot.ScaleCache(ctx, upstreamHost, 1)).To(Succeed()) })
		Expect(shoot.ScaleCache(ctx, upstreamHost, 0)).To(Succeed())
		expectDirect(pull(ctx, registry, upstreamHost, repository, "cache just gone"))
		_, err = land.AwaitHostsTOML(ctx, upstreamHost, false)
		Expect(err).NotTo(HaveOccurred())
		expectDirect(pull(ctx, registry, upstreamHost, repository, "cache withdrawn"))

		By("scaling it to one")
		Expect(shoot.ScaleCache(ctx, upstreamHost, 1)).To(Succeed())
		_, err = land.AwaitCache(ctx, upstreamHost)
		Expect(err).NotTo(HaveOccurred())
		_, err = land.AwaitHostsTOML(ctx, upstreamHost, true)
		Expect(err).NotTo(HaveOccurred())
		expectWarm(pull(ctx, registry, upstreamHost, repository, "warm, the cache is back with its volume"))
	}, SpecTimeout(5*time.Minute))

	It("go through the cache of their own upstream", func(ctx SpecContext) {
		first := startUpstream(ctx, upstream.Speed{}, "", "", "first.test")
		second := startUpstream(ctx, upstream.Speed{}, "", "", "second.test")
		pushImage(ctx, first, "app")
		pushImage(ctx, second, "app")
		pullDirect(ctx, first, "first.test", "app", "direct, first upstream")
		pullDirect(ctx, second, "second.test", "app", "direct, second upstream")
		applyCaches(ctx, cache("first.test"), cache("second.test"))

		before, servedBefore := second.Counts(), cacheBytes(ctx, "second.test")
		expectCold(pull(ctx, first, "first.test", "app", "cold, first upstream"))
		expectWarm(pull(ctx, first, "first.test", "app", "warm, first upstream"))
		Expect(second.Since(before).Requests()).To(BeZero())
		Expect(cacheBytes(ctx, "second.test")).To(Equal(servedBefore))
		expectCold(pull(ctx, second, "second.test", "app", "cold, second upstream"))
		expectWarm(pull(ctx, second, "second.test", "app", "warm, second upstream"))
	}, SpecTimeout(5*time.Minute))

	It("get private images with the credentials of the Shoot", func(ctx SpecContext) {
		const username, password = "robot", "s3cr3t-in-the-shoot"
		registry := startUpstream(ctx, upstream.Speed{}, username, password, "private.test")
		image, err := landscape.NewImage(layers, layerSize)
		Expect(err).NotTo(HaveOccurred())
		Expect(landscape.Push(ctx, registry, "app", "v1", image, remote.WithAuth(&authn.Basic{Username: username, Password: password}))).To(Succeed())
		Expect(shoot.ReferToSecret(ctx, "private-test", map[string][]byte{"username": []byte(username), "password": []byte(password)})).To(Succeed())

		By("being refused without the cache")
		pod, err := land.StartPod(ctx, "private.test/app:v1")
		Expect(err).NotTo(HaveOccurred())
		Eventually(land.Events).WithArguments(ctx, pod).Should(ContainElement(And(HavePrefix("Failed: Failed to pull image"), ContainSubstring("no basic auth credentials"))))
		Expect(land.ShootClient.Delete(ctx, pod)).To(Succeed())

		applyCaches(ctx, withSecret(cache("private.test"), "private-test"))
		expectCold(pull(ctx, registry, "private.test", "app", "cold, private"))
		expectWarm(pull(ctx, registry, "private.test", "app", "warm, private"))

		logs, err := land.CacheLogs(ctx, "private.test")
		Expect(err).NotTo(HaveOccurred())
		Expect(logs).To(ContainSubstring("/v2/app/manifests/"))
		Expect(logs).NotTo(ContainSubstring(password))
	}, SpecTimeout(5*time.Minute))

	It("get of an index with several platforms the image of the node's", func(ctx SpecContext) {
		registry := startUpstream(ctx, upstream.Speed{}, "", "", "index.test")
		index, err := landscape.NewIndex(layers, layerSize)
		Expect(err).NotTo(HaveOccurred())
		Expect(landscape.Push(ctx, registry, "app", "v1", index)).To(Succeed())
		pullDirect(ctx, registry, "index.test", "app", "direct, index")
		applyCaches(ctx, cache("index.test"))

		cold := pull(ctx, registry, "index.test", "app", "cold, index")
		expectCold(cold)
		Expect(cold.CacheBytes).To(BeNumerically("<", 2*contentSize), "the layers of one platform only")
		expectWarm(pull(ctx, registry, "index.test", "app", "warm, index"))
	}, SpecTimeout(5*time.Minute))

	DescribeTable("succeed at the first attempt when the cache goes in the middle",
		func(ctx SpecContext, upstreamHost string, end func(context.Context, string) error, direct bool) {
			registry := startUpstream(ctx, upstream.Speed{Delay: 20 * time.Millisecond, BytesPerSecond: 512 << 10}, "", "", upstreamHost)
			pushImage(ctx, registry, "app")
			applyCaches(ctx, cache(upstreamHost))

			before, err := land.CacheProcess(ctx, upstreamHost)
			Expect(err).NotTo(HaveOccurred())
			clients := recordClients(registry)
			pod, err := land.StartPod(ctx, upstreamHost+"/app:v1")
			Expect(err).NotTo(HaveOccurred())
			Eventually(func(g Gomega) {
				g.Expect(registry.Counts().BlobBytes).To(BeNumerically(">", 1<<20))
				g.Expect(registry.Counts().Blobs).To(BeNumerically(">=", layers+1), "all layers that the node does not have, and the configuration")
			}).Should(Succeed())
			Expect(clients.containerd.Load()).To(BeZero(), "until now all came through the cache")
			Expect(end(ctx, upstreamHost)).To(Succeed())
			Expect(registry.Counts().BlobBytes).To(BeNumerically("<", contentSize), "it was still in the middle")
			Expect(clients.others.Load()).NotTo(BeZero())

			duration, err := land.AwaitPod(ctx, pod)
			Expect(err).NotTo(HaveOccurred())
			AddReportEntry("Pull: in the middle of it the cache goes", ReportEntryVisibilityAlways, fmt.Sprintf(
				"%.2f s; upstream: %d blobs of %.1f MiB, of the blobs %d asked for by containerd",
				duration.Seconds(), registry.Counts().Blobs, mebibytes(registry.Counts().BlobBytes), clients.containerd.Load()))
			if direct {
				Expect(clients.containerd.Load()).NotTo(BeZero(), "containerd has gone on at the upstream")
			} else {
				Expect(clients.containerd.Load()).To(BeZero(), "containerd has not needed the upstream")
			}
			events, err := land.Events(ctx, pod)
			Expect(err).NotTo(HaveOccurred())
			Expect(events).NotTo(ContainElement(HavePrefix("Failed")))
			Expect(land.RemovePod(ctx, pod)).To(Succeed())

			By("pulling through its successor")
			Eventually(func() (int, error) { return land.CacheProcess(ctx, upstreamHost) }).ShouldNot(Equal(before))
			_, err = land.AwaitCache(ctx, upstreamHost)
			Expect(err).NotTo(HaveOccurred())
			// For 3 s without a gap: a probe that was refused just before is confirmed after
			// 1 s, by one that may take 1.5 s, and then an old hosts.toml goes.
			Eventually(hostsTOML).WithArguments(upstreamHost).WithPolling(100 * time.Millisecond).MustPassRepeatedly(30).Should(BeAnExistingFile())
			Expect(pull(ctx, registry, upstreamHost, "app", "through the successor").CacheBytes).To(BeNumerically(">", contentSize))
			expectWarm(pull(ctx, registry, upstreamHost, "app", "warm, through the successor"))
		},
		Entry("its pod is deleted, and ends the transfer before it ends", "deleted.test",
			func(ctx context.Context, upstreamHost string) error { return land.DeletePod(ctx, upstreamHost) }, false, SpecTimeout(5*time.Minute)),
		Entry("its process is killed, and containerd goes on at the upstream", "killed.test",
			func(ctx context.Context, upstreamHost string) error { return land.KillCache(ctx, upstreamHost) }, true, SpecTimeout(5*time.Minute)),
	)
})

// clients counts who asks an upstream for blobs.
type clients struct {
	containerd, others atomic.Int64
}

func recordClients(registry *upstream.Registry) *clients {
	c := &clients{}
	registry.Intercept(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
			switch {
			case !strings.Contains(request.URL.Path, "/blobs/"):
			case strings.HasPrefix(request.UserAgent(), "containerd/"):
				c.containerd.Add(1)
			default:
				c.others.Add(1)
			}
			next.ServeHTTP(w, request)
		})
	})
	return c
}

func cacheBytes(ctx SpecContext, upstreamHost string) int64 {
	GinkgoHelper()
	bytes, err := land.CacheBytes(ctx, upstreamHost)
	Expect(err).NotTo(HaveOccurred())
	return bytes
}
