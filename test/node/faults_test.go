// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package node_test

import (
	"context"
	"strconv"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/gardener/gardener-extension-registry-cache/pkg/hosts"
	"github.com/gardener/gardener-extension-registry-cache/test/upstream"
)

var _ = Describe("a cache that answers, but wrongly", func() {
	// All at the same time: a node has a cache for each upstream, and withdrawal
	// takes its time.
	It("costs little whatever it answers", func(ctx SpecContext) {
		faults := []struct {
			name   string
			begins func(*double)
		}{
			{"answers 500", func(d *double) { d.answer(serverError) }},
			{"answers garbage", func(d *double) { d.answer(noHTTP) }},
			{"with TLS of a wrong CA", func(d *double) { d.present(newAuthority("Other").issue(cacheAddress)) }},
			{"with an expired certificate", func(d *double) {
				d.present(d.ca.issueFor(time.Now().Add(-2*time.Hour), time.Now().Add(-time.Minute), cacheAddress))
			}},
		}
		var doubles []*double
		var trials []*trial
		var registries []hosts.Registry
		for i, fault := range faults {
			d := startDouble(ctx, cacheAddress, strconv.Itoa(5000+i))
			doubles = append(doubles, d)
			trials = append(trials, newTrial(ctx, "cache "+fault.name, 1))
			registries = append(registries, registryOf(moreNames[i], cacheHost(d.url(), d.ca)))
		}
		startHealthy(registries...)

		began := time.Now()
		for i, fault := range faults {
			fault.begins(doubles[i])
		}
		for i, t := range trials {
			for _, c := range containerds {
				t.expectDirect(t.atOnce(ctx, c, moreNames[i], "at once", "succeeds"))
			}
		}
		for i, t := range trials {
			t.awaitHosts(ctx, moreNames[i], began, withdrawn, "withdrawn")
		}
		for i, t := range trials {
			for _, c := range containerds {
				t.expectDirect(t.once(ctx, c, moreNames[i], "after withdrawal", "succeeds"))
			}
		}
		Expect(doubles[0].requests.Load()).NotTo(BeZero(), "containerd has met the fault")
		Expect(doubles[1].requests.Load()).NotTo(BeZero(), "containerd has met the fault")
	})

	It("is withdrawn if it is no registry, of which containerd takes what it gets", func(ctx SpecContext) {
		t := newTrial(ctx, "a web server has the cache's address", 1)
		d := startDouble(ctx, cacheAddress, cachePort)
		startHealthy(registryOf(cachedName, cacheHost(d.url(), d.ca)))

		d.answer(webPage)
		began := time.Now()
		for _, c := range containerds {
			c.forget(ctx)
			took, _, err := c.pull(ctx, t.reference(cachedName))
			Expect(err).To(MatchError(ContainSubstring("media type")), "or such a host need not be withdrawn")
			t.record(c, "at once: fails", "", took, upstream.Counts{})
		}
		t.awaitHosts(ctx, cachedName, began, withdrawn, "withdrawn")
		for _, c := range containerds {
			t.expectDirect(t.once(ctx, c, cachedName, "repeated after withdrawal", "succeeds"))
		}
	})

	It("cannot hold up pulls for ever by sending headers alone", func(ctx SpecContext) {
		t := newTrial(ctx, "cache hangs after headers", 1)
		content, err := upstream.Start(folder("registry"), "", "")
		Expect(err).NotTo(HaveOccurred())
		DeferCleanup(content.Close)
		t.image.push(ctx, content, t.image.tag)
		d := startDouble(ctx, cacheAddress, cachePort)
		startHealthy(registryOf(cachedName, cacheHost(d.url(), d.ca)))

		d.answer(hangAfterHeaders(content))
		began := time.Now()
		results := make([]chan pullResult, len(containerds))
		for i, c := range containerds {
			results[i] = t.pullInBackground(ctx, c, cachedName)
		}
		t.awaitHosts(ctx, cachedName, began, withdrawn, "withdrawn")
		// As the kubelet of its node ends a pod that is not live: containerd 2 does not
		// give up by itself.
		Expect(d.server.Close()).To(Succeed())
		for i, c := range containerds {
			var result pullResult
			Eventually(results[i], pullTimeout).Should(Receive(&result))
			Expect(d.requests.Load()).NotTo(BeZero(), "containerd has met the fault")
			t.record(c, "at once, ended with the withdrawal: "+result.outcome(), "", result.took, upstream.Counts{})
		}
		for _, c := range containerds {
			t.once(ctx, c, cachedName, "repeated after withdrawal", "succeeds")
		}
	})
})

// pullResult is what came of a pull in the background.
type pullResult struct {
	took time.Duration
	err  error
}

func (r pullResult) outcome() string {
	if r.err != nil {
		GinkgoWriter.Println("pull at once:", r.err)
		return "fails"
	}
	return "succeeds"
}

// pullInBackground pulls as the kubelet does, without a limit of time.
func (t *trial) pullInBackground(ctx context.Context, c *containerd, host string) chan pullResult {
	GinkgoHelper()
	c.forget(ctx)
	results := make(chan pullResult, 1)
	go func() {
		took, _, err := c.pull(ctx, t.reference(host))
		results <- pullResult{took: took, err: err}
	}()
	return results
}
