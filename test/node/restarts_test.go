// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package node_test

import (
	"syscall"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
)

var _ = Describe("a node", func() {
	It("pulls through the cache after a restart of containerd", func(ctx SpecContext) {
		t := newTrial(ctx, "containerd restarted", 1)
		cache := startCache(ctx, cacheAddress)
		startHealthy(cache.registry())
		t.pull(ctx, containerds[0], cachedName)

		for _, c := range containerds {
			c.restart(ctx)
			t.expectHit(t.once(ctx, c, cachedName, "warm", "0 blob bytes"))
		}
		Expect(hostsOf(cachedName)).To(Equal([]string{cache.url()}))
	})

	It("pulls directly while the unit is stopped", func(ctx SpecContext) {
		t := newTrial(ctx, "unit stopped and started", 1)
		cache := startCache(ctx, cacheAddress)
		script := startHealthy(cache.registry())
		t.pull(ctx, containerds[0], cachedName)

		script.kill(syscall.SIGTERM)
		Expect(hostsOf(cachedName)).To(BeNil())
		for _, c := range containerds {
			t.expectDirect(t.once(ctx, c, cachedName, "stopped", "direct"))
		}
		started := time.Now()
		script.start()
		t.awaitHosts(ctx, cachedName, started, back, "back", cache.url())
		for _, c := range containerds {
			t.expectHit(t.once(ctx, c, cachedName, "started", "0 blob bytes"))
		}

		By("killing the script: systemd then runs ExecStopPost")
		script.kill(syscall.SIGKILL)
		Expect(hostsOf(cachedName)).NotTo(BeNil())
		script.stop()
		Expect(hostsOf(cachedName)).To(BeNil())
	})

	It("boots with a hosts.toml from before a power failure", func(ctx SpecContext) {
		t := newTrial(ctx, "node rebooted", 1)
		cache := startCache(ctx, cacheAddress)
		script := startHealthy(cache.registry())
		t.pull(ctx, containerds[0], cachedName)

		script.kill(syscall.SIGKILL)
		dropPackets(ctx, cacheAddress)
		Expect(hostsOf(cachedName)).NotTo(BeNil())
		booted := time.Now()
		script.start()
		t.awaitHosts(ctx, cachedName, booted, time.Second, "of before is withdrawn")
		for _, c := range containerds {
			t.expectDirect(t.once(ctx, c, cachedName, "booted, without a network of Services", "direct"))
		}
		Expect(hostsOf(cachedName)).To(BeNil())

		deliverPackets(ctx)
		t.awaitHosts(ctx, cachedName, time.Now(), back, "back", cache.url())
		for _, c := range containerds {
			t.expectHit(t.once(ctx, c, cachedName, "booted", "0 blob bytes"))
		}
	})

	// The clock of the whole machine cannot be set here. All that depends on it is
	// whether certificates are valid.
	It("uses the cache once its clock is right", func(ctx SpecContext) {
		t := newTrial(ctx, "clock is behind, then right", 1)
		valid := time.Now().Add(15 * time.Second).Truncate(time.Second)
		cache := startCacheFrom(ctx, cacheAddress, valid)
		startScript(cache.registry())
		for _, c := range containerds {
			t.expectDirect(t.once(ctx, c, cachedName, "certificate not valid yet", "direct"))
		}
		Expect(time.Now()).To(BeTemporally("<", valid), "the machine is too slow")
		Consistently(func() []string { return hostsOf(cachedName) }).WithTimeout(time.Until(valid)).Should(BeNil())

		t.awaitHosts(ctx, cachedName, valid, back, "written", cache.url())
		t.pull(ctx, containerds[0], cachedName)
		for _, c := range containerds {
			t.expectHit(t.once(ctx, c, cachedName, "certificate valid", "0 blob bytes"))
		}
	})
})
