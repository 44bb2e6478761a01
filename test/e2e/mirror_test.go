// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"os"
	"regexp"
	"slices"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"k8s.io/utils/ptr"

	"github.com/gardener/gardener-extension-registry-cache/pkg/apis/mirror/v1alpha1"
	"github.com/gardener/gardener-extension-registry-cache/test/landscape"
	"github.com/gardener/gardener-extension-registry-cache/test/upstream"
)

var _ = Describe("Mirrors", func() {
	It("serve what they are to serve while they answer, after the cache and before the upstream", func(ctx SpecContext) {
		const upstreamHost = "mirrored.test"
		m := startMirrored(ctx, upstreamHost)
		pullDirect(ctx, m.upstream, upstreamHost, "app", "direct")
		m.expectPull(ctx, "direct, no mirrors yet", "upstream", "upstream")

		By("adding a mirror to pull from, with a private CA and a path")
		DeferCleanup(func(ctx SpecContext) {
			Expect(shoot.DisableMirrors(ctx)).To(Succeed())
			Expect(shoot.UpdateNode(ctx)).Error().NotTo(HaveOccurred())
		})
		Expect(shoot.DisableExtension(ctx)).To(Succeed())
		private := v1alpha1.MirrorHost{Host: "https://private-mirror.test/v2/proxy", OverridePath: ptr.To(true), CABundleSecretReferenceName: ptr.To("mirror-ca")}
		applyMirrors(ctx, upstreamHost, private)
		Expect(expectHostsTOML(ctx, upstreamHost, true, restoredWithin, "the mirror was added")).To(ContainSubstring("/v2/proxy"))
		m.expectPull(ctx, "pull-only mirror", "upstream", "private")

		By("adding a cache and a mirror that resolves tags")
		public := v1alpha1.MirrorHost{Host: "https://public-mirror.test", Capabilities: []v1alpha1.MirrorHostCapability{"pull", "resolve"}}
		Expect(shoot.ApplyMirrors(ctx, v1alpha1.MirrorConfiguration{Upstream: upstreamHost, Hosts: []v1alpha1.MirrorHost{private, public}})).To(Succeed())
		applyCaches(ctx, cache(upstreamHost))
		expectHosts(ctx, upstreamHost, "the cache answered", HavePrefix("https://10.96."), private.Host, public.Host)
		expectCold(pullImage(ctx, m.upstream, upstreamHost, "app", "cold, cache and mirrors"))
		m.expectPull(ctx, "warm, cache and mirrors", "upstream", "cache")

		By("stopping one after the other")
		DeferCleanup(func(ctx SpecContext) { Expect(shoot.ScaleCache(ctx, upstreamHost, 1)).To(Succeed()) })
		Expect(shoot.ScaleCache(ctx, upstreamHost, 0)).To(Succeed())
		m.expectPull(ctx, "cache just gone", "public", "private")
		expectHosts(ctx, upstreamHost, "the pull", private.Host, public.Host)
		m.expectPull(ctx, "cache withdrawn", "public", "private")
		Expect(m.mirrors["private"].Close()).To(Succeed())
		m.expectPull(ctx, "first mirror just gone", "public", "public")
		expectHosts(ctx, upstreamHost, "the pull", public.Host)
		m.expectPull(ctx, "first mirror withdrawn", "public", "public")
		Expect(m.mirrors["public"].Close()).To(Succeed())
		m.expectPull(ctx, "all mirrors just gone", "upstream", "upstream")
		expectHostsTOML(ctx, upstreamHost, false, withdrawnWithin, "the pull")
		m.expectPull(ctx, "all mirrors withdrawn", "upstream", "upstream")

		By("starting the cache")
		Expect(shoot.ScaleCache(ctx, upstreamHost, 1)).To(Succeed())
		_, err := land.AwaitCache(ctx, upstreamHost)
		Expect(err).NotTo(HaveOccurred())
		expectHostsTOML(ctx, upstreamHost, true, restoredWithin, "the first answer of the cache")
		m.expectPull(ctx, "warm, the cache is back", "upstream", "cache")
	}, SpecTimeout(5*time.Minute))
})

// mirrored is an upstream with mirrors, all of which have the same image.
type mirrored struct {
	upstreamHost string
	upstream     *upstream.Registry
	mirrors      map[string]*upstream.Registry
}

// startMirrored runs an upstream with two mirrors: one that is private and serves
// below a path, and one that is public.
func startMirrored(ctx context.Context, upstreamHost string) *mirrored {
	GinkgoHelper()
	private, ca, err := land.StartPrivateRegistry(ctx, upstream.Speed{}, "private-mirror.test")
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(private.Close)
	Expect(shoot.ReferToSecret(ctx, "mirror-ca", map[string][]byte{"bundle.crt": ca})).To(Succeed())

	m := &mirrored{upstreamHost: upstreamHost, upstream: startUpstream(ctx, far, "", "", upstreamHost)}
	m.mirrors = map[string]*upstream.Registry{"private": private, "public": startUpstream(ctx, upstream.Speed{}, "", "", "public-mirror.test")}
	image, err := landscape.NewImage(layers, layerSize)
	Expect(err).NotTo(HaveOccurred())
	for _, registry := range []*upstream.Registry{m.upstream, m.mirrors["private"], m.mirrors["public"]} {
		Expect(landscape.Push(ctx, registry, "app", "v1", image)).To(Succeed())
	}
	private.Intercept(func(next http.Handler) http.Handler {
		return http.StripPrefix("/v2/proxy", http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
			request.URL.Path = "/v2" + request.URL.Path
			next.ServeHTTP(w, request)
		}))
	})
	return m
}

// expectPull pulls the image, and expects that its tag was resolved and its layers
// were served by these, and by nobody else: "upstream", "cache" or the name of a
// mirror. A cache that has the image asks the upstream for the tag only.
func (m *mirrored) expectPull(ctx context.Context, title, tag, blobs string) {
	GinkgoHelper()
	before := map[string]upstream.Counts{}
	for name, mirror := range m.mirrors {
		before[name] = mirror.Counts()
	}
	result, err := land.PullImage(ctx, m.upstream, m.upstreamHost, m.upstreamHost+"/app:v1")
	Expect(err).NotTo(HaveOccurred())

	served := map[string]int64{"cache": result.CacheBytes, "upstream": result.Upstream.BlobBytes}
	resolved := map[string]int64{"upstream": result.Upstream.Heads}
	figures := describe(m.upstream, result)
	for _, name := range slices.Sorted(maps.Keys(m.mirrors)) {
		counts := m.mirrors[name].Since(before[name])
		served[name], resolved[name] = counts.BlobBytes, counts.Heads
		figures += fmt.Sprintf("; mirror %s: %d requests, %d blobs of %.1f MiB", name, counts.Requests(), counts.Blobs, mebibytes(counts.BlobBytes))
	}
	AddReportEntry("Pull: "+title, ReportEntryVisibilityAlways, figures)
	for name, bytes := range served {
		if name == blobs {
			Expect(bytes).To(BeNumerically(">", contentSize), name)
		} else {
			Expect(bytes).To(BeZero(), name)
		}
	}
	for name, heads := range resolved {
		if name == tag {
			Expect(heads).NotTo(BeZero(), name)
		} else {
			Expect(heads).To(BeZero(), name)
		}
	}
}

// applyMirrors gives the Shoot these mirrors of an upstream, and the node too.
func applyMirrors(ctx context.Context, upstreamHost string, hosts ...v1alpha1.MirrorHost) {
	GinkgoHelper()
	Expect(shoot.ApplyMirrors(ctx, v1alpha1.MirrorConfiguration{Upstream: upstreamHost, Hosts: hosts})).To(Succeed())
	Expect(shoot.UpdateNode(ctx)).Error().NotTo(HaveOccurred())
}

// hostsOf returns the hosts in the node's hosts.toml of an upstream, in their
// order.
func hostsOf(upstreamHost string) ([]string, error) {
	content, err := os.ReadFile(hostsTOML(upstreamHost))
	if err != nil {
		return nil, err
	}
	var hosts []string
	for _, match := range hostPattern.FindAllStringSubmatch(string(content), -1) {
		hosts = append(hosts, match[1])
	}
	return hosts, nil
}

var hostPattern = regexp.MustCompile(`(?m)^\[host\.'(.*)'\]$`)

// expectHosts expects that soon after an event these are in the node's hosts.toml
// of an upstream.
func expectHosts(ctx context.Context, upstreamHost, event string, hosts ...any) {
	GinkgoHelper()
	before := time.Now()
	Eventually(hostsOf).WithContext(ctx).WithArguments(upstreamHost).WithTimeout(withdrawnWithin).Should(HaveExactElements(hosts...))
	AddReportEntry("hosts.toml has changed", ReportEntryVisibilityAlways, fmt.Sprintf("%.1f s after %s", time.Since(before).Seconds(), event))
}
