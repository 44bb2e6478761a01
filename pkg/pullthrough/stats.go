// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package pullthrough

import (
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// Stats are what an Engine knows about itself.
type Stats struct {
	// Requests are the requests for content since the engine was made, and Hits those
	// of them for which the upstream was not asked anew.
	Requests, Hits int64
	// UsedBytes and TotalBytes are of the volume, as df has them; 0: it cannot be
	// measured.
	UsedBytes, TotalBytes int64
	// Blobs are the blobs on the volume.
	Blobs int
	// UpstreamLeftAlone says that the upstream failed so that it is not asked for some
	// time.
	UpstreamLeftAlone bool
	// LastFailure is the last failure of the upstream. Nil: there was none.
	LastFailure *Failure
}

// Failure is that of an upstream.
type Failure struct {
	// Message says what was asked and what came, without credentials.
	Message string
	// Time is when it was.
	Time time.Time
}

// Stats returns what the engine knows about itself.
func (e *Engine) Stats() Stats {
	usage, _ := e.evictor.usage() // the evictor reports the error
	blobs, _ := e.evictor.totals()
	return Stats{
		Requests: count(e.metrics.requests), Hits: count(e.metrics.hits),
		UsedBytes: usage.used, TotalBytes: usage.total, Blobs: blobs,
		UpstreamLeftAlone: slices.ContainsFunc(e.remote.breakers[:], func(b *breaker) bool { return !b.closed() }),
		LastFailure:       e.remote.lastFailure.Load(),
	}
}

// count returns what a counter has counted of blobs and manifests.
func count(counter *prometheus.CounterVec) (total int64) {
	for _, kind := range []string{typeBlob, typeManifest} {
		metric := &dto.Metric{}
		if err := counter.WithLabelValues(kind).Write(metric); err == nil { // of a counter it never fails
			total += int64(metric.GetCounter().GetValue())
		}
	}
	return total
}
