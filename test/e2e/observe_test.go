// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/gardener/gardener-extension-registry-cache/test/upstream"
)

// Who has written a hosts.toml is in its first line.
const (
	writtenByUs        = "# Written by registry-hosts.service"
	writtenByNodeAgent = "# managed by gardener-node-agent"
)

// observation is what happened on the node in a time in which it pulled an image
// again and again.
type observation struct {
	began time.Time
	// writers are those of hosts.toml, one after the other, with the time at which
	// each was seen first; last is the last of them.
	writers []string
	last    string
	// cached and direct are how many pulls the cache served, and how many the upstream
	// had to send blobs for; slowest is the longest of them, with the time in which the
	// node forgets the image again.
	cached, direct int
	slowest        time.Duration
	failures       []error
}

// observe pulls the image app:v1 once or more, and looks at the upstream's hosts.toml,
// until it is told to stop. What happened is reported with what that is to be called.
func observe(ctx context.Context, registry *upstream.Registry, upstreamHost string) (stop func(what string) *observation) {
	var (
		result  = &observation{began: time.Now()}
		stopped = make(chan struct{})
		end     = sync.OnceFunc(func() { close(stopped) })
		group   sync.WaitGroup
	)
	// Before the caller changes it.
	result.look(upstreamHost)
	group.Go(func() { result.watch(stopped, upstreamHost) })
	group.Go(func() {
		for {
			result.pull(ctx, registry, upstreamHost+"/app:v1")
			if isClosed(stopped) || len(result.failures) > 0 {
				return
			}
		}
	})
	wait := func() {
		end()
		group.Wait()
	}
	DeferCleanup(wait)
	return func(what string) *observation {
		GinkgoHelper()
		wait()
		AddReportEntry("Pulls: during "+what, ReportEntryVisibilityAlways, fmt.Sprintf(
			"%d through the cache, %d with blobs of the upstream, the slowest in %.2f s, %d failed; hosts.toml is written by %s",
			result.cached, result.direct, result.slowest.Seconds(), len(result.failures), strings.Join(result.writers, ", ")))
		return result
	}
}

// pull pulls an image, and asks nobody but the node and the upstream's counters: a
// pod that ends may not answer.
func (o *observation) pull(ctx context.Context, registry *upstream.Registry, image string) {
	before, began := registry.Counts(), time.Now()
	err := land.PullAndForget(ctx, image)
	duration, sent := time.Since(began), registry.Since(before).BlobBytes
	switch {
	case err != nil:
		o.failures = append(o.failures, err)
	case sent == 0:
		o.cached++
	default:
		o.direct++
	}
	o.slowest = max(o.slowest, duration)
}

// watch records changes of the writer until it is told to stop, and then once more:
// what the caller has seen before that is always recorded.
func (o *observation) watch(stopped <-chan struct{}, upstreamHost string) {
	for ; !isClosed(stopped); time.Sleep(5 * time.Millisecond) {
		o.look(upstreamHost)
	}
	o.look(upstreamHost)
}

// look records the writer if it is another than before.
func (o *observation) look(upstreamHost string) {
	if writer := writerOf(hostsTOML(upstreamHost)); writer != o.last {
		o.writers = append(o.writers, fmt.Sprintf("%s (%.2f s)", writer, time.Since(o.began).Seconds()))
		o.last = writer
	}
}

// writerOf says who has written a file: node-agent, us, somebody else, or nobody if
// there is none.
func writerOf(file string) string {
	content, err := os.ReadFile(file)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return "nobody"
	case strings.HasPrefix(string(content), writtenByUs):
		return "us"
	case strings.HasPrefix(string(content), writtenByNodeAgent):
		return "node-agent"
	}
	return "somebody else"
}

func isClosed(channel <-chan struct{}) bool {
	select {
	case <-channel:
		return true
	default:
		return false
	}
}

// expectNoFailure expects that each pull succeeded.
func (o *observation) expectNoFailure() {
	GinkgoHelper()
	Expect(o.failures).To(BeEmpty())
	Expect(o.cached + o.direct).NotTo(BeZero())
}

// expectSwitch expects that hosts.toml was gardener-node-agent's at first and is
// ours now, and nobody else's in between.
func (o *observation) expectSwitch() {
	GinkgoHelper()
	o.expectNoFailure()
	Expect(o.writers[0]).To(HavePrefix("node-agent"))
	Expect(o.writers[len(o.writers)-1]).To(HavePrefix("us"))
	Expect(o.writers).NotTo(ContainElement(HavePrefix("somebody else")))
}
