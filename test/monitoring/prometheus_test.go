// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package monitoring_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	monitoringv1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	monitoringv1alpha1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1alpha1"

	"github.com/gardener/gardener-extension-registry-cache/test/process"
)

// token is what the Shoot's Prometheus has for the kube-apiserver.
const token = "the-token-of-prometheus"

// prometheus is one that runs.
type prometheus struct {
	url string
}

// sample is an element of an instant vector.
type sample struct {
	labels map[string]string
	value  float64
}

// startPrometheus runs a Prometheus as prometheus-operator has it run for the
// ScrapeConfig and the PrometheusRule, except that it is told of the pods instead
// of finding them. The caches' metrics are at the addresses, by pod.
func startPrometheus(t *testing.T, addresses map[string]string) *prometheus {
	t.Helper()
	g := NewWithT(t)
	dir := t.TempDir()
	writeRules(t, dir)
	scrapeConfig := objects(t)[0].(*monitoringv1alpha1.ScrapeConfig)
	writeYAML(t, filepath.Join(dir, "prometheus.yaml"), map[string]any{
		"global":         map[string]any{"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
		"rule_files":     []string{"rules.yaml"},
		"scrape_configs": []any{scrapeOf(scrapeConfig.Spec, startAPIServer(t, addresses))},
	})

	ports, err := process.FreePorts(1)
	g.Expect(err).NotTo(HaveOccurred())
	binary, err := process.FindBinary("prometheus")
	g.Expect(err).NotTo(HaveOccurred())
	address := net.JoinHostPort("127.0.0.1", strconv.Itoa(ports[0]))
	server, err := process.New(process.Options{
		Name: "prometheus", Binary: binary, LogDir: dir, ReadyURL: "http://" + address + "/-/ready",
		Args: []string{
			"--config.file=" + filepath.Join(dir, "prometheus.yaml"), "--storage.tsdb.path=" + filepath.Join(dir, "data"),
			"--web.listen-address=" + address,
		},
	})
	g.Expect(err).NotTo(HaveOccurred())
	t.Cleanup(func() { g.Expect(server.Stop()).To(Succeed()) })
	g.Expect(server.Start(t.Context())).To(Succeed())
	return &prometheus{url: "http://" + address}
}

// scrapeOf is what prometheus-operator makes of a ScrapeConfig.
func scrapeOf(spec monitoringv1alpha1.ScrapeConfigSpec, proxyURL string) map[string]any {
	targets := []any{}
	for _, pod := range []struct{ service, upstreamHost, pod, portName, port string }{
		{"registry-docker-io", "docker.io", "registry-docker-io-0", "debug", "5001"},
		{"registry-docker-io", "docker.io", "registry-docker-io-0", "registry-cache", "5000"},
		{"registry-example", "registry.example.com-5000", "registry-registry-example-com-5000-0", "debug", "5001"},
		{"kube-dns", "", "coredns-0", "debug", "5001"},
	} {
		targets = append(targets, map[string]any{"targets": []string{"192.0.2.1:" + pod.port}, "labels": map[string]string{
			"__meta_kubernetes_service_name":                pod.service,
			"__meta_kubernetes_service_label_upstream_host": pod.upstreamHost,
			"__meta_kubernetes_endpoint_port_name":          pod.portName,
			"__meta_kubernetes_pod_name":                    pod.pod,
			"__meta_kubernetes_pod_node_name":               "node",
			"__meta_kubernetes_pod_container_port_number":   pod.port,
		}})
	}
	return map[string]any{
		"job_name":               "scrapeConfig/shoot--foo--bar/shoot-registry-cache",
		"honor_labels":           *spec.HonorLabels,
		"scheme":                 "https",
		"tls_config":             map[string]any{"insecure_skip_verify": *spec.TLSConfig.InsecureSkipVerify},
		"authorization":          map[string]any{"credentials": token},
		"proxy_url":              proxyURL,
		"static_configs":         targets,
		"relabel_configs":        relabelings(spec.RelabelConfigs),
		"metric_relabel_configs": relabelings(spec.MetricRelabelConfigs),
	}
}

func relabelings(configs []monitoringv1.RelabelConfig) []any {
	all := []any{}
	for _, config := range configs {
		encoded := map[string]any{"action": config.Action, "source_labels": config.SourceLabels}
		if config.TargetLabel != "" {
			encoded["target_label"] = config.TargetLabel
		}
		if config.Regex != "" {
			encoded["regex"] = config.Regex
		}
		if config.Replacement != nil {
			encoded["replacement"] = *config.Replacement
		}
		all = append(all, encoded)
	}
	return all
}

var podPath = regexp.MustCompile(`^/api/v1/namespaces/kube-system/pods/([^:/]+):5001/proxy/metrics$`)

// startAPIServer starts what of a Shoot's kube-apiserver it takes to scrape a pod,
// and returns the URL of a proxy by which it is reached as kube-apiserver:443.
func startAPIServer(t *testing.T, addresses map[string]string) string {
	t.Helper()
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
		path := podPath.FindStringSubmatch(request.URL.Path)
		if path == nil || addresses[path[1]] == "" || request.Header.Get("Authorization") != "Bearer "+token {
			http.Error(w, "no", http.StatusForbidden)
			return
		}
		response, err := http.Get("http://" + addresses[path[1]] + "/metrics")
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		defer func() { _ = response.Body.Close() }()
		w.Header().Set("Content-Type", response.Header.Get("Content-Type"))
		_, _ = io.Copy(w, response.Body)
	}))
	t.Cleanup(server.Close)
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
		if request.Method != http.MethodConnect || request.Host != "kube-apiserver:443" {
			http.Error(w, "no", http.StatusForbidden)
			return
		}
		upstream, err := net.Dial("tcp", server.Listener.Addr().String())
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		client, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			_ = upstream.Close()
			return
		}
		_, _ = io.WriteString(client, "HTTP/1.1 200 OK\r\n\r\n")
		go func() { _, _ = io.Copy(upstream, client); _ = upstream.Close() }()
		go func() { _, _ = io.Copy(client, upstream); _ = client.Close() }()
	}))
	t.Cleanup(proxy.Close)
	return proxy.URL
}

// query returns the samples of a query, without those that are not a number: a
// panel shows nothing for them.
func (p *prometheus) query(ctx context.Context, expr string) ([]sample, error) {
	var answer struct {
		ResultType string `json:"resultType"`
		Result     []struct {
			Metric map[string]string `json:"metric"`
			Value  [2]any            `json:"value"`
		} `json:"result"`
	}
	if err := p.get(ctx, "/api/v1/query", url.Values{"query": {expr}}, &answer); err != nil {
		return nil, err
	}
	var samples []sample
	for _, result := range answer.Result {
		value, err := strconv.ParseFloat(result.Value[1].(string), 64)
		if err != nil {
			return nil, fmt.Errorf("parse value: %w", err)
		}
		if !math.IsNaN(value) {
			samples = append(samples, sample{result.Metric, value})
		}
	}
	return samples, nil
}

// point is a value at a time, in seconds.
type point struct{ at, value float64 }

// queryRange returns lines by their labels.
func (p *prometheus) queryRange(ctx context.Context, expr string, from, to time.Time, step time.Duration) ([]map[string]string, [][]point, error) {
	var answer struct {
		Result []struct {
			Metric map[string]string `json:"metric"`
			Values [][2]any          `json:"values"`
		} `json:"result"`
	}
	if err := p.get(ctx, "/api/v1/query_range", url.Values{
		"query": {expr}, "start": {from.Format(time.RFC3339)}, "end": {to.Format(time.RFC3339)}, "step": {step.String()},
	}, &answer); err != nil {
		return nil, nil, err
	}
	var labels []map[string]string
	var lines [][]point
	for _, result := range answer.Result {
		var line []point
		for _, pair := range result.Values {
			value, err := strconv.ParseFloat(pair[1].(string), 64)
			if err != nil {
				return nil, nil, fmt.Errorf("parse value: %w", err)
			}
			if !math.IsNaN(value) {
				line = append(line, point{pair[0].(float64), value})
			}
		}
		labels, lines = append(labels, result.Metric), append(lines, line)
	}
	return labels, lines, nil
}

func (p *prometheus) get(ctx context.Context, path string, parameters url.Values, data any) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, p.url+path+"?"+parameters.Encode(), nil)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	answer := struct {
		Status, Error string
		Data          any
	}{Data: data}
	if err := json.NewDecoder(response.Body).Decode(&answer); err != nil {
		return fmt.Errorf("decode the answer to %s: %w", parameters.Get("query"), err)
	}
	if answer.Status != "success" {
		return fmt.Errorf("query %s: %s", parameters.Get("query"), answer.Error)
	}
	return nil
}
