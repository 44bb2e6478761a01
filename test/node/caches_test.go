// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package node_test

import (
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
)

var _ = Describe("a cache", func() {
	It("serves pulls while it is healthy", func(ctx SpecContext) {
		t := newTrial(ctx, "cache healthy", 1)
		for _, c := range containerds {
			cache := startCache(ctx, cacheAddress)
			script := startHealthy(cache.registry())

			cold := t.once(ctx, c, cachedName, "cold", "succeeds")
			Expect(cold.BlobBytes).To(Equal(t.image.size), "each blob was fetched once")
			Expect(cold.Heads).To(BeZero(), "the cache resolved the tag")
			t.expectHit(t.compare(ctx, c, cachedName, "warm", "0 blob bytes"))
			script.stop()
			cache.stop()
		}
	})

	It("costs nothing when it is gone, and is used again when it is back", func(ctx SpecContext) {
		t := newTrial(ctx, "cache gone", repeats)
		cache := startCache(ctx, cacheAddress)
		startHealthy(cache.registry())
		// The cache has the image when it is back.
		t.pull(ctx, containerds[0], cachedName)

		cache.stop()
		gone := time.Now()
		for _, c := range containerds {
			t.expectDirect(t.atOnce(ctx, c, cachedName, "at once", "≤ 1.2"))
		}
		t.awaitHosts(ctx, cachedName, gone, withdrawn, "withdrawn")
		for _, c := range containerds {
			t.expectDirect(t.compare(ctx, c, cachedName, "after withdrawal", "≤ 1.2"))
		}

		returned := time.Now()
		cache.start(ctx)
		t.awaitHosts(ctx, cachedName, returned, back, "back", cache.url())
		for _, c := range containerds {
			t.expectHit(t.once(ctx, c, cachedName, "back again", "0 blob bytes"))
		}
	})

	It("costs little when packets to it vanish", func(ctx SpecContext) {
		t := newTrial(ctx, "cache black-holes", repeats)
		cache := startCache(ctx, cacheAddress)
		startHealthy(cache.registry())

		dropPackets(ctx, cacheAddress)
		vanished := time.Now()
		// An older containerd does not know dial_timeout, and waits for 30 seconds.
		t.expectDirect(t.atOnce(ctx, containerds[0], cachedName, "at once", "≤ direct + 1 s a request"))
		Expect(hostsOf(cachedName)).NotTo(BeNil(), "the pull did not wait for the withdrawal")
		t.awaitHosts(ctx, cachedName, vanished, withdrawn, "withdrawn")
		for _, c := range containerds {
			t.expectDirect(t.compare(ctx, c, cachedName, "after withdrawal", "≤ 1.05"))
		}
	})

	It("is not missed before it exists", func(ctx SpecContext) {
		t := newTrial(ctx, "node boots before the cache", repeats)
		cache := startCache(ctx, cacheAddress)
		dropPackets(ctx, cacheAddress)
		startScript(cache.registry())
		for _, c := range containerds {
			t.expectDirect(t.compare(ctx, c, cachedName, "before", "≤ 1.05"))
			Expect(hostsOf(cachedName)).To(BeNil())
		}

		deliverPackets(ctx)
		t.awaitHosts(ctx, cachedName, time.Now(), back, "written", cache.url())
		t.pull(ctx, containerds[0], cachedName)
		for _, c := range containerds {
			t.expectHit(t.once(ctx, c, cachedName, "warm", "0 blob bytes"))
		}
	})

	It("may move to another address", func(ctx SpecContext) {
		t := newTrial(ctx, "cluster IP changes", 1)
		old := startCache(ctx, cacheAddress)
		script := startHealthy(old.registry())

		old.stop()
		replacement := startCache(ctx, newCacheAddress)
		for _, c := range containerds {
			t.expectDirect(t.atOnce(ctx, c, cachedName, "before the OSC has changed", "≤ 1.2"))
		}
		changed := time.Now()
		script.reconfigure(replacement.registry())
		t.awaitHosts(ctx, cachedName, changed, back, "has the new address", replacement.url())
		t.pull(ctx, containerds[0], cachedName)
		for _, c := range containerds {
			t.expectHit(t.once(ctx, c, cachedName, "warm", "0 blob bytes"))
		}
	})
})
