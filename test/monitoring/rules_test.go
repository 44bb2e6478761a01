// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package monitoring_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	. "github.com/onsi/gomega"
	monitoringv1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	"sigs.k8s.io/yaml"

	"github.com/gardener/gardener-extension-registry-cache/test/process"
)

// alertCase is what an alert makes of what caches measured.
type alertCase struct {
	alert, name string
	// interval is between two values of a series.
	interval string
	series   map[string]string
	// at is when firing are the alerts that fire, by their labels.
	at     string
	firing []string
}

// in are the labels of a cache, or of the volume of one.
const (
	docker  = `upstream_host="docker.io"`
	example = `upstream_host="registry.example.com-5000"`
	volume  = `persistentvolumeclaim="cache-volume-registry-docker-io-0"`
)

var alertCases = []alertCase{
	{
		alert: "RegistryCacheDown", name: "no pod has ever been there",
		interval: "1m", at: "16m", firing: []string{docker, example},
	},
	{
		alert: "RegistryCacheDown", name: "a new cache has time to start",
		interval: "1m", at: "14m",
	},
	{
		alert: "RegistryCacheDown", name: "one of two caches does not answer",
		interval: "1m", at: "20m", firing: []string{docker},
		series: map[string]string{
			`up{job="registry-cache",pod="registry-docker-io-0",` + docker + `}`: "0x30",
			`up{job="registry-cache",pod="registry-example-0",` + example + `}`:  "1x30",
		},
	},
	{
		alert: "RegistryCacheDown", name: "one of two pods is enough",
		interval: "1m", at: "25m",
		series: map[string]string{
			`up{job="registry-cache",pod="registry-docker-io-0",` + docker + `}`: "0x30",
			`up{job="registry-cache",pod="registry-docker-io-1",` + docker + `}`: "1x30",
			`up{job="registry-cache",pod="registry-example-0",` + example + `}`:  "1x10 0x8 1x30",
		},
	},
	{
		alert: "RegistryCacheHitRatioCollapsed", name: "from 90 to 5 percent",
		interval: "10m", at: "29h", firing: []string{docker},
		series: blobRequests("0+100x200", "0+90x156 14045+5x44"),
	},
	{
		alert: "RegistryCacheHitRatioCollapsed", name: "from 90 to 60 percent",
		interval: "10m", at: "29h",
		series: blobRequests("0+100x200", "0+90x156 14100+60x44"),
	},
	{
		alert: "RegistryCacheHitRatioCollapsed", name: "it has never been better",
		interval: "10m", at: "29h",
		series: blobRequests("0+100x200", "0+5x200"),
	},
	{
		alert: "RegistryCacheHitRatioCollapsed", name: "few requests",
		interval: "10m", at: "29h",
		series: blobRequests("0+10x200", "0+9x156 1404+0x44"),
	},
	{
		alert: "RegistryCacheHitRatioCollapsed", name: "a new cache",
		interval: "10m", at: "3h",
		series: blobRequests("0+100x20", "0+5x20"),
	},
	{
		alert: "RegistryCacheServesStale", name: "all the time",
		interval: "1m", at: "40m", firing: []string{docker},
		series: map[string]string{`registry_cache_stale_tags_total{` + docker + `}`: "0x5 1+1x60"},
	},
	{
		alert: "RegistryCacheServesStale", name: "for a moment",
		interval: "1m", at: "26m",
		series: map[string]string{`registry_cache_stale_tags_total{` + docker + `}`: "0x10 5x60"},
	},
	{
		alert: "RegistryCacheVolumeTooSmall", name: "what was used within a day goes",
		interval: "10m", at: "8h", firing: []string{docker},
		series: map[string]string{`registry_cache_evicted_unused_seconds_bucket{reason="watermark",le="86400",` + docker + `}`: "0+1x100"},
	},
	{
		alert: "RegistryCacheVolumeTooSmall", name: "a single rollout",
		interval: "10m", at: "7h",
		series: map[string]string{`registry_cache_evicted_unused_seconds_bucket{reason="watermark",le="86400",` + docker + `}`: "0x5 20x100"},
	},
	{
		alert: "RegistryCacheVolumeTooSmall", name: "older content goes, and all by a short ttl",
		interval: "10m", at: "8h",
		series: map[string]string{
			`registry_cache_evicted_unused_seconds_bucket{reason="watermark",le="86400",` + docker + `}`:  "0x100",
			`registry_cache_evicted_unused_seconds_bucket{reason="watermark",le="604800",` + docker + `}`: "0+1x100",
			`registry_cache_evicted_unused_seconds_bucket{reason="ttl",le="86400",` + docker + `}`:        "0+1x100",
		},
	},
	{
		alert: "RegistryCacheCertificateExpires", name: "in less than 7 days",
		interval: "1m", at: "150m", firing: []string{docker},
		series: certificateUntil("608400"), // 7 days and an hour after the beginning
	},
	{
		alert: "RegistryCacheCertificateExpires", name: "in more than 7 days",
		interval: "1m", at: "50m",
		series: certificateUntil("608400"),
	},
	{
		alert: "RegistryCacheDigestMismatch", name: "at once",
		interval: "1m", at: "5m", firing: []string{docker},
		series: mismatches("0x3 1x200"),
	},
	{
		alert: "RegistryCacheDigestMismatch", name: "an hour later",
		interval: "1m", at: "70m",
		series: mismatches("0x3 1x200"),
	},
	{
		alert: "RegistryCachePersistentVolumeUsageCritical", name: "4 percent are free",
		interval: "1m", at: "70m", firing: []string{volume},
		series: volumeOf("cache-volume-registry-docker-io-0", "4x100"),
	},
	{
		alert: "RegistryCachePersistentVolumeUsageCritical", name: "9 percent are free, which is when the cache makes room",
		interval: "1m", at: "70m",
		series: volumeOf("cache-volume-registry-docker-io-0", "9x100"),
	},
	{
		alert: "RegistryCachePersistentVolumeUsageCritical", name: "a volume of somebody else",
		interval: "1m", at: "70m",
		series: volumeOf("prometheus-db-0", "4x100"),
	},
	{
		alert: "RegistryCachePersistentVolumeFullInFourDays", name: "it goes on beyond where the cache makes room",
		interval: "1m", at: "8h", firing: []string{volume},
		series: volumeOf("cache-volume-registry-docker-io-0", "8.5-0.005x600"),
	},
	{
		alert: "RegistryCachePersistentVolumeFullInFourDays", name: "it fills as it should",
		interval: "1m", at: "8h",
		series: volumeOf("cache-volume-registry-docker-io-0", "50-0.05x600"),
	},
	{
		alert: "RegistryCachePersistentVolumeFullInFourDays", name: "it is fuller than it should be, and stays so",
		interval: "1m", at: "8h",
		series: volumeOf("cache-volume-registry-docker-io-0", "7x600"),
	},
}

func blobRequests(requests, hits string) map[string]string {
	return map[string]string{
		`registry_proxy_requests_total{type="blob",` + docker + `}`: requests,
		`registry_proxy_hits_total{type="blob",` + docker + `}`:     hits,
	}
}

func certificateUntil(end string) map[string]string {
	return map[string]string{`registry_cache_certificate_not_after_seconds{` + docker + `}`: end + "x200"}
}

func mismatches(values string) map[string]string {
	return map[string]string{
		`registry_cache_digest_mismatches_total{type="blob",` + docker + `}`:     values,
		`registry_cache_digest_mismatches_total{type="manifest",` + docker + `}`: "0x200",
	}
}

func volumeOf(claim, available string) map[string]string {
	return map[string]string{
		`kubelet_volume_stats_available_bytes{persistentvolumeclaim="` + claim + `"}`: available,
		`kubelet_volume_stats_capacity_bytes{persistentvolumeclaim="` + claim + `"}`:  "100x600",
	}
}

func TestPrometheusUnderstandsTheRules(t *testing.T) {
	g := NewWithT(t)
	promtool(t, "check", "rules", "--lint=all", "--lint-fatal", writeRules(t, t.TempDir()))
	g.Expect(prometheusRule(t).Spec.Groups).To(HaveLen(1))
}

func TestAlerts(t *testing.T) {
	dir := t.TempDir()
	writeRules(t, dir)
	var tests []map[string]any
	for _, c := range alertCases {
		tests = append(tests, c.forPromtool())
	}
	// What the Seed's aggregate Prometheus gets.
	tests = append(tests, map[string]any{
		"name": "recording rules", "interval": "1m",
		"input_series": series(map[string]string{
			`registry_proxy_pushed_bytes_total{type="blob",pod="a",` + docker + `}`:     "10x5",
			`registry_proxy_pushed_bytes_total{type="manifest",pod="a",` + docker + `}`: "1x5",
			`registry_proxy_pushed_bytes_total{type="blob",pod="b",` + docker + `}`:     "100x5",
			`registry_proxy_pulled_bytes_total{type="blob",pod="a",` + docker + `}`:     "7x5",
			`registry_proxy_pulled_bytes_total{type="blob",pod="c",` + example + `}`:    "8x5",
		}),
		"promql_expr_test": []any{
			map[string]any{"expr": "shoot:registry_proxy_pushed_bytes_total:sum", "eval_time": "3m", "exp_samples": []any{
				map[string]any{"labels": "shoot:registry_proxy_pushed_bytes_total:sum{" + docker + "}", "value": 111},
			}},
			map[string]any{"expr": "shoot:registry_proxy_pulled_bytes_total:sum", "eval_time": "3m", "exp_samples": []any{
				map[string]any{"labels": "shoot:registry_proxy_pulled_bytes_total:sum{" + docker + "}", "value": 7},
				map[string]any{"labels": "shoot:registry_proxy_pulled_bytes_total:sum{" + example + "}", "value": 8},
			}},
		},
	})
	file := filepath.Join(dir, "alerts.test.yaml")
	writeYAML(t, file, map[string]any{"rule_files": []string{"rules.yaml"}, "evaluation_interval": "2m", "tests": tests})
	promtool(t, "test", "rules", file)
}

func TestEachAlertFiresAndDoesNot(t *testing.T) {
	g := NewWithT(t)
	fires, rests := map[string]bool{}, map[string]bool{}
	for _, c := range alertCases {
		fires[c.alert] = fires[c.alert] || len(c.firing) > 0
		rests[c.alert] = rests[c.alert] || len(c.firing) == 0
	}
	for _, rule := range prometheusRule(t).Spec.Groups[0].Rules {
		if rule.Alert != "" {
			g.Expect(fires).To(HaveKeyWithValue(rule.Alert, true))
			g.Expect(rests).To(HaveKeyWithValue(rule.Alert, true))
		}
	}
}

// forPromtool looks at the alerts as Prometheus writes them down itself, for the
// words of their annotations are not what is tested.
func (c alertCase) forPromtool() map[string]any {
	samples := []any{}
	for _, labels := range c.firing {
		samples = append(samples, map[string]any{"labels": `{alertname="` + c.alert + `",` + labels + `}`, "value": 1})
	}
	return map[string]any{
		"name": c.alert + ": " + c.name, "interval": c.interval, "input_series": series(c.series),
		"promql_expr_test": []any{map[string]any{
			"expr":      `count by (alertname, upstream_host, persistentvolumeclaim) (ALERTS{alertname="` + c.alert + `",alertstate="firing"})`,
			"eval_time": c.at, "exp_samples": samples,
		}},
	}
}

func series(values map[string]string) []any {
	all := []any{}
	for name, values := range values {
		all = append(all, map[string]any{"series": name, "values": values})
	}
	return all
}

// writeRules writes what prometheus-operator makes of a PrometheusRule.
func writeRules(t *testing.T, dir string) string {
	t.Helper()
	file := filepath.Join(dir, "rules.yaml")
	writeYAML(t, file, prometheusRule(t).Spec)
	return file
}

func prometheusRule(t *testing.T) *monitoringv1.PrometheusRule {
	t.Helper()
	return objects(t)[1].(*monitoringv1.PrometheusRule)
}

func writeYAML(t *testing.T, file string, content any) {
	t.Helper()
	g := NewWithT(t)
	data, err := yaml.Marshal(content)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(os.WriteFile(file, data, 0o600)).To(Succeed())
}

func promtool(t *testing.T, arguments ...string) {
	t.Helper()
	g := NewWithT(t)
	binary, err := process.FindBinary("promtool")
	g.Expect(err).NotTo(HaveOccurred())
	output, err := exec.CommandContext(t.Context(), binary, arguments...).CombinedOutput()
	g.Expect(err).NotTo(HaveOccurred(), "promtool %s:\n%s", strings.Join(arguments, " "), output)
}
