// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package plugin

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
)

// What a real cache says is in test/integration/plugin.

// metrics returns the metrics of a cache as it writes them, but for others.
func metrics(requests, hits, toNodes, fromUpstream int) []byte {
	return fmt.Appendf(nil, `# HELP registry_cache_flights Number of blobs that are being fetched
# TYPE registry_cache_flights gauge
registry_cache_flights 2
# TYPE registry_cache_volume_bytes gauge
registry_cache_volume_bytes 1.073741824e+10
# TYPE registry_cache_volume_used_bytes gauge
registry_cache_volume_used_bytes 3.221225472e+09
# TYPE registry_proxy_requests_total counter
registry_proxy_requests_total{type="blob"} %d
registry_proxy_requests_total{type="manifest"} 10
# TYPE registry_proxy_hits_total counter
registry_proxy_hits_total{type="blob"} %d
registry_proxy_hits_total{type="manifest"} 10
# TYPE registry_proxy_pushed_bytes_total counter
registry_proxy_pushed_bytes_total{type="blob"} %d
# TYPE registry_proxy_pulled_bytes_total counter
registry_proxy_pulled_bytes_total{type="blob"} %d
`, requests, hits, toNodes, fromUpstream)
}

func TestTopRows(t *testing.T) {
	// In 5 seconds 10 requests with 8 hits, 50 MiB to nodes and 10 MiB from the upstream.
	before, after := metrics(100, 90, 1<<30, 1<<20), metrics(110, 98, 1<<30+50<<20, 1<<20+10<<20)
	for name, test := range map[string]struct {
		before, now map[string][]byte
		expected    string
	}{
		"one pod": {
			map[string][]byte{"a": before},
			map[string][]byte{"a": after},
			"2.0 80% 10MiB/s 2.0MiB/s 2 3.0GiB of 10GiB (30%)",
		},
		"two pods": {
			map[string][]byte{"a": before, "b": before},
			map[string][]byte{"a": after, "b": after},
			"4.0 80% 20MiB/s 4.0MiB/s 4 6.0GiB of 20GiB (30%)",
		},
		"one of two began anew, and counts from the next look on": {
			map[string][]byte{"a": before, "b": before},
			map[string][]byte{"a": after, "b": metrics(3, 3, 3, 3)},
			"2.0 80% 10MiB/s 2.0MiB/s 4 6.0GiB of 20GiB (30%)",
		},
		"one of two is new": {
			map[string][]byte{"a": before},
			map[string][]byte{"a": after, "b": after},
			"2.0 80% 10MiB/s 2.0MiB/s 4 6.0GiB of 20GiB (30%)",
		},
		"nothing happens": {
			map[string][]byte{"a": after},
			map[string][]byte{"a": after},
			"0.0 - 0B/s 0B/s 2 3.0GiB of 10GiB (30%)",
		},
		"no answer": {map[string][]byte{"a": before}, nil, "- - - - - -"},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			rows := topRows([]cache{{upstream: "docker.io", name: "registry-docker-io", replicas: 2, ready: 2}},
				sampleAt(t, now, test.before), sampleAt(t, now.Add(5*time.Second), test.now), style{})
			g.Expect(rows).To(HaveLen(1))
			var texts []string
			for _, cell := range rows[0] {
				texts = append(texts, cell.text)
			}
			g.Expect(strings.Join(texts, " ")).To(Equal("docker.io 2/2 " + test.expected))
		})
	}
}

func sampleAt(t *testing.T, at time.Time, pods map[string][]byte) map[string]sample {
	t.Helper()
	taken := sample{pods: make(map[string]counters)}
	for name, raw := range pods {
		counted, err := parseCounters(raw)
		NewWithT(t).Expect(err).NotTo(HaveOccurred())
		counted.at = at
		taken.pods[name] = counted
	}
	return map[string]sample{"registry-docker-io": taken}
}

func TestTopFitsOnTheTerminal(t *testing.T) {
	g := NewWithT(t)
	caches, samples := []cache{}, map[string]sample{}
	for i := range 30 {
		name := fmt.Sprintf("r%02d.example.com", i)
		caches, samples[name] = append(caches, cache{upstream: name, name: name}), sample{err: errors.New("no answer")}
	}
	text, err := formatTop(80, style{}, caches, samples, samples)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(strings.Count(text, "\n")).To(Equal(62))

	shown := firstLines(text, 24)
	g.Expect(strings.Count(shown, "\n")).To(Equal(23), "the cursor is in the last line")
	g.Expect(shown).To(And(HavePrefix("UPSTREAM"), HaveSuffix("r20.example.com   0/0    -            -      -          -               -\n40 more lines: enlarge the terminal, or use --once\n")))
	g.Expect(firstLines(text, 63)).To(Equal(text))
	g.Expect(firstLines(text, 0)).To(Equal(text), "no terminal")
}
