// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package monitoring

import (
	"fmt"
	"strings"

	monitoringv1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"

	"github.com/gardener/gardener-extension-registry-cache/pkg/apis/registry/v1alpha3"
	"github.com/gardener/gardener-extension-registry-cache/pkg/upstream"
)

// runbooks is where each alert has a section.
const runbooks = "https://github.com/gardener/gardener-extension-registry-cache/blob/main/docs/operations/alerts.md"

// severity is how bad it is: critical will soon hurt, or does.
type severity string

const (
	critical severity = "critical"
	warning  severity = "warning"
)

// visibility is who is told: the owner of the Shoot, or the operators of Gardener
// too.
type visibility string

const (
	owner visibility = "owner"
	all   visibility = "all"
)

// alert is a rule that fires.
type alert struct {
	name        string
	expr        string
	after       string
	severity    severity
	visibility  visibility
	labels      map[string]string
	summary     string
	description string
}

func (a alert) rule() monitoringv1.Rule {
	labels := map[string]string{
		"service":    "registry-cache-monitoring",
		"severity":   string(a.severity),
		"type":       "shoot",
		"visibility": string(a.visibility),
	}
	for key, value := range a.labels {
		labels[key] = value
	}
	rule := monitoringv1.Rule{
		Alert:  a.name,
		Expr:   intstr.FromString(a.expr),
		Labels: labels,
		Annotations: map[string]string{
			"summary":     a.summary,
			"description": a.description,
			"runbook_url": runbooks + "#" + strings.ToLower(a.name),
		},
	}
	if a.after != "" {
		rule.For = ptr.To(monitoringv1.Duration(a.after))
	}
	return rule
}

func prometheusRuleSpec(caches []v1alpha3.RegistryCache) monitoringv1.PrometheusRuleSpec {
	group := monitoringv1.RuleGroup{Name: "registry-cache.rules", Rules: recordings()}
	for _, cache := range caches {
		group.Rules = append(group.Rules, down(cache).rule())
	}
	for _, a := range append(cacheAlerts(), volumeAlerts()...) {
		group.Rules = append(group.Rules, a.rule())
	}
	return monitoringv1.PrometheusRuleSpec{Groups: []monitoringv1.RuleGroup{group}}
}

// recordings have names that the Seed's aggregate Prometheus collects from all
// Shoots.
func recordings() []monitoringv1.Rule {
	var rules []monitoringv1.Rule
	for _, metric := range []string{"registry_proxy_pushed_bytes_total", "registry_proxy_pulled_bytes_total"} {
		rules = append(rules, monitoringv1.Rule{
			Record: "shoot:" + metric + ":sum",
			Expr:   intstr.FromString("sum by (upstream_host) (" + metric + ")"),
		})
	}
	return rules
}

// down is an alert for one cache, for a cache whose pod has never been there has
// no metrics at all, and absent does not say of which series. With several pods
// one is enough.
func down(cache v1alpha3.RegistryCache) alert {
	return alert{
		name:       "RegistryCacheDown",
		expr:       fmt.Sprintf(`absent(up{job=%q,upstream_host=%q} == 1)`, Job, upstream.Label(cache.Upstream)),
		after:      "15m",
		severity:   warning,
		visibility: all,
		labels:     map[string]string{"upstream_host": upstream.Label(cache.Upstream)},
		summary:    "A registry cache is down.",
		description: "The cache of " + cache.Upstream + " has not answered for 15 minutes. Nodes pull from " + cache.Upstream +
			" directly: pulls are slower, and count against its rate limit.",
	}
}

func cacheAlerts() []alert {
	return []alert{
		{
			name: "RegistryCacheHitRatioCollapsed",
			// Few requests say nothing: the first pull of an image is always a miss.
			expr: strings.Join([]string{
				hitRatio("1h", "") + " < 0.5 * " + hitRatio("1d", "1h"),
				`sum by (upstream_host) (increase(registry_proxy_requests_total{type="blob"}[1h])) > 100`,
			}, "\nand on (upstream_host)\n"),
			after:      "1h",
			severity:   warning,
			visibility: owner,
			summary:    "A registry cache serves far less from its store than before.",
			description: "Only {{ $value | humanizePercentage }} of the requests for layers were served by the cache of {{ $labels.upstream_host }} " +
				"without the upstream in the last hour, less than half of what it was in the day before.",
		},
		{
			name:       "RegistryCacheServesStale",
			expr:       `sum by (upstream_host) (increase(registry_cache_stale_tags_total[15m])) > 0`,
			after:      "15m",
			severity:   warning,
			visibility: owner,
			summary:    "An upstream fails, and its registry cache serves what it has.",
			description: "{{ $labels.upstream_host }} does not answer its cache, or refuses. The cache resolved {{ $value | humanize }} tags in the last 15 minutes " +
				"to what they were last known to stand for. What it does not have cannot be pulled through it.",
		},
		{
			name: "RegistryCacheVolumeTooSmall",
			expr: `sum by (upstream_host) (increase(registry_cache_evicted_unused_seconds_bucket{reason=~"watermark|full",le="86400"}[6h])) > 0`,
			// A single large rollout may pass.
			after:      "6h",
			severity:   warning,
			visibility: owner,
			summary:    "The volume of a registry cache is too small.",
			description: "The cache of {{ $labels.upstream_host }} deleted {{ $value | humanize }} blobs in the last 6 hours that had been used within the day before, " +
				"to make room for others.",
		},
		{
			name:       "RegistryCacheCertificateExpires",
			expr:       `min by (upstream_host) (registry_cache_certificate_not_after_seconds) - time() < 7 * 24 * 3600`,
			after:      "1h",
			severity:   critical,
			visibility: all,
			summary:    "The certificate of a registry cache is about to expire.",
			description: "The certificate of the cache of {{ $labels.upstream_host }} is valid for {{ $value | humanizeDuration }} only. " +
				"Then nodes will pull from the upstream directly.",
		},
		{
			name:       "RegistryCacheDigestMismatch",
			expr:       `sum by (upstream_host) (increase(registry_cache_digest_mismatches_total[1h])) > 0`,
			severity:   critical,
			visibility: owner,
			summary:    "A registry cache dropped content that does not have its digest.",
			description: "The cache of {{ $labels.upstream_host }} had content {{ $value | humanize }} times in the last hour that is not what was asked for. " +
				"It was dropped, and no node runs it. The upstream, or something on the way to it, is broken or changes what it sends, or the volume of the cache has changed it: its log says which.",
		},
	}
}

// hitRatio is the part of the requests for blobs for which the upstream was not
// asked.
func hitRatio(window, offset string) string {
	if offset != "" {
		offset = " offset " + offset
	}
	sum := func(metric string) string {
		return fmt.Sprintf(`sum by (upstream_host) (increase(registry_proxy_%s_total{type="blob"}[%s]%s))`, metric, window, offset)
	}
	return "(" + sum("hits") + " / " + sum("requests") + ")"
}

// volumeAlerts are about volumes that fill although the cache deletes what it does
// not need once 90 percent are in use. So they are about the last 8 percent only: a
// volume that fills up to there is as it should be. They have the kubelet's metrics,
// which are there when the cache is not.
func volumeAlerts() []alert {
	const volumes = `{persistentvolumeclaim=~"cache-volume-registry-.+"}`
	free := "100 * kubelet_volume_stats_available_bytes" + volumes + " / kubelet_volume_stats_capacity_bytes" + volumes
	return []alert{
		{
			name:        "RegistryCachePersistentVolumeUsageCritical",
			expr:        free + " < 5",
			after:       "1h",
			severity:    critical,
			visibility:  owner,
			summary:     "The volume of a registry cache is full.",
			description: "Only {{ $value | printf \"%0.2f\" }} percent of the volume {{ $labels.persistentvolumeclaim }} are free, though the cache makes room at 10.",
		},
		{
			name: "RegistryCachePersistentVolumeFullInFourDays",
			expr: free + " < 8\nand\npredict_linear(kubelet_volume_stats_available_bytes" + volumes + "[6h], 4 * 24 * 3600) <= 0",

			after:      "1h",
			severity:   warning,
			visibility: owner,
			summary:    "The volume of a registry cache will be full in four days.",
			description: "As the volume {{ $labels.persistentvolumeclaim }} was filled in the last 6 hours, it will be full within four days, though the cache makes room at 10 percent. " +
				"{{ $value | printf \"%0.2f\" }} percent are free.",
		},
	}
}
