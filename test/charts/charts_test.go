// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package charts_test

import (
	"bytes"
	"flag"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	. "github.com/onsi/gomega"
	"helm.sh/helm/v4/pkg/chart/v2/lint"
	"helm.sh/helm/v4/pkg/chart/v2/lint/support"
	"sigs.k8s.io/yaml"

	productcharts "github.com/gardener/gardener-extension-registry-cache/charts"
	"github.com/gardener/gardener-extension-registry-cache/test/charts"
)

var update = flag.Bool("update", false, "write the golden files anew")

func TestGoldens(t *testing.T) {
	releases := charts.Releases()
	for name, release := range releases {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			manifest, err := release.Manifest()
			g.Expect(err).NotTo(HaveOccurred())
			manifest = bytes.TrimLeft(manifest, "\n")
			file := filepath.Join("testdata", name+".yaml")
			if *update {
				g.Expect(os.WriteFile(file, manifest, 0o600)).To(Succeed())
			}
			golden, err := os.ReadFile(file)
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(string(manifest)).To(Equal(string(golden)), "go test ./test/charts -update, and read the diff")
		})
	}
	files, err := filepath.Glob("testdata/*.yaml")
	g := NewWithT(t)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(files).To(HaveLen(len(releases)), "no golden file is left over")
}

// As `helm lint --strict` does.
func TestLint(t *testing.T) {
	for name, release := range charts.Releases() {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			linter := lint.RunAll(filepath.Join("../../charts", release.Chart), release.Values, release.Namespace)
			for _, message := range linter.Messages {
				g.Expect(message.Severity).To(BeNumerically("<=", support.InfoSev), message.Error())
			}
		})
	}
}

func TestChartsAreOfThisVersion(t *testing.T) {
	g := NewWithT(t)
	content, err := os.ReadFile("../../VERSION")
	g.Expect(err).NotTo(HaveOccurred())
	version := strings.TrimSpace(string(content))
	for _, chart := range chartNames() {
		content, err := productcharts.Read(chart, "Chart.yaml")
		g.Expect(err).NotTo(HaveOccurred())
		var metadata struct{ Version, AppVersion string }
		g.Expect(yaml.Unmarshal(content, &metadata)).To(Succeed())
		g.Expect(metadata.AppVersion).To(Equal(version), chart)
		g.Expect(metadata.Version).To(Equal(strings.TrimPrefix(version, "v")), chart)
	}
}

func TestEveryValueIsReadByATemplate(t *testing.T) {
	for _, chart := range chartNames() {
		t.Run(chart, func(t *testing.T) {
			g := NewWithT(t)
			content, err := productcharts.Read(chart, "values.yaml")
			g.Expect(err).NotTo(HaveOccurred())
			values := charts.Values{}
			g.Expect(yaml.Unmarshal(content, &values)).To(Succeed())
			templates := templatesOf(g, chart)
			for _, path := range leaves("", values) {
				g.Expect(templates).To(ContainSubstring(".Values"+path), "%s has an effect", path)
			}
		})
	}
}

// Both helm and Gardener ask the schema, and say what is wrong with a value and
// where it is.
func TestWrongValuesAreRefused(t *testing.T) {
	type values = charts.Values
	for title, test := range map[string]struct {
		release charts.Release
		want    string
	}{
		"a name that is none":          {charts.Controller(values{"replicas": 2}), "at '': additional properties 'replicas' not allowed"},
		"a name below another":         {charts.Controller(values{"image": values{"tags": "v1"}}), "at '/image': additional properties 'tags' not allowed"},
		"a text for a number":          {charts.Controller(values{"replicaCount": "two"}), "at '/replicaCount': got string, want integer"},
		"a number that is too low":     {charts.Controller(values{"controllers": values{"concurrentSyncs": 0}}), "at '/controllers/concurrentSyncs': minimum: got 0, want 1"},
		"a period without a unit":      {charts.Controller(values{"controllers": values{"healthcheck": values{"syncPeriod": "30"}}}), "at '/controllers/healthcheck/syncPeriod': '30' does not match pattern"},
		"a controller that is none":    {charts.Controller(values{"disableControllers": []any{"caches"}}), "at '/disableControllers/0': value must be one of 'registry-cache', "},
		"half a digest":                {charts.Controller(values{"image": values{"tag": "v1@sha256:12"}}), "at '/image/tag': 'v1@sha256:12' does not match pattern"},
		"an image without a name":      {charts.Controller(values{"imageVectorOverwrite": values{"images": []any{values{"tag": "v1"}}}}), "at '/imageVectorOverwrite/images/0': missing property 'name'"},
		"too few ports":                {charts.Controller(values{"usablePorts": []any{8080}}), "at '/usablePorts': minItems: got 1, want 3"},
		"a level that is none":         {charts.AdmissionRuntime(values{"logLevel": "warn"}), "at '/logLevel': value must be one of 'debug', 'info', 'error'"},
		"a port that is none":          {charts.AdmissionRuntime(values{"ports": values{"health": 70000}}), "at '/ports/health': maximum: got 70,000, want 65,535"},
		"a unit that Go does not know": {charts.AdmissionRuntime(values{"goMemLimit": "460Mi"}), "at '/goMemLimit': '460Mi' does not match pattern"},
		"a text for a switch":          {charts.AdmissionRuntime(values{"gardener": values{"virtualCluster": values{"enabled": "yes"}}}), "at '/gardener/virtualCluster/enabled': got string, want boolean"},
		"nobody that has the rights":   {charts.AdmissionApplication(values{"gardener": values{"virtualCluster": values{"serviceAccount": values{"name": ""}}}}), "at '/gardener/virtualCluster/serviceAccount/name': minLength: got 0, want 1"},
	} {
		t.Run(title, func(t *testing.T) {
			_, err := test.release.Manifest()
			NewWithT(t).Expect(err).To(MatchError(ContainSubstring(test.want)))
		})
	}
}

// gardener-operator gives the values of the admission to both of its charts.
func TestApplicationTakesTheValuesOfRuntime(t *testing.T) {
	all := maps.Clone(charts.Releases()["admission-runtime-all"].Values)
	all["gardener"] = charts.OperatorApplicationValues()["gardener"]
	_, err := charts.AdmissionApplication(all).Manifest()
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
}

func TestSchemasHaveTheValuesAndNoOthers(t *testing.T) {
	for _, chart := range chartNames() {
		t.Run(chart, func(t *testing.T) {
			g := NewWithT(t)
			values, schema := charts.Values{}, charts.Values{}
			for name, object := range map[string]*charts.Values{"values.yaml": &values, "values.schema.json": &schema} {
				content, err := productcharts.Read(chart, name)
				g.Expect(err).NotTo(HaveOccurred())
				g.Expect(yaml.Unmarshal(content, object)).To(Succeed())
			}
			values["global"] = nil // helm's own
			expectProperties(g, "", schema, values)
		})
	}
}

// expectProperties expects that a schema that names properties names those of an
// object.
func expectProperties(g *WithT, path string, schema charts.Values, object any) {
	properties, _ := schema["properties"].(charts.Values)
	values, isObject := object.(charts.Values)
	if !isObject || len(values) == 0 || properties == nil {
		return
	}
	for name := range properties {
		g.Expect(values).To(HaveKey(name), "%s.%s is a value", path, name)
	}
	for name, value := range values {
		if path+name != "global" {
			g.Expect(properties).To(HaveKey(name), "%s.%s is in the schema", path, name)
		}
		property, _ := properties[name].(charts.Values)
		expectProperties(g, path+"."+name, property, value)
	}
}

func TestArchivesAreReproducible(t *testing.T) {
	for _, chart := range chartNames() {
		g := NewWithT(t)
		first, err := productcharts.Archive(chart)
		g.Expect(err).NotTo(HaveOccurred())
		second, err := productcharts.Archive(chart)
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(first).To(Equal(second))
	}
	_, err := productcharts.Archive("missing")
	NewWithT(t).Expect(err).To(MatchError(fs.ErrNotExist))
}

func chartNames() []string {
	names := map[string]bool{}
	for _, release := range charts.Releases() {
		names[release.Chart] = true
	}
	return slices.Sorted(maps.Keys(names))
}

// templatesOf returns all templates of a chart in one.
func templatesOf(g *WithT, chart string) string {
	files, err := filepath.Glob(filepath.Join("../../charts", chart, "templates", "*"))
	g.Expect(err).NotTo(HaveOccurred())
	var all strings.Builder
	for _, file := range files {
		content, err := os.ReadFile(file)
		g.Expect(err).NotTo(HaveOccurred())
		all.Write(content)
	}
	return all.String()
}

// leaves returns the paths of all values that have no values below them.
func leaves(path string, value any) []string {
	values, ok := value.(charts.Values)
	if !ok || len(values) == 0 {
		return []string{path}
	}
	// What is written as it stands has an effect as a whole.
	if path == ".resources" || path == ".vpa.minAllowed" || path == ".vpa.maxAllowed" {
		return []string{path}
	}
	var paths []string
	for _, name := range slices.Sorted(maps.Keys(values)) {
		paths = append(paths, leaves(path+"."+name, values[name])...)
	}
	return paths
}
