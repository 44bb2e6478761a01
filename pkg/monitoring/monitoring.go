// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

// Package monitoring says what the Shoot's Prometheus and Plutono, which run in
// its namespace in the Seed, are to know of the caches: what to scrape, which
// alerts there are, and a dashboard. It is pure: writing objects is the business
// of package controller. What a cache measures is in package pullthrough.
//
// docs/operations/alerts.md has a section for each alert.
package monitoring

import (
	"fmt"

	monitoringv1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	monitoringv1alpha1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1alpha1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	v1beta1constants "github.com/gardener/gardener/pkg/apis/core/v1beta1/constants"
	shootprometheus "github.com/gardener/gardener/pkg/component/observability/monitoring/prometheus/shoot"
	monitoringutils "github.com/gardener/gardener/pkg/component/observability/monitoring/utils"

	"github.com/gardener/gardener-extension-registry-cache/pkg/apis/registry/v1alpha3"
)

const (
	// Job is the value of the label job on all metrics of the caches. Their label
	// upstream_host, which is upstream.Label, tells the caches from each other.
	Job = "registry-cache"

	dashboardName = "registry-cache-dashboards"
)

// Objects returns all objects for the caches of a Shoot, whose namespace in the
// Seed is given.
func Objects(namespace string, caches []v1alpha3.RegistryCache) ([]client.Object, error) {
	scrapeConfig, rule, dashboards := emptyScrapeConfig(namespace), emptyPrometheusRule(namespace), emptyDashboards(namespace)
	scrapeConfig.Spec = scrapeConfigSpec(caches)
	rule.Spec = prometheusRuleSpec(caches)
	data, err := dashboard()
	if err != nil {
		return nil, fmt.Errorf("encode the dashboard: %w", err)
	}
	dashboards.Data = map[string]string{"registry-cache-dashboard.json": data}
	return []client.Object{scrapeConfig, rule, dashboards}, nil
}

// EmptyObjects returns the objects without their content, to look for them or to
// delete them.
func EmptyObjects(namespace string) []client.Object {
	return []client.Object{emptyScrapeConfig(namespace), emptyPrometheusRule(namespace), emptyDashboards(namespace)}
}

func emptyScrapeConfig(namespace string) *monitoringv1alpha1.ScrapeConfig {
	return &monitoringv1alpha1.ScrapeConfig{ObjectMeta: objectMeta(namespace)}
}

func emptyPrometheusRule(namespace string) *monitoringv1.PrometheusRule {
	return &monitoringv1.PrometheusRule{ObjectMeta: objectMeta(namespace)}
}

// emptyDashboards is for the sidecar of the Shoot's Plutono, which looks for the
// label.
func emptyDashboards(namespace string) *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{
		Name: dashboardName, Namespace: namespace,
		Labels: map[string]string{v1beta1constants.LabelPrefixMonitoringDashboard + "shoot": "true"},
	}}
}

// objectMeta is that of an object for the Shoot's Prometheus.
func objectMeta(namespace string) metav1.ObjectMeta {
	return monitoringutils.ConfigObjectMeta(Job, namespace, shootprometheus.Label)
}
