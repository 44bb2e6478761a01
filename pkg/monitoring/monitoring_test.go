// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package monitoring_test

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	. "github.com/onsi/gomega"
	monitoringv1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	monitoringv1alpha1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1alpha1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/gardener/gardener-extension-registry-cache/pkg/apis/registry/v1alpha3"
	"github.com/gardener/gardener-extension-registry-cache/pkg/monitoring"
	"github.com/gardener/gardener-extension-registry-cache/pkg/resources"
)

// That Prometheus understands the rules and the dashboard, and that they say what
// they should, is tested in test/monitoring.

var update = flag.Bool("update", false, "write the golden files anew")

func TestGoldens(t *testing.T) {
	g := NewWithT(t)
	objects := newObjects(g)
	expectGolden(g, "scrapeconfig.yaml", render(g, objects[0]))
	expectGolden(g, "prometheusrule.yaml", render(g, objects[1]))

	// The dashboard as a person reads it, one value a line.
	dashboards := objects[2].(*corev1.ConfigMap)
	g.Expect(dashboards.Data).To(HaveLen(1))
	var dashboard any
	g.Expect(json.Unmarshal([]byte(dashboards.Data["registry-cache-dashboard.json"]), &dashboard)).To(Succeed())
	readable, err := json.MarshalIndent(dashboard, "", "  ")
	g.Expect(err).NotTo(HaveOccurred())
	expectGolden(g, "dashboard.json", string(readable)+"\n")
	dashboards.Data = nil
	expectGolden(g, "dashboards.yaml", render(g, dashboards))
}

func TestEmptyObjectsAreThoseObjects(t *testing.T) {
	g := NewWithT(t)
	objects, empty := newObjects(g), monitoring.EmptyObjects("shoot--foo--bar")
	g.Expect(empty).To(HaveLen(len(objects)))
	for i, object := range objects {
		g.Expect(empty[i]).To(BeAssignableToTypeOf(object))
		g.Expect(client.ObjectKeyFromObject(empty[i])).To(Equal(client.ObjectKeyFromObject(object)))
	}
}

func TestVolumeAlertsAreAboutTheVolumesOfCaches(t *testing.T) {
	g := NewWithT(t)
	objects, err := resources.Cache{Config: newCaches(g)[0]}.Objects()
	g.Expect(err).NotTo(HaveOccurred())
	var claim string
	for _, object := range objects {
		if set, ok := object.(*appsv1.StatefulSet); ok {
			claim = set.Spec.VolumeClaimTemplates[0].Name + "-" + set.Name + "-0"
		}
	}

	rules := 0
	for _, rule := range newObjects(g)[1].(*monitoringv1.PrometheusRule).Spec.Groups[0].Rules {
		for _, match := range regexp.MustCompile(`persistentvolumeclaim=~"([^"]+)"`).FindAllStringSubmatch(rule.Expr.String(), -1) {
			g.Expect(claim).To(MatchRegexp("^" + match[1] + "$"))
			rules++
		}
	}
	g.Expect(rules).To(BeNumerically(">=", 4))
}

func TestEachAlertHasARunbook(t *testing.T) {
	g := NewWithT(t)
	content, err := os.ReadFile("../../docs/operations/alerts.md")
	g.Expect(err).NotTo(HaveOccurred())
	var sections []string
	for _, section := range strings.Split(string(content), "\n## ")[1:] {
		title, text, _ := strings.Cut(section, "\n")
		if !strings.HasPrefix(title, "RegistryCache") {
			continue
		}
		sections = append(sections, title)
		g.Expect(text).To(And(ContainSubstring("**It means**"), ContainSubstring("**Look at**"), ContainSubstring("**Do**"), ContainSubstring("kubectl")), title)
	}

	var alerts []string
	for _, rule := range newObjects(g)[1].(*monitoringv1.PrometheusRule).Spec.Groups[0].Rules {
		if rule.Alert == "" {
			continue
		}
		alerts = append(alerts, rule.Alert)
		g.Expect(rule.Labels).To(And(
			HaveKeyWithValue("type", "shoot"), HaveKeyWithValue("service", "registry-cache-monitoring"),
			HaveKeyWithValue("severity", BeElementOf("warning", "critical")), HaveKeyWithValue("visibility", BeElementOf("owner", "all")),
		), rule.Alert)
		g.Expect(rule.Annotations).To(HaveKeyWithValue("runbook_url", HaveSuffix("/docs/operations/alerts.md#"+strings.ToLower(rule.Alert))))
	}
	slices.Sort(alerts)
	slices.Sort(sections)
	g.Expect(slices.Compact(alerts)).To(Equal(sections))
}

// newCaches are two caches, of which one has a Service with a name of its own.
func newCaches(g Gomega) []v1alpha3.RegistryCache {
	config, err := v1alpha3.Decode([]byte(`
apiVersion: registry.extensions.gardener.cloud/v1alpha3
kind: RegistryConfig
caches:
- upstream: docker.io
- upstream: registry.example.com:5000
  serviceNameSuffix: example
`))
	g.ExpectWithOffset(1, err).NotTo(HaveOccurred())
	return config.Caches
}

func newObjects(g Gomega) []client.Object {
	objects, err := monitoring.Objects("shoot--foo--bar", newCaches(g))
	g.ExpectWithOffset(1, err).NotTo(HaveOccurred())
	g.ExpectWithOffset(1, objects).To(HaveExactElements(
		BeAssignableToTypeOf(&monitoringv1alpha1.ScrapeConfig{}), BeAssignableToTypeOf(&monitoringv1.PrometheusRule{}), BeAssignableToTypeOf(&corev1.ConfigMap{}),
	))
	return objects
}

func render(g Gomega, object client.Object) string {
	rendered, err := yaml.Marshal(object)
	g.ExpectWithOffset(1, err).NotTo(HaveOccurred())
	return string(rendered)
}

func expectGolden(g Gomega, name, actual string) {
	path := filepath.Join("testdata", name)
	if *update {
		g.ExpectWithOffset(1, os.MkdirAll("testdata", 0o750)).To(Succeed())
		g.ExpectWithOffset(1, os.WriteFile(path, []byte(actual), 0o600)).To(Succeed())
	}
	expected, err := os.ReadFile(path)
	g.ExpectWithOffset(1, err).NotTo(HaveOccurred())
	g.ExpectWithOffset(1, actual).To(Equal(string(expected)), "go test ./pkg/monitoring -update writes it anew")
}
