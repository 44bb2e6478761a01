// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"archive/tar"
	"bytes"
	"crypto/x509"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	cyclonedx "github.com/CycloneDX/cyclonedx-go"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/validate"
	. "github.com/onsi/gomega"

	"github.com/gardener/gardener/pkg/utils/imagevector"

	"github.com/gardener/gardener-extension-registry-cache/test/upstream"
)

func TestImageIsBuiltAlikeEachTimeAndPushed(t *testing.T) {
	g := NewWithT(t)
	first, second := t.TempDir(), t.TempDir()
	registry, err := upstream.Start(t.TempDir(), "", "")
	g.Expect(err).NotTo(HaveOccurred())
	t.Cleanup(func() { _ = registry.Close() })
	t.Chdir("../..") // as make runs it

	arguments := []string{"-version", "v1.2.3", "-revision", "0123abcd", "-images", "registry-cache", "-platforms", "linux/" + runtime.GOARCH}
	g.Expect(run(t.Context(), append(arguments, "-output", first))).To(Succeed())
	// Settings of the caller's shell are not in an image.
	t.Setenv("GOFLAGS", "-tags=something")
	t.Setenv("GOAMD64", "v2")
	g.Expect(run(t.Context(), append(arguments, "-output", second, "-registry", registry.Host()+"/some/path", "-insecure"))).To(Succeed())

	built := readLayout(g, filepath.Join(first, "registry-cache"))
	digest, err := built.Digest()
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(readLayout(g, filepath.Join(second, "registry-cache")).Digest()).To(Equal(digest))
	reference, err := name.ParseReference(registry.Host()+"/some/path/registry-cache:v1.2.3", name.Insecure)
	g.Expect(err).NotTo(HaveOccurred())
	pushed, err := remote.Index(reference)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(pushed.Digest()).To(Equal(digest))
	expectVector(g, filepath.Join(second, "images.yaml"), registry.Host()+"/some/path/registry-cache:v1.2.3@"+digest.String())

	manifest, err := built.IndexManifest()
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(manifest.Annotations).To(And(
		HaveKeyWithValue("org.opencontainers.image.version", "v1.2.3"),
		HaveKeyWithValue("org.opencontainers.image.revision", "0123abcd"),
		HaveKeyWithValue("org.opencontainers.image.source", "https://github.com/gardener/gardener-extension-registry-cache"),
		HaveKeyWithValue("org.opencontainers.image.licenses", "Apache-2.0"),
	))
	g.Expect(manifest.Manifests).To(ConsistOf(HaveField("Platform.Architecture", runtime.GOARCH)))
	image, err := built.Image(manifest.Manifests[0].Digest)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(validate.Image(image)).To(Succeed())
	config, err := image.ConfigFile()
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(config.Config.User).To(Equal("65532:65532"))
	g.Expect(config.Config.Entrypoint).To(Equal([]string{"/registry-cache"}))
	g.Expect(config.Config.Labels).To(Equal(manifest.Annotations))
	g.Expect(pathsOf(g, image)).To(ConsistOf("registry-cache",
		"etc", "etc/passwd", "etc/group", "etc/ssl", "etc/ssl/certs", "etc/ssl/certs/ca-certificates.crt", "tmp"))
}

func TestBillOfMaterials(t *testing.T) {
	g := NewWithT(t)
	dir := t.TempDir()
	registry, err := upstream.Start(t.TempDir(), "", "")
	g.Expect(err).NotTo(HaveOccurred())
	t.Cleanup(func() { _ = registry.Close() })
	t.Chdir("../..")
	platform := "linux-" + runtime.GOARCH

	g.Expect(run(t.Context(), []string{
		"-version", "v1.2.3", "-images", "registry-cache", "-platforms", "linux/" + runtime.GOARCH,
		"-output", dir, "-registry", registry.Host(), "-insecure",
	})).To(Succeed())

	content, err := os.ReadFile(filepath.Join(dir, "registry-cache."+platform+".cdx.json"))
	g.Expect(err).NotTo(HaveOccurred())
	bom := &cyclonedx.BOM{}
	g.Expect(cyclonedx.NewBOMDecoder(bytes.NewReader(content), cyclonedx.BOMFileFormatJSON).Decode(bom)).To(Succeed())
	g.Expect(bom.Metadata.Component.Version).To(Equal("v1.2.3"))
	g.Expect(*bom.Components).To(ContainElements(
		And(HaveField("Name", "std"), HaveField("Version", strings.TrimPrefix(runtime.Version(), "go"))),
		And(HaveField("Name", "github.com/distribution/distribution/v3"), HaveField("Version", HavePrefix("v3."))),
	))
	// The extension's libraries are not in the cache server.
	g.Expect(*bom.Components).NotTo(ContainElement(HaveField("Name", "github.com/gardener/gardener")))

	// A scanner finds it with nothing but the image.
	manifest, err := readLayout(g, filepath.Join(dir, "registry-cache")).IndexManifest()
	g.Expect(err).NotTo(HaveOccurred())
	image, err := name.NewDigest(registry.Host()+"/registry-cache@"+manifest.Manifests[0].Digest.String(), name.Insecure)
	g.Expect(err).NotTo(HaveOccurred())
	referrers, err := remote.Referrers(image)
	g.Expect(err).NotTo(HaveOccurred())
	list, err := referrers.IndexManifest()
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(list.Manifests).To(ConsistOf(HaveField("ArtifactType", sbomType)))
	artifact, err := remote.Image(image.Digest(list.Manifests[0].Digest.String()))
	g.Expect(err).NotTo(HaveOccurred())
	layers, err := artifact.Layers()
	g.Expect(err).NotTo(HaveOccurred())
	reader, err := layers[0].Uncompressed()
	g.Expect(err).NotTo(HaveOccurred())
	defer func() { _ = reader.Close() }()
	g.Expect(io.ReadAll(reader)).To(Equal(content))
}

func expectVector(g *WithT, path, image string) {
	content, err := os.ReadFile(path)
	g.Expect(err).NotTo(HaveOccurred())
	vector, _, err := imagevector.Read(content)
	g.Expect(err).NotTo(HaveOccurred())
	found, err := vector.FindImage("registry-cache")
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(found.String()).To(Equal(image))
}

func TestCertificateAuthorities(t *testing.T) {
	g := NewWithT(t)
	pool := x509.NewCertPool()
	g.Expect(pool.AppendCertsFromPEM(certificateAuthorities())).To(BeTrue())
	g.Expect(strings.Count(string(certificateAuthorities()), "BEGIN CERTIFICATE")).To(BeNumerically(">", 100))
}

func TestWrongArguments(t *testing.T) {
	for title, test := range map[string]struct {
		arguments []string
		want      string
	}{
		"no version":       {nil, "usage: "},
		"argument":         {[]string{"-version", "v1", "more"}, "usage: "},
		"unknown flag":     {[]string{"-size", "big"}, "not defined"},
		"unknown image":    {[]string{"-version", "v1", "-images", "registry-cache,registry-cash"}, `no image "registry-cash"`},
		"unknown platform": {[]string{"-version", "v1", "-platforms", "a/b/c/d"}, `platform "a/b/c/d"`},
	} {
		t.Run(title, func(t *testing.T) {
			g := NewWithT(t)
			t.Chdir(t.TempDir())
			g.Expect(run(t.Context(), test.arguments)).To(MatchError(ContainSubstring(test.want)))
			g.Expect(os.ReadDir(".")).To(BeEmpty())
		})
	}
}

func readLayout(g *WithT, dir string) v1.ImageIndex {
	index, err := layout.ImageIndexFromPath(dir)
	g.Expect(err).NotTo(HaveOccurred())
	manifest, err := index.IndexManifest()
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(manifest.Manifests).To(ConsistOf(HaveField("Annotations", HaveKeyWithValue("org.opencontainers.image.ref.name", "v1.2.3"))))
	image, err := index.ImageIndex(manifest.Manifests[0].Digest)
	g.Expect(err).NotTo(HaveOccurred())
	return image
}

// pathsOf returns the paths of an image's files; all have to belong to root.
func pathsOf(g *WithT, image v1.Image) []string {
	content := mutate.Extract(image)
	defer func() { _ = content.Close() }()
	var paths []string
	for reader := tar.NewReader(content); ; {
		header, err := reader.Next()
		if errors.Is(err, io.EOF) {
			return paths
		}
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(header.Uid+header.Gid).To(BeZero(), header.Name)
		paths = append(paths, filepath.Clean(header.Name))
	}
}
