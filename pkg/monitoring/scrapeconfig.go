// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package monitoring

import (
	"slices"
	"strings"

	monitoringv1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	monitoringv1alpha1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1alpha1"

	shootprometheus "github.com/gardener/gardener/pkg/component/observability/monitoring/prometheus/shoot"

	"github.com/gardener/gardener-extension-registry-cache/pkg/apis/registry/v1alpha3"
	"github.com/gardener/gardener-extension-registry-cache/pkg/resources"
	"github.com/gardener/gardener-extension-registry-cache/pkg/upstream"
)

// metrics are those that are kept: what is not here is neither for rules nor for
// the dashboard. Histograms are many series, so only two are here.
var metrics = []string{
	"registry_proxy_.+_total",
	"registry_cache_.+_total",
	"registry_cache_breaker_open",
	"registry_cache_build_info",
	"registry_cache_certificate_not_after_seconds",
	"registry_cache_evicted_unused_seconds_.+",
	"registry_cache_first_byte_seconds_.+",
	"registry_cache_flights",
	"registry_cache_followers",
	"registry_cache_spool_bytes",
	"registry_cache_storage_writable",
	"registry_cache_store_.+",
	"registry_cache_upstream_header_seconds_.+",
	"registry_cache_upstream_ratelimit_remaining",
	"registry_cache_volume_.+",
	"process_cpu_seconds_total",
	"process_resident_memory_bytes",
}

// scrapeConfigSpec has Prometheus scrape the pods by way of the Shoot's
// kube-apiserver, as it does with all that runs in a Shoot. The label
// upstream_host comes from the Service.
func scrapeConfigSpec(caches []v1alpha3.RegistryCache) monitoringv1alpha1.ScrapeConfigSpec {
	names := make([]string, 0, len(caches))
	for _, cache := range caches {
		names = append(names, upstream.ServiceName(cache.Upstream, cache.ServiceNameSuffix))
	}
	spec := shootprometheus.ClusterComponentScrapeConfigSpec(Job, shootprometheus.KubernetesServiceDiscoveryConfig{
		Role:             monitoringv1alpha1.KubernetesRoleEndpoint,
		ServiceName:      "(" + strings.Join(names, "|") + ")",
		EndpointPortName: resources.DebugPortName,
	}, metrics...)
	// Metrics of a cache have a label type, blob or manifest, which Prometheus would
	// rename for the one that Gardener gives to all that runs in a Shoot.
	spec.RelabelConfigs = slices.DeleteFunc(spec.RelabelConfigs, func(config monitoringv1.RelabelConfig) bool {
		return config.TargetLabel == "type"
	})
	// As the API server would default it: else each reconcile wrote it anew.
	for i := range spec.RelabelConfigs {
		if spec.RelabelConfigs[i].Action == "" {
			spec.RelabelConfigs[i].Action = "replace"
		}
	}
	return spec
}
