// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package node_test

import (
	"context"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"k8s.io/utils/ptr"

	"github.com/gardener/gardener-extension-registry-cache/pkg/hosts"
	"github.com/gardener/gardener-extension-registry-cache/test/upstream"
)

const (
	mirrorURL      = "https://" + mirrorName
	otherMirrorURL = "https://" + otherMirrorName
)

// startMirror runs a registry that has the trial's image.
func (t *trial) startMirror(ctx context.Context, address string, signer *authority) *upstream.Registry {
	GinkgoHelper()
	mirror := startRegistry(ctx, address, signer, upstream.Speed{})
	t.image.push(ctx, mirror, t.image.tag)
	return mirror
}

func mirrorHost(url string) hosts.Host { return hosts.Host{Kind: hosts.Mirror, URL: url} }

// expectFrom expects that a pull got everything from a mirror.
func (t *trial) expectFrom(mirror *upstream.Registry, before upstream.Counts, atUpstream upstream.Counts) {
	GinkgoHelper()
	t.expectHit(atUpstream)
	Expect(mirror.Since(before).BlobBytes).To(Equal(t.image.size))
}

var _ = Describe("a mirror", func() {
	It("costs little when it is down", func(ctx SpecContext) {
		t := newTrial(ctx, "mirror down", repeats)
		refusing, vanishing := t.startMirror(ctx, mirrorAddress, internet), t.startMirror(ctx, otherMirrorAddress, internet)
		startHealthy(registryOf(moreNames[0], mirrorHost(mirrorURL)), registryOf(moreNames[1], mirrorHost(otherMirrorURL)))
		for _, c := range containerds {
			before := refusing.Counts()
			t.expectFrom(refusing, before, t.once(ctx, c, moreNames[0], "up", "0 blob bytes"))
		}

		Expect(refusing.Close()).To(Succeed())
		dropPackets(ctx, otherMirrorAddress)
		down := time.Now()
		for _, c := range containerds {
			t.expectDirect(t.atOnce(ctx, c, moreNames[0], "connection refused, at once", "≤ 1.2"))
		}
		before := vanishing.Counts()
		t.expectDirect(t.atOnce(ctx, containerds[0], moreNames[1], "black hole, at once", "≤ direct + 1 s a request"))
		Expect(vanishing.Since(before)).To(BeZero())
		Expect(hostsOf(moreNames[1])).NotTo(BeNil(), "the pull did not wait for the withdrawal")
		t.awaitHosts(ctx, moreNames[0], down, withdrawn, "connection refused, withdrawn")
		t.awaitHosts(ctx, moreNames[1], down, withdrawn, "black hole, withdrawn")
		for _, c := range containerds {
			t.expectDirect(t.compare(ctx, c, moreNames[1], "black hole, after withdrawal", "≤ 1.05"))
		}
	})

	It("may have a certificate of a private CA", func(ctx SpecContext) {
		t := newTrial(ctx, "mirror with private CA", 1)
		private := newAuthority("Private")
		mirror := t.startMirror(ctx, mirrorAddress, private)
		host := mirrorHost(mirrorURL)
		host.CABundle = private.pem
		script := startHealthy(registryOf(cachedName, host))
		for _, c := range containerds {
			before := mirror.Counts()
			t.expectFrom(mirror, before, t.once(ctx, c, cachedName, "CA configured", "0 blob bytes"))
		}

		script.reconfigure(registryOf(cachedName, mirrorHost(mirrorURL)))
		Consistently(func() []string { return hostsOf(cachedName) }, "1s").Should(BeNil())
		for _, c := range containerds {
			t.expectDirect(t.once(ctx, c, cachedName, "CA not configured", "direct"))
		}
	})

	It("may serve below a path", func(ctx SpecContext) {
		t := newTrial(ctx, "mirror below a path", 1)
		mirror := t.startMirror(ctx, mirrorAddress, internet)
		var strays atomic.Int64
		mirror.Intercept(func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				for _, prefix := range []string{"/complete/", "/prefix/v2/"} {
					if rest, found := strings.CutPrefix(r.URL.Path, prefix); found {
						r.URL.Path = "/v2/" + rest
						next.ServeHTTP(w, r)
						return
					}
				}
				strays.Add(1)
				w.WriteHeader(http.StatusNotFound)
			})
		})
		complete, prefix := mirrorHost(mirrorURL+"/complete"), mirrorHost(mirrorURL+"/prefix")
		complete.OverridePath = ptr.To(true)
		startHealthy(registryOf(moreNames[0], complete), registryOf(moreNames[1], prefix))
		for _, c := range containerds {
			before := mirror.Counts()
			t.expectFrom(mirror, before, t.once(ctx, c, moreNames[0], "overridePath: true", "0 blob bytes"))
			before = mirror.Counts()
			t.expectFrom(mirror, before, t.once(ctx, c, moreNames[1], "overridePath: false", "0 blob bytes"))
		}
		Expect(strays.Load()).To(BeZero())
	})

	It("may be for content only, while tags are those of the upstream", func(ctx SpecContext) {
		t := newTrial(ctx, "mirror for content only", 1)
		mirror := t.startMirror(ctx, mirrorAddress, internet)
		// What the mirror has at the tag is old.
		t.image.push(ctx, mirror, "latest")
		pushImage(ctx).push(ctx, mirror, t.image.tag)
		host := mirrorHost(mirrorURL)
		host.Capabilities = []string{"pull"}
		startHealthy(registryOf(cachedName, host))
		for _, c := range containerds {
			before := mirror.Counts()
			atUpstream := t.once(ctx, c, cachedName, "tag of the upstream, blobs of the mirror", "0 blob bytes, 1 manifest")
			t.expectFrom(mirror, before, atUpstream)
			Expect(atUpstream.Heads).To(BeEquivalentTo(1))
			Expect(mirror.Since(before).Heads).To(BeZero())
		}
	})

	It("comes after the cache, and before the upstream", func(ctx SpecContext) {
		t := newTrial(ctx, "cache and mirrors", 1)
		first, second := t.startMirror(ctx, mirrorAddress, internet), t.startMirror(ctx, otherMirrorAddress, internet)
		cache := startCache(ctx, cacheAddress)
		startHealthy(registryOf(cachedName, cacheHost(cache.url(), cache.ca), mirrorHost(mirrorURL), mirrorHost(otherMirrorURL)))
		beforeFirst, beforeSecond := first.Counts(), second.Counts()
		cold := t.once(ctx, containerds[0], cachedName, "cold, from the cache", "succeeds")
		Expect(cold.BlobBytes).To(Equal(t.image.size))
		for _, c := range containerds {
			t.expectHit(t.once(ctx, c, cachedName, "warm, from the cache", "0 blob bytes"))
		}
		Expect(first.Since(beforeFirst).BlobBytes + second.Since(beforeSecond).BlobBytes).To(BeZero())

		cache.stop()
		down := time.Now()
		for _, c := range containerds {
			before := first.Counts()
			t.expectFrom(first, before, t.once(ctx, c, cachedName, "cache gone, from the first mirror", "0 blob bytes"))
		}
		t.awaitHosts(ctx, cachedName, down, withdrawn, "without the cache", mirrorURL, otherMirrorURL)
		Expect(first.Close()).To(Succeed())
		for _, c := range containerds {
			before := second.Counts()
			t.expectFrom(second, before, t.once(ctx, c, cachedName, "mirror gone, from the second mirror", "0 blob bytes"))
		}
		Expect(second.Close()).To(Succeed())
		for _, c := range containerds {
			t.expectDirect(t.once(ctx, c, cachedName, "all gone, at once", "≤ 1.2"))
		}
	})
})
