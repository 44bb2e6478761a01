// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	gardencorev1 "github.com/gardener/gardener/pkg/apis/core/v1"
	"github.com/gardener/gardener/pkg/utils/oci"
	. "github.com/onsi/gomega"
	chartv2 "helm.sh/helm/v4/pkg/chart/v2"
	"helm.sh/helm/v4/pkg/chart/v2/loader"
	"helm.sh/helm/v4/pkg/registry"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"github.com/gardener/gardener-extension-registry-cache/charts"
	"github.com/gardener/gardener-extension-registry-cache/test/upstream"
)

const digest = "sha256:4bc453b53cb3d914b45f4b250294236adba2c0e09ff6f03793949e7e39fd4cc1"

const images = `images:
- {name: gardener-extension-registry-cache, repository: registry.test/some/gardener-extension-registry-cache, tag: "v1.2.3@` + digest + `"}
- {name: registry-cache, repository: registry.test/some/registry-cache, tag: "v1.2.3@` + digest + `"}
`

func TestChartsArePushedAndRunTheDigest(t *testing.T) {
	g := NewWithT(t)
	host, output, vector := startRegistry(t), t.TempDir(), writeImages(t, images)

	g.Expect(run([]string{"-version", "v1.2.3", "-images", vector, "-output", output, "-registry", host + "/path", "-insecure"})).To(Succeed())

	for _, name := range []string{
		"gardener-extension-registry-cache", "gardener-extension-registry-cache-admission-runtime", "gardener-extension-registry-cache-admission-application",
	} {
		archive, chart := pull(g, host+"/path/charts/"+name+":1.2.3")
		g.Expect(chart.Metadata.Version).To(Equal("1.2.3"))
		g.Expect(chart.Metadata.AppVersion).To(Equal("v1.2.3"))
		g.Expect(os.ReadFile(filepath.Join(output, name+"-1.2.3.tgz"))).To(Equal(archive))
		if !strings.HasSuffix(name, "application") {
			g.Expect(chart.Values["image"]).To(HaveKeyWithValue("repository", "registry.test/some/gardener-extension-registry-cache"))
			g.Expect(chart.Values["image"]).To(HaveKeyWithValue("tag", "v1.2.3@"+digest))
			g.Expect(chart.Values["image"]).To(HaveKeyWithValue("pullPolicy", "IfNotPresent"))
		}
	}
	_, controller := pull(g, host+"/path/charts/gardener-extension-registry-cache:1.2.3")
	g.Expect(controller.Values["imageVectorOverwrite"]).To(Equal(map[string]any{"images": []any{
		map[string]any{"name": "registry-cache", "repository": "registry.test/some/registry-cache", "tag": "v1.2.3@" + digest},
	}}))
	g.Expect(controller.Raw).To(ContainElement(And(HaveField("Name", "values.yaml"), HaveField("Data", ContainSubstring("# How many pods run.")))))
}

func TestPackedChartsAreReproducible(t *testing.T) {
	g := NewWithT(t)
	pushed, err := readImages(writeImages(t, images), "v1.2.3")
	g.Expect(err).NotTo(HaveOccurred())
	first, err := pack("gardener-extension-registry-cache", "v1.2.3", pushed)
	g.Expect(err).NotTo(HaveOccurred())
	second, err := pack("gardener-extension-registry-cache", "v1.2.3", pushed)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(first).To(Equal(second))
}

func TestChartsOfTheSourcesGetTheVersion(t *testing.T) {
	g := NewWithT(t)
	host, output := startRegistry(t), t.TempDir()

	g.Expect(run([]string{"-version", "v1.2.3", "-output", output, "-registry", host + "/some/path", "-insecure"})).To(Succeed())

	for name, folder := range map[string]string{
		"gardener-extension-registry-cache":                       charts.Controller,
		"gardener-extension-registry-cache-admission-runtime":     charts.AdmissionRuntime,
		"gardener-extension-registry-cache-admission-application": charts.AdmissionApplication,
	} {
		archive, chart := pull(g, host+"/some/path/charts/"+name+":1.2.3")
		g.Expect(os.ReadFile(filepath.Join(output, name+"-1.2.3.tgz"))).To(Equal(archive))
		g.Expect(chart.Metadata.Version).To(Equal("1.2.3"))
		g.Expect(chart.Metadata.AppVersion).To(Equal("v1.2.3"))
		values, err := charts.Read(folder, "values.yaml")
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(chart.Raw).To(ContainElement(And(HaveField("Name", "values.yaml"), HaveField("Data", Equal(values)))))
		// Gardener pulls what is pushed.
		reference := host + "/some/path/charts/" + name + ":1.2.3"
		g.Expect(oci.NewHelmRegistry(fake.NewFakeClient()).Pull(t.Context(), &gardencorev1.OCIRepository{Ref: &reference})).To(Equal(archive))
	}
}

func TestChartsAreOnlyPackedWithoutARegistry(t *testing.T) {
	g := NewWithT(t)
	output := t.TempDir()
	g.Expect(run([]string{"-version", "v1.2.3", "-output", output})).To(Succeed())
	g.Expect(filepath.Glob(filepath.Join(output, "*-1.2.3.tgz"))).To(HaveLen(3))
}

func TestWrongArguments(t *testing.T) {
	const registry, version = "-registry=127.0.0.1:1", "-version=v1.2.3"
	for title, test := range map[string]struct {
		arguments []string
		images    string
		want      string
	}{
		"no version":           {[]string{registry}, images, "usage: "},
		"too much":             {[]string{version, "now"}, images, "usage: "},
		"two things at once":   {[]string{version, "-registration", "registration.yaml"}, images, "usage: "},
		"images of another":    {[]string{"-version", "v1.2.4", registry}, images, "no image gardener-extension-registry-cache of version v1.2.4"},
		"image without digest": {[]string{version, registry}, strings.ReplaceAll(images, "@"+digest, ""), "with a digest"},
		"one image only":       {[]string{version, registry}, strings.Join(strings.SplitAfter(images, "\n")[:2], ""), "no image registry-cache of"},
		"no vector":            {[]string{version, registry}, "images: {}", "image vector"},
	} {
		t.Run(title, func(t *testing.T) {
			g := NewWithT(t)
			vector := writeImages(t, test.images)
			t.Chdir(t.TempDir())
			g.Expect(run(append([]string{"-images", vector}, test.arguments...))).To(MatchError(ContainSubstring(test.want)))
			g.Expect(os.ReadDir(".")).To(BeEmpty())
		})
	}
	g := NewWithT(t)
	g.Expect(run([]string{"-registration", filepath.Join(t.TempDir(), "missing", "file")})).To(MatchError(os.ErrNotExist))
	g.Expect(run([]string{version, "-images", filepath.Join(t.TempDir(), "missing")})).To(MatchError(os.ErrNotExist))
	g.Expect(run([]string{version, "-output", t.TempDir(), registry})).To(
		MatchError(ContainSubstring("push packed chart 127.0.0.1:1/charts/gardener-extension-registry-cache:1.2.3")))
}

func startRegistry(t *testing.T) string {
	server, err := upstream.Start(t.TempDir(), "", "")
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	t.Cleanup(func() { _ = server.Close() })
	return server.Host()
}

func writeImages(t *testing.T, content string) string {
	path := filepath.Join(t.TempDir(), "images.yaml")
	NewWithT(t).Expect(os.WriteFile(path, []byte(content), 0o600)).To(Succeed())
	return path
}

// pull does what helm does with oci://REFERENCE.
func pull(g *WithT, reference string) ([]byte, *chartv2.Chart) {
	client, err := registry.NewClient(registry.ClientOptPlainHTTP())
	g.Expect(err).NotTo(HaveOccurred())
	result, err := client.Pull(reference)
	g.Expect(err).NotTo(HaveOccurred())
	chart, err := loader.LoadArchive(bytes.NewReader(result.Chart.Data))
	g.Expect(err).NotTo(HaveOccurred())
	return result.Chart.Data, chart
}
