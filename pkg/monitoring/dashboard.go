// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package monitoring

import (
	"encoding/json"
	"fmt"
)

// panel is one figure of the dashboard, half as wide as the screen.
type panel struct {
	title, description string
	// unit is one of Plutono's.
	unit    string
	queries []query
	// percent has the scale end at 1, and stacked the areas stand on each other.
	percent, stacked bool
}

// query is one or several lines of a panel.
type query struct {
	// expr is PromQL, in which "$upstream" are the chosen values of upstream_host.
	expr string
	// legend names the lines.
	legend string
}

// row is a part of the dashboard.
type row struct {
	title  string
	panels []panel
}

const (
	// ofUpstream selects the chosen caches.
	ofUpstream = `{upstream_host=~"$upstream"}`
	// ofBlobs selects the blobs of the chosen caches.
	ofBlobs = `{upstream_host=~"$upstream",type="blob"}`
)

func rate(metric, selector, by string) string {
	return fmt.Sprintf("sum by (upstream_host%s) (rate(%s%s[5m]))", by, metric, selector)
}

func quantile(q, histogram, by string) string {
	return fmt.Sprintf("histogram_quantile(%s, %s)", q, rate(histogram+"_bucket", ofUpstream, by+", le"))
}

func sum(metric string) string {
	return fmt.Sprintf("sum by (upstream_host) (%s%s)", metric, ofUpstream)
}

// rows are the dashboard, the most asked first.
func rows() []row {
	return []row{
		{"What the caches are good for", servingPanels()},
		{"Blobs on their way", flightPanels()},
		{"Volumes", volumePanels()},
		{"Upstreams", upstreamPanels()},
		{"The caches themselves", processPanels()},
	}
}

func servingPanels() []panel {
	const served, fetched = "registry_proxy_pushed_bytes_total", "registry_proxy_pulled_bytes_total"
	return []panel{
		{
			title: "Hit ratio of layers", unit: "percentunit", percent: true,
			description: "Of the requests for layers and other blobs, the part for which the upstream was not asked anew: they were stored, or on their way already.",
			queries:     []query{{rate("registry_proxy_hits_total", ofBlobs, "") + " / " + rate("registry_proxy_requests_total", ofBlobs, ""), "{{upstream_host}}"}},
		},
		{
			title: "Traffic saved in a day", unit: "bytes",
			description: "Bytes sent to nodes less those fetched from the upstream, of the last 24 hours.",
			queries: []query{{
				fmt.Sprintf("sum by (upstream_host) (increase(%s%s[1d])) - sum by (upstream_host) (increase(%s%s[1d]))", served, ofUpstream, fetched, ofUpstream),
				"{{upstream_host}}",
			}},
		},
		{
			title: "Traffic", unit: "Bps",
			description: "Bytes sent to nodes, and bytes fetched from the upstream.",
			queries: []query{
				{rate(served, ofUpstream, ""), "{{upstream_host}} to nodes"},
				{rate(fetched, ofUpstream, ""), "{{upstream_host}} from upstream"},
			},
		},
		{
			title: "Requests", unit: "reqps",
			description: "Requests of nodes, by kind of content.",
			queries:     []query{{rate("registry_proxy_requests_total", ofUpstream, ", type"), "{{upstream_host}} {{type}}"}},
		},
		{
			title: "Time to the first byte, median", unit: "s",
			description: "From a request to the first byte of its answer, by where that came from.",
			queries:     []query{{quantile("0.5", "registry_cache_first_byte_seconds", ", cache"), "{{upstream_host}} {{cache}}"}},
		},
		{
			title: "Time to the first byte, 95th percentile", unit: "s",
			description: "All but one in 20 requests got their first byte within this time.",
			queries:     []query{{quantile("0.95", "registry_cache_first_byte_seconds", ", cache"), "{{upstream_host}} {{cache}}"}},
		},
	}
}

func flightPanels() []panel {
	return []panel{
		{
			title: "Flights and followers", unit: "short",
			description: "Blobs that are being fetched, and requests that share one that is fetched for another: what they would have cost without the cache.",
			queries: []query{
				{sum("registry_cache_flights"), "{{upstream_host}} flights"},
				{sum("registry_cache_followers"), "{{upstream_host}} followers"},
			},
		},
		{
			title: "What became of flights", unit: "ops",
			description: "stored; unstorable: passed on, but there was no room; failed: the upstream broke off for good; mismatch: it was not what its digest says.",
			queries:     []query{{rate("registry_cache_flights_total", ofUpstream, ", result"), "{{upstream_host}} {{result}}"}},
		},
	}
}

func volumePanels() []panel {
	return []panel{
		{
			title: "Store and volume", unit: "bytes",
			description: "Bytes of stored blobs, all that is in use on the volume, and what it has room for. Above 90 percent the cache makes room until it is 80.",
			queries: []query{
				{sum("registry_cache_store_bytes"), "{{upstream_host}} stored"},
				{sum("registry_cache_volume_used_bytes"), "{{upstream_host}} in use"},
				{sum("registry_cache_volume_bytes"), "{{upstream_host}} volume"},
			},
		},
		{
			title: "Evictions", unit: "Bps", stacked: true,
			description: "Bytes that left the volume: ttl, not used for that long; watermark, above 90 percent; full, no room for what was just pulled; corrupt, not what its digest says.",
			queries:     []query{{rate("registry_cache_evicted_bytes_total", ofUpstream, ", reason"), "{{upstream_host}} {{reason}}"}},
		},
		{
			title: "Unused before eviction", unit: "s",
			description: "For how long half of what was evicted had not been used. Less than a day, other than by a short ttl, says that the volume is too small.",
			queries:     []query{{quantile("0.5", "registry_cache_evicted_unused_seconds", ", reason"), "{{upstream_host}} {{reason}}"}},
		},
		{
			title: "Writable", unit: "short",
			description: "0: the volume cannot be written, and all is streamed through.",
			queries:     []query{{fmt.Sprintf("min by (upstream_host) (registry_cache_storage_writable%s)", ofUpstream), "{{upstream_host}}"}},
		},
	}
}

func upstreamPanels() []panel {
	return []panel{
		{
			title: "Answers of the upstream", unit: "reqps", stacked: true,
			description: "By status; 0 is none. 401 is the usual way to ask for a token.",
			queries:     []query{{rate("registry_cache_upstream_responses_total", ofUpstream, ", code"), "{{upstream_host}} {{code}}"}},
		},
		{
			title: "Time until the upstream answers, 95th percentile", unit: "s",
			queries:     []query{{quantile("0.95", "registry_cache_upstream_header_seconds", ", type"), "{{upstream_host}} {{type}}"}},
			description: "Until the headers of an answer, for all but one in 20 requests.",
		},
		{
			title: "Left alone, and stale tags", unit: "short",
			description: "1 while the upstream is left alone because it failed, by kind of content; and tags a second that were resolved without it to what they were last known to stand for.",
			queries: []query{
				{fmt.Sprintf("max by (upstream_host, type) (registry_cache_breaker_open%s)", ofUpstream), "{{upstream_host}} {{type}} left alone"},
				{rate("registry_cache_stale_tags_total", ofUpstream, ""), "{{upstream_host}} stale tags"},
			},
		},
		{
			title: "Pulls left by the rate limit", unit: "short",
			description: "As Docker Hub says. No line for upstreams that say nothing.",
			queries:     []query{{fmt.Sprintf("min by (upstream_host) (registry_cache_upstream_ratelimit_remaining%s >= 0)", ofUpstream), "{{upstream_host}}"}},
		},
		{
			title: "Broken transfers", unit: "ops",
			description: "Interruptions after which a blob was gone on with, and content that does not have its digest.",
			queries: []query{
				{rate("registry_cache_resumes_total", ofUpstream, ""), "{{upstream_host}} resumed"},
				{rate("registry_cache_digest_mismatches_total", ofUpstream, ""), "{{upstream_host}} mismatch"},
			},
		},
	}
}

func processPanels() []panel {
	return []panel{
		{
			title: "Pods that answer", unit: "short",
			description: "Nodes of a cache with none pull from the upstream.",
			queries:     []query{{fmt.Sprintf(`sum by (upstream_host) (up{job=%q,upstream_host=~"$upstream"})`, Job), "{{upstream_host}}"}},
		},
		{
			title: "Validity of certificates", unit: "s",
			description: "How long they are valid. They are replaced some two weeks before their end. No line for caches without TLS.",
			queries:     []query{{fmt.Sprintf("min by (upstream_host) (registry_cache_certificate_not_after_seconds%s) - time()", ofUpstream), "{{upstream_host}}"}},
		},
		{
			title: "Memory", unit: "bytes",
			description: "Of each pod.",
			queries:     []query{{fmt.Sprintf(`process_resident_memory_bytes{job=%q,upstream_host=~"$upstream"}`, Job), "{{pod}}"}},
		},
		{
			title: "CPU", unit: "short",
			description: "Cores in use by each pod.",
			queries:     []query{{fmt.Sprintf(`rate(process_cpu_seconds_total{job=%q,upstream_host=~"$upstream"}[5m])`, Job), "{{pod}}"}},
		},
	}
}

// dashboard returns the dashboard as JSON, in the model of Grafana 7.5, of which
// Plutono comes.
func dashboard() (string, error) {
	var panels []map[string]any
	y := 0
	for _, row := range rows() {
		panels = append(panels, map[string]any{
			"id": len(panels) + 1, "type": "row", "title": row.title, "collapsed": false, "panels": []any{},
			"gridPos": gridPos(0, y, 24, 1),
		})
		y++
		const width, height = 12, 8
		for i, panel := range row.panels {
			panels = append(panels, panel.encode(len(panels)+1, gridPos(i%2*width, y+i/2*height, width, height)))
		}
		y += (len(row.panels) + 1) / 2 * height
	}
	encoded, err := json.Marshal(map[string]any{
		"uid":           "registry-cache",
		"title":         "Registry Caches",
		"tags":          []string{"extension", "registry-cache"},
		"schemaVersion": 27,
		"version":       1,
		"editable":      true,
		"timezone":      "utc",
		"refresh":       "1m",
		"time":          map[string]any{"from": "now-6h", "to": "now"},
		"annotations":   map[string]any{"list": []any{}},
		"links":         []any{},
		"panels":        panels,
		"templating":    map[string]any{"list": []any{upstreamVariable()}},
	})
	return string(encoded), err
}

// upstreamVariable has a person choose of which caches the dashboard tells.
func upstreamVariable() map[string]any {
	const values = `label_values(registry_cache_build_info, upstream_host)`
	return map[string]any{
		"name": "upstream", "label": "Upstream", "type": "query", "datasource": datasource,
		"query": values, "definition": values, "refresh": 2, "sort": 1,
		"multi": true, "includeAll": true, "allValue": ".+",
		"current": map[string]any{"text": "All", "value": "$__all"},
	}
}

// datasource is the name that the Shoot's Prometheus has in its Plutono.
const datasource = "prometheus"

func (p panel) encode(id int, position map[string]int) map[string]any {
	targets := make([]map[string]any, 0, len(p.queries))
	for i, query := range p.queries {
		targets = append(targets, map[string]any{
			"refId": string(rune('A' + i)), "expr": query.expr, "legendFormat": query.legend, "format": "time_series", "intervalFactor": 1,
		})
	}
	y := map[string]any{"format": p.unit, "logBase": 1, "show": true, "min": "0"}
	if p.percent {
		y["max"] = "1"
	}
	return map[string]any{
		"id": id, "type": "graph", "title": p.title, "description": p.description, "datasource": datasource,
		"gridPos": position, "targets": targets,
		"lines": true, "linewidth": 1, "fill": 1, "stack": p.stacked, "nullPointMode": "null",
		"legend":  map[string]any{"show": true, "values": true, "current": true, "alignAsTable": true, "rightSide": false},
		"tooltip": map[string]any{"shared": true, "sort": 2, "value_type": "individual"},
		"xaxis":   map[string]any{"mode": "time", "show": true},
		"yaxes":   []any{y, map[string]any{"format": "short", "logBase": 1, "show": false}},
	}
}

func gridPos(x, y, w, h int) map[string]int {
	return map[string]int{"x": x, "y": y, "w": w, "h": h}
}
