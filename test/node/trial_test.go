// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package node_test

import (
	"context"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/gardener/gardener-extension-registry-cache/test/upstream"
)

// repeats is how often pulls are repeated that are compared: the shortest time
// counts, as what disturbs a pull only makes it longer.
const repeats = 3

// pullTimeout is less than the 30 seconds for which containerd dials a host
// unless hosts.toml says something else: a pull that waits for that has failed.
const pullTimeout = 25 * time.Second

// trial is one case of the table: an image, and what pulls of it took.
type trial struct {
	name  string
	image image
	// direct is how long a direct pull took.
	direct map[*containerd]time.Duration
}

// newTrial pushes an image and pulls it directly, some times.
func newTrial(ctx context.Context, name string, times int) *trial {
	GinkgoHelper()
	t := &trial{name: name, image: pushImage(ctx), direct: map[*containerd]time.Duration{}}
	for _, c := range containerds {
		for range times {
			t.pullDirect(ctx, c)
		}
	}
	return t
}

// pull pulls the image, which the node does not have.
func (t *trial) pull(ctx context.Context, c *containerd, host string) (time.Duration, upstream.Counts) {
	GinkgoHelper()
	c.forget(ctx)
	before := registry.Counts()
	ctx, cancel := context.WithTimeout(ctx, pullTimeout)
	defer cancel()
	took, id, err := c.pull(ctx, t.reference(host))
	Expect(err).NotTo(HaveOccurred(), "containerd %s", c.version)
	Expect(id).To(Equal(t.image.id()))
	return took, registry.Since(before)
}

func (t *trial) reference(host string) string { return host + "/" + repository + ":" + t.image.tag }

func (t *trial) pullDirect(ctx context.Context, c *containerd) {
	GinkgoHelper()
	took, counts := t.pull(ctx, c, directName)
	t.expectDirect(counts)
	if known, found := t.direct[c]; !found || took < known {
		t.direct[c] = took
	}
}

// once pulls the image by a name that may have a hosts.toml. The figures become a
// row of the table; wanted is what they should be.
func (t *trial) once(ctx context.Context, c *containerd, host, what, wanted string) upstream.Counts {
	GinkgoHelper()
	took, counts := t.pull(ctx, c, host)
	t.record(c, what, wanted, took, counts)
	return counts
}

// atOnce is once for a host of which hosts.toml has not heard yet that it is gone.
func (t *trial) atOnce(ctx context.Context, c *containerd, host, what, wanted string) upstream.Counts {
	GinkgoHelper()
	Expect(hostsOf(host)).NotTo(BeEmpty(), "the machine is too slow")
	return t.once(ctx, c, host, what, wanted)
}

// compare pulls the image some times, taking turns with direct pulls. It returns
// the counts of the last pull.
func (t *trial) compare(ctx context.Context, c *containerd, host, what, wanted string) upstream.Counts {
	GinkgoHelper()
	var shortest time.Duration
	var counts upstream.Counts
	for i := range repeats {
		var took time.Duration
		took, counts = t.pull(ctx, c, host)
		if i == 0 || took < shortest {
			shortest = took
		}
		t.pullDirect(ctx, c)
	}
	t.record(c, what, wanted, shortest, counts)
	return counts
}

func (t *trial) record(c *containerd, what, wanted string, took time.Duration, counts upstream.Counts) {
	row := pullRow{trial: t.name, containerd: c.version, what: what, wanted: wanted, took: took, direct: t.direct[c], upstream: counts}
	figures.pulls = append(figures.pulls, row)
	AddReportEntry(what+", containerd "+c.version, ReportEntryVisibilityAlways, row.String())
}

// expectDirect expects that all content came from the upstream, once.
func (t *trial) expectDirect(counts upstream.Counts) {
	GinkgoHelper()
	Expect(counts.BlobBytes).To(Equal(t.image.size))
	Expect(counts.Heads).To(BeEquivalentTo(1), "the tag was resolved at the upstream")
}

// expectHit expects that no content came from the upstream.
func (t *trial) expectHit(counts upstream.Counts) {
	GinkgoHelper()
	Expect(counts.Blobs).To(BeZero())
	Expect(counts.BlobBytes).To(BeZero())
}
