// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package node_test

import (
	"os"
	"path/filepath"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
)

// kubeletBackoff is after how long the kubelet repeats a pull that has failed, the
// first time.
const kubeletBackoff = 10 * time.Second

// damage changes a byte of the first layer of an image on the cache's volume.
func (c *cache) damage(damaged image) {
	GinkgoHelper()
	manifest, err := damaged.content.Manifest()
	Expect(err).NotTo(HaveOccurred())
	hex := manifest.Layers[0].Digest.Hex
	file := filepath.Join(c.path("storage"), "docker/registry/v2/blobs/sha256", hex[:2], hex, "data")
	content, err := os.ReadFile(file)
	Expect(err).NotTo(HaveOccurred())
	content[len(content)/2] ^= 1
	Expect(os.WriteFile(file, content, 0o600)).To(Succeed())
}

// ingests returns what containerd has of content that is not complete.
func (c *containerd) ingests() ([]string, error) {
	return filepath.Glob(c.path("root/io.containerd.content.v1.content/ingest/*"))
}

var _ = Describe("a cache whose volume has changed a layer", func() {
	It("gives what is right to who pulls again", func(ctx SpecContext) {
		t := newTrial(ctx, "a layer changed on the volume", 1)
		for _, c := range containerds {
			cache := startCache(ctx, cacheAddress)
			script := startHealthy(cache.registry())
			t.pull(ctx, c, cachedName)
			cache.damage(t.image)

			c.forget(ctx)
			before := registry.Counts()
			took, _, err := c.pull(ctx, t.reference(cachedName))
			Expect(err).To(MatchError(ContainSubstring("unexpected commit digest")), "or nothing need be hashed")
			t.record(c, "at once: fails", "", took, registry.Since(before))

			// containerd keeps the wrong layer at its full length, and would take it again
			// without asking for it, until its garbage collection has seen that the failed
			// pull has ended. That is long before the kubelet repeats it.
			Eventually(c.ingests, kubeletBackoff).Should(BeEmpty())
			counts := t.once(ctx, c, cachedName, "repeated", "1 blob request")
			Expect(counts.Blobs).To(BeEquivalentTo(1), "the layer that was wrong")
			t.expectHit(t.once(ctx, c, cachedName, "repeated once more", "0 blob bytes"))
			script.stop()
			cache.stop()
		}
	})
})
