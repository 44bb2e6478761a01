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
