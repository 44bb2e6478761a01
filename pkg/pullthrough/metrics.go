// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package pullthrough

import (
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Values of the label type.
const (
	typeBlob     = "blob"
	typeManifest = "manifest"
	typeListing  = "listing"
)

// metrics of one engine. Those of the subsystem proxy have the names and the
// meaning that distribution's proxy gives them.
type metrics struct {
	requests, hits, misses, pulledBytes, pushedBytes *prometheus.CounterVec

	firstByte      *prometheus.HistogramVec
	blobSize       prometheus.Histogram
	storedBlobSize prometheus.Histogram

	flightResults *prometheus.CounterVec
	resumes       prometheus.Counter
	mismatches    *prometheus.CounterVec
	spoolBytes    prometheus.Gauge

	evictions, evictedBytes *prometheus.CounterVec
	evictedUnused           *prometheus.HistogramVec

	upstreamResponses *prometheus.CounterVec
	upstreamSeconds   *prometheus.HistogramVec
	staleTags         prometheus.Counter
	rateLimit         prometheus.Gauge
}

// seconds are buckets from a hit to the longest wait for a header.
var seconds = []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30}

// unused are buckets from a volume that has not even room for what is pulled at one
// time to the default ttl.
var unused = []float64{60, 600, 3600, 6 * 3600, 24 * 3600, 3 * 24 * 3600, 7 * 24 * 3600}

func newMetrics() *metrics {
	counter := func(subsystem, name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "registry", Subsystem: subsystem, Name: name, Help: help}, labels)
	}
	histogram := func(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
		return prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Namespace: "registry", Subsystem: "cache", Name: name, Help: help, Buckets: buckets,
		}, labels)
	}
	sizes := prometheus.ExponentialBuckets(1<<10, 8, 9)
	m := &metrics{
		requests:    counter("proxy", "requests_total", "Requests for content.", "type"),
		hits:        counter("proxy", "hits_total", "Requests for which the upstream was not asked anew: the content was stored, or on its way already.", "type"),
		misses:      counter("proxy", "misses_total", "Requests for which the upstream was asked.", "type"),
		pulledBytes: counter("proxy", "pulled_bytes_total", "Bytes of content from the upstream.", "type"),
		pushedBytes: counter("proxy", "pushed_bytes_total", "Bytes of content to clients.", "type"),

		firstByte: histogram("first_byte_seconds", "Time from a request for content to its first byte, by where it came from.", seconds, "type", "cache"),

		flightResults: counter("cache", "flights_total", "Blobs fetched from the upstream, by what became of them.", "result"),
		mismatches:    counter("cache", "digest_mismatches_total", "Content that was dropped because it does not have its digest.", "type"),
		evictions:     counter("cache", "evictions_total", "Blobs that left the volume.", "reason"),
		evictedBytes:  counter("cache", "evicted_bytes_total", "Bytes of blobs that left the volume.", "reason"),

		evictedUnused: histogram("evicted_unused_seconds", "Time since the last use of blobs that left the volume for others, or after the ttl.", unused, "reason"),

		upstreamResponses: counter("cache", "upstream_responses_total", "Answers of the upstream; code 0 is none.", "type", "code"),
		upstreamSeconds:   histogram("upstream_header_seconds", "Time until the upstream answers, or does not.", seconds, "type"),
	}
	size := func(name, help string) prometheus.Histogram {
		return prometheus.NewHistogram(prometheus.HistogramOpts{Namespace: "registry", Subsystem: "cache", Name: name, Help: help, Buckets: sizes})
	}
	m.blobSize = size("response_bytes", "Bytes that a request for a blob was answered with.")
	m.storedBlobSize = size("stored_blob_bytes", "Bytes of blobs that were stored.")
	m.resumes = prometheus.NewCounter(prometheus.CounterOpts{Namespace: "registry", Subsystem: "cache", Name: "resumes_total", Help: "Interruptions by the upstream after which a blob was gone on with."})
	m.staleTags = prometheus.NewCounter(prometheus.CounterOpts{Namespace: "registry", Subsystem: "cache", Name: "stale_tags_total", Help: "Tags answered with what they were last known to stand for."})
	m.spoolBytes = prometheus.NewGauge(prometheus.GaugeOpts{Namespace: "registry", Subsystem: "cache", Name: "spool_bytes", Help: "Bytes on the volume of blobs in flight."})
	m.rateLimit = prometheus.NewGauge(prometheus.GaugeOpts{Namespace: "registry", Subsystem: "cache", Name: "upstream_ratelimit_remaining", Help: "Pulls that the upstream says are left; -1: it says nothing."})
	m.rateLimit.Set(-1)
	m.initialize()
	return m
}

// initialize makes series that start at 0: a rate of one that appears later
// misses its first value.
func (m *metrics) initialize() {
	for _, kind := range []string{typeBlob, typeManifest} {
		for _, counter := range []*prometheus.CounterVec{m.requests, m.hits, m.misses, m.pulledBytes, m.pushedBytes, m.mismatches} {
			counter.WithLabelValues(kind)
		}
		for _, outcome := range []Outcome{Hit, Miss, Follow, Stale} {
			m.firstByte.WithLabelValues(kind, string(outcome))
		}
	}
	for kind := range kinds {
		m.upstreamSeconds.WithLabelValues(kind.String())
		for _, code := range []int{0, http.StatusOK, http.StatusUnauthorized, http.StatusNotFound, http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable} {
			m.upstreamResponses.WithLabelValues(kind.String(), strconv.Itoa(code))
		}
	}
	for _, reason := range []string{reasonWatermark, reasonFull, reasonTTL, reasonCorrupt} {
		m.evictions.WithLabelValues(reason)
		m.evictedBytes.WithLabelValues(reason)
	}
	for _, reason := range []string{reasonWatermark, reasonFull, reasonTTL} {
		m.evictedUnused.WithLabelValues(reason)
	}
	for _, result := range []string{"stored", "mismatch", "unstorable", "failed"} {
		m.flightResults.WithLabelValues(result)
	}
}

// register makes the metrics of an engine known, those of its state among them.
func (m *metrics) register(registerer prometheus.Registerer, e *Engine) error {
	gauge := func(name, help string, value func() float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: "registry", Subsystem: "cache", Name: name, Help: help}, value)
	}
	breaker := func(kind kind) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Namespace: "registry", Subsystem: "cache", Name: "breaker_open",
			Help:        "1 while the upstream is left alone because it failed.",
			ConstLabels: prometheus.Labels{"type": kind.String()},
		}, func() float64 {
			if e.remote.breakers[kind].closed() {
				return 0
			}
			return 1
		})
	}
	volume := func() volumeUsage {
		usage, _ := e.evictor.usage() // the evictor reports the error
		return usage
	}
	for _, collector := range []prometheus.Collector{
		m.requests, m.hits, m.misses, m.pulledBytes, m.pushedBytes,
		m.firstByte, m.blobSize, m.storedBlobSize,
		m.flightResults, m.resumes, m.mismatches, m.spoolBytes, m.evictions, m.evictedBytes, m.evictedUnused,
		m.upstreamResponses, m.upstreamSeconds, m.staleTags, m.rateLimit,
		gauge("flights", "Blobs being fetched from the upstream.", func() float64 { flights, _ := e.flights.count(); return float64(flights) }),
		gauge("followers", "Requests that share a blob being fetched for another.", func() float64 { _, followers := e.flights.count(); return float64(followers) }),
		gauge("store_blobs", "Blobs on the volume.", func() float64 { blobs, _ := e.evictor.totals(); return float64(blobs) }),
		gauge("store_bytes", "Bytes of the blobs on the volume.", func() float64 { _, bytes := e.evictor.totals(); return float64(bytes) }),
		gauge("volume_bytes", "Bytes that the volume has room for.", func() float64 { return float64(volume().total) }),
		gauge("volume_used_bytes", "Bytes of the volume that are in use, the file system's own among them.", func() float64 { return float64(volume().used) }),
		breaker(kindManifest), breaker(kindBlob), breaker(kindListing),
	} {
		if err := registerer.Register(collector); err != nil {
			return err
		}
	}
	return nil
}

// requested counts a request for content.
func (m *metrics) requested(kind string, outcome Outcome) {
	m.requests.WithLabelValues(kind).Inc()
	if outcome == Miss {
		m.misses.WithLabelValues(kind).Inc()
	} else {
		m.hits.WithLabelValues(kind).Inc()
	}
}

// answered measures the time to the first byte.
func (m *metrics) answered(kind string, outcome Outcome, after time.Duration) {
	m.firstByte.WithLabelValues(kind, string(outcome)).Observe(after.Seconds())
}

func (m *metrics) pulled(kind string, bytes int) {
	m.pulledBytes.WithLabelValues(kind).Add(float64(bytes))
}

func (m *metrics) pushed(kind string, bytes int64) {
	m.pushedBytes.WithLabelValues(kind).Add(float64(bytes))
	if kind == typeBlob {
		m.blobSize.Observe(float64(bytes))
	}
}

func (m *metrics) evicted(reason string, bytes int64) {
	m.evictions.WithLabelValues(reason).Inc()
	m.evictedBytes.WithLabelValues(reason).Add(float64(bytes))
}

func (m *metrics) upstreamAnswered(kind kind, status int, after time.Duration) {
	m.upstreamResponses.WithLabelValues(kind.String(), strconv.Itoa(status)).Inc()
	m.upstreamSeconds.WithLabelValues(kind.String()).Observe(after.Seconds())
}
