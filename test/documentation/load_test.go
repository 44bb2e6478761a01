// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package documentation_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/gardener/gardener-extension-registry-cache/test/landscape"
	"github.com/gardener/gardener-extension-registry-cache/test/upstream"
)

// loadImages is how many images are pulled in turn.
const loadImages = 3

// load is what a node does all the time: it pulls one image after the other, which
// it then forgets. Beside it OperatingSystemConfigs are written, as gardenlet does,
// which the webhook has to answer.
type load struct {
	end   func()
	group sync.WaitGroup

	mu     sync.Mutex
	phases []*phase
}

// phase is a part of the time, with what happened in it.
type phase struct {
	name string
	// cached and direct are how many pulls the cache served, and how many the upstream
	// had to send blobs for. configurations are the OperatingSystemConfigs.
	cached, direct, configurations int
	slowest                        time.Duration
	failures                       []error
}

// startLoad starts with images that nobody has pulled before.
func startLoad(ctx context.Context, registry *upstream.Registry, shoot *landscape.Shoot) *load {
	GinkgoHelper()
	for i := range loadImages {
		pushImage(ctx, registry, fmt.Sprint("load-", i))
	}
	stopped := make(chan struct{})
	l := &load{phases: []*phase{{name: "cold"}}, end: sync.OnceFunc(func() { close(stopped) })}
	l.group.Go(func() {
		for i := 0; !isClosed(stopped); i++ {
			l.pull(ctx, registry, fmt.Sprint("load-", i%loadImages))
		}
	})
	l.group.Go(func() {
		for !isClosed(stopped) {
			l.configure(ctx, shoot)
			time.Sleep(200 * time.Millisecond)
		}
	})
	DeferCleanup(func() {
		l.end()
		l.group.Wait()
	})
	l.awaitAll(true)
	return l
}

func isClosed(channel <-chan struct{}) bool {
	select {
	case <-channel:
		return true
	default:
		return false
	}
}

// pull pulls an image once. There is no second try, as a kubelet has.
func (l *load) pull(ctx context.Context, registry *upstream.Registry, repository string) {
	before, began := registry.Counts(), time.Now()
	err := land.PullAndForget(ctx, upstreamHost+"/"+repository+":v1")
	duration, sent := time.Since(began), registry.Since(before).Blobs
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.phases[len(l.phases)-1]
	switch {
	case err != nil:
		now.failures = append(now.failures, err)
	case sent == 0:
		now.cached++
	default:
		now.direct++
	}
	now.slowest = max(now.slowest, duration)
}

// configure writes an OperatingSystemConfig once, which has to get the files of the
// caches.
func (l *load) configure(ctx context.Context, shoot *landscape.Shoot) {
	osc, err := shoot.WriteOperatingSystemConfig(ctx)
	if err == nil {
		err = fmt.Errorf("an OperatingSystemConfig got no file of %s", upstreamHost)
		for _, file := range osc.Spec.Files {
			if strings.Contains(file.Path, upstreamHost) {
				err = nil
			}
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.phases[len(l.phases)-1]
	now.configurations++
	if err != nil {
		now.failures = append(now.failures, err)
	}
}

// mark begins a phase. A pull belongs to the one in which it ends.
func (l *load) mark(name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.phases = append(l.phases, &phase{name: name})
}

// awaitAll waits until each image could be pulled through the cache in this phase, or
// any way if the cache is cold, and an OperatingSystemConfig was written.
func (l *load) awaitAll(cold bool) {
	GinkgoHelper()
	Eventually(func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		now := l.phases[len(l.phases)-1]
		done := now.cached
		if cold {
			done += now.direct
		}
		return done >= loadImages && now.configurations > 0
	}).Should(BeTrue(), "%d pulls", loadImages)
}

// stop ends the load, reports it, and expects that there was some all the time and
// that nothing failed.
func (l *load) stop() {
	GinkgoHelper()
	l.end()
	l.group.Wait()
	for _, phase := range l.phases {
		AddReportEntry("Load "+phase.name, ReportEntryVisibilityAlways, fmt.Sprintf("%d pulls through the cache, %d with blobs of the upstream, the slowest in %.2f s; %d OperatingSystemConfigs; %d failures",
			phase.cached, phase.direct, phase.slowest.Seconds(), phase.configurations, len(phase.failures)))
	}
	for _, phase := range l.phases {
		Expect(phase.failures).To(BeEmpty(), phase.name)
		Expect(phase.cached+phase.direct).To(BeNumerically(">", 0), phase.name)
		Expect(phase.configurations).To(BeNumerically(">", 0), phase.name)
	}
}
