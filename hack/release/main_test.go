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

	. "github.com/onsi/gomega"
	chartv2 "helm.sh/helm/v4/pkg/chart/v2"
	"helm.sh/helm/v4/pkg/chart/v2/loader"
	"helm.sh/helm/v4/pkg/registry"

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

func TestReleasesAreReproducible(t *testing.T) {
	g := NewWithT(t)
	pushed, err := readImages([]byte(images), "v1.2.3")
	g.Expect(err).NotTo(HaveOccurred())
	first, err := pack("gardener-extension-registry-cache", "v1.2.3", pushed)
	g.Expect(err).NotTo(HaveOccurred())
	second, err := pack("gardener-extension-registry-cache", "v1.2.3", pushed)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(first).To(Equal(second))
}

func TestWrongArguments(t *testing.T) {
	for title, test := range map[string]struct {
		arguments []string
		images    string
		want      string
	}{
		"no version":           {[]string{"-registry", "registry.test"}, images, "usage: "},
		"no registry":          {[]string{"-version", "v1.2.3"}, images, "usage: "},
		"images of another":    {[]string{"-version", "v1.2.4", "-registry", "registry.test"}, images, "no image gardener-extension-registry-cache of version v1.2.4"},
		"image without digest": {[]string{"-version", "v1.2.3", "-registry", "registry.test"}, strings.ReplaceAll(images, "@"+digest, ""), "with a digest"},
		"one image only": {
			[]string{"-version", "v1.2.3", "-registry", "registry.test"}, strings.Join(strings.SplitAfter(images, "\n")[:2], ""), "no image registry-cache of",
		},
		"no vector": {[]string{"-version", "v1.2.3", "-registry", "registry.test"}, "images: {}", "image vector"},
	} {
		t.Run(title, func(t *testing.T) {
			g := NewWithT(t)
			vector := writeImages(t, test.images)
			t.Chdir(t.TempDir())
			g.Expect(run(append(test.arguments, "-images", vector))).To(MatchError(ContainSubstring(test.want)))
			g.Expect(os.ReadDir(".")).To(BeEmpty())
		})
	}
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
