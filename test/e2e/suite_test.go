// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

// Package e2e_test shows the main job on a real node: from the block in a Shoot
// to pods whose images come through a cache. All specs share one landscape, and
// each brings the upstreams and caches that it needs.
package e2e_test

import (
	"context"
	"fmt"
	"os"
	"testing"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"github.com/sirupsen/logrus"
	"k8s.io/utils/ptr"
	logf "sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"

	"github.com/gardener/gardener-extension-registry-cache/pkg/apis/registry/v1alpha3"
	"github.com/gardener/gardener-extension-registry-cache/test/cluster"
	"github.com/gardener/gardener-extension-registry-cache/test/landscape"
	"github.com/gardener/gardener-extension-registry-cache/test/sandbox"
	"github.com/gardener/gardener-extension-registry-cache/test/upstream"
)

var (
	// box is where the tests run, or unsupported says why they cannot.
	box         *sandbox.Sandbox
	unsupported error

	land  *landscape.Landscape
	shoot *landscape.Shoot
)

func TestMain(m *testing.M) {
	os.Exit(cluster.Run(
		func(b *sandbox.Sandbox) int {
			box = b
			return m.Run()
		},
		func(err error) int {
			unsupported = err
			return m.Run()
		},
	))
}

func TestE2E(t *testing.T) {
	RegisterFailHandler(Fail)
	_, reporter := GinkgoConfiguration()
	// So that each spec that is skipped is named.
	reporter.Verbose = reporter.Verbose || unsupported != nil
	RunSpecs(t, "End-to-End Suite", reporter)
}

var _ = BeforeSuite(func(ctx SpecContext) {
	SetDefaultEventuallyTimeout(time.Minute)
	SetDefaultEventuallyPollingInterval(100 * time.Millisecond)
	if unsupported != nil {
		return // each spec tells
	}
	// The upstreams log each request.
	logrus.SetOutput(GinkgoWriter)
	logf.SetLogger(zap.New(zap.WriteTo(GinkgoWriter), zap.UseDevMode(true)))
	var err error
	land, err = landscape.Start(ctx, box, landscape.Options{
		Root:    "../..",
		Options: cluster.Options{Progress: func(step string) { GinkgoWriter.Println(step) }},
	})
	Expect(err).NotTo(HaveOccurred())
	shoot, err = land.NewShoot(ctx)
	Expect(err).NotTo(HaveOccurred())
}, NodeTimeout(5*time.Minute))

var _ = BeforeEach(func() {
	if unsupported == nil {
		return
	}
	if os.Getenv("REQUIRE_CLUSTER") != "" {
		Fail("REQUIRE_CLUSTER is set, but the test cluster cannot run: " + unsupported.Error())
	}
	Skip("the test cluster cannot run: " + unsupported.Error())
})

// What went wrong is seldom seen from outside.
var _ = JustAfterEach(func(ctx SpecContext) {
	if land != nil && CurrentSpecReport().Failed() {
		AddReportEntry("Logs", ReportEntryVisibilityAlways, land.RecentLogs(ctx))
	}
})

const (
	layers    = 3
	layerSize = 4 << 20
	// contentSize is what is pulled at least of an image.
	contentSize = layers * layerSize
)

// startUpstream runs a registry with the given names until the spec ends.
func startUpstream(ctx context.Context, speed upstream.Speed, username, password string, names ...string) *upstream.Registry {
	GinkgoHelper()
	registry, err := land.StartRegistry(ctx, speed, username, password, names...)
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(registry.Close)
	return registry
}

// pushImage pushes an image that nobody has pulled before.
func pushImage(ctx context.Context, registry *upstream.Registry, repository string) {
	GinkgoHelper()
	image, err := landscape.NewImage(layers, layerSize)
	Expect(err).NotTo(HaveOccurred())
	Expect(landscape.Push(ctx, registry, repository, "v1", image)).To(Succeed())
}

// cache is a cache of an upstream with all defaults.
func cache(upstreamHost string) v1alpha3.RegistryCache {
	return v1alpha3.RegistryCache{Upstream: upstreamHost}
}

// applyCaches gives the Shoot these caches and no others, and waits until they
// are ready and the node pulls through them.
func applyCaches(ctx context.Context, caches ...v1alpha3.RegistryCache) {
	GinkgoHelper()
	status, err := shoot.ApplyCaches(ctx, caches...)
	Expect(err).NotTo(HaveOccurred())
	for _, cache := range caches {
		_, err := land.AwaitCache(ctx, cache.Upstream)
		Expect(err).NotTo(HaveOccurred())
	}
	_, err = shoot.UpdateNode(ctx)
	Expect(err).NotTo(HaveOccurred())
	for i, cache := range caches {
		// The first hosts.toml may be without it, if another host was quicker to answer.
		Eventually(os.ReadFile).WithArguments(hostsTOML(cache.Upstream)).Should(ContainSubstring(status.Caches[i].Endpoint))
	}
}

// pull runs a pod with an image that the node does not have, and returns what the
// pull took. The figures are part of the report.
func pull(ctx context.Context, registry *upstream.Registry, upstreamHost, repository, title string) landscape.Pull {
	GinkgoHelper()
	result, err := land.Run(ctx, registry, upstreamHost, upstreamHost+"/"+repository+":v1")
	Expect(err).NotTo(HaveOccurred())
	report(registry, title, result)
	return result
}

// pullImage is pull without a pod: containerd is asked as a kubelet asks it.
func pullImage(ctx context.Context, registry *upstream.Registry, upstreamHost, repository, title string) landscape.Pull {
	GinkgoHelper()
	result, err := land.PullImage(ctx, registry, upstreamHost, upstreamHost+"/"+repository+":v1")
	Expect(err).NotTo(HaveOccurred())
	report(registry, title, result)
	return result
}

// pullDirect pulls an image past all caches. Later pulls from the registry are
// reported with how they compare to it.
func pullDirect(ctx context.Context, registry *upstream.Registry, upstreamHost, repository, title string) {
	GinkgoHelper()
	result := pullImage(ctx, registry, upstreamHost, repository, title)
	expectDirect(result)
	direct[registry] = result.Duration
}

// direct is what a direct pull from a registry took.
var direct = map[*upstream.Registry]time.Duration{}

func report(registry *upstream.Registry, title string, result landscape.Pull) {
	GinkgoHelper()
	AddReportEntry("Pull: "+title, ReportEntryVisibilityAlways, describe(registry, result))
}

// describe tells what a pull took, beside a direct one.
func describe(registry *upstream.Registry, result landscape.Pull) string {
	compared := ""
	if reference := direct[registry]; reference > 0 {
		compared = fmt.Sprintf(" (%.2f of the direct pull's)", result.Duration.Seconds()/reference.Seconds())
	}
	return fmt.Sprintf("%.2f s%s; from the cache %.1f MiB; upstream: %d requests, %d blobs of %.1f MiB", result.Duration.Seconds(), compared,
		mebibytes(result.CacheBytes), result.Upstream.Requests(), result.Upstream.Blobs, mebibytes(result.Upstream.BlobBytes))
}

// expectHostsTOML expects that the node's hosts.toml of an upstream comes, or
// goes, within a time, and returns its content. The event is what has just
// happened.
func expectHostsTOML(ctx context.Context, upstreamHost string, there bool, within time.Duration, event string) string {
	GinkgoHelper()
	before := time.Now()
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	content, err := land.AwaitHostsTOML(ctx, upstreamHost, there)
	Expect(err).NotTo(HaveOccurred())
	change := map[bool]string{true: "has come", false: "is gone"}[there]
	AddReportEntry("hosts.toml "+change, ReportEntryVisibilityAlways, fmt.Sprintf("%.1f s after %s", time.Since(before).Seconds(), event))
	return content
}

// expectDirect expects that a pull went to the upstream alone.
func expectDirect(result landscape.Pull) {
	GinkgoHelper()
	Expect(result.CacheBytes).To(BeZero())
	Expect(result.Upstream.BlobBytes).To(BeNumerically(">", contentSize))
}

// expectCold expects that the cache served a pull, and fetched what it served.
func expectCold(result landscape.Pull) {
	GinkgoHelper()
	Expect(result.CacheBytes).To(BeNumerically(">", contentSize))
	Expect(result.Upstream.BlobBytes).To(BeNumerically("==", result.CacheBytes))
}

// expectWarm expects that the cache served a pull of what it had.
func expectWarm(result landscape.Pull) {
	GinkgoHelper()
	Expect(result.CacheBytes).To(BeNumerically(">", contentSize))
	Expect(result.Upstream.Blobs).To(BeZero())
	Expect(result.Upstream.BlobBytes).To(BeZero())
}

func mebibytes(bytes int64) float64 { return float64(bytes) / (1 << 20) }

func withSecret(cache v1alpha3.RegistryCache, reference string) v1alpha3.RegistryCache {
	cache.SecretReferenceName = ptr.To(reference)
	return cache
}
