// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"archive/tar"
	"crypto/x509"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/validate"
	. "github.com/onsi/gomega"

	"github.com/gardener/gardener-extension-registry-cache/test/upstream"
)

func TestImageIsBuiltAlikeEachTimeAndPushed(t *testing.T) {
	g := NewWithT(t)
	first, second := t.TempDir(), t.TempDir()
	registry, err := upstream.Start(t.TempDir(), "", "")
	g.Expect(err).NotTo(HaveOccurred())
	t.Cleanup(func() { _ = registry.Close() })
	t.Chdir("../..") // as make runs it

	arguments := []string{"-version", "v1.2.3", "-images", "registry-cache", "-platforms", "linux/" + runtime.GOARCH}
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

	manifest, err := built.IndexManifest()
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(manifest.Annotations).To(HaveKeyWithValue("org.opencontainers.image.version", "v1.2.3"))
	g.Expect(manifest.Manifests).To(ConsistOf(HaveField("Platform.Architecture", runtime.GOARCH)))
	image, err := built.Image(manifest.Manifests[0].Digest)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(validate.Image(image)).To(Succeed())
	config, err := image.ConfigFile()
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(config.Config.User).To(Equal("65532:65532"))
	g.Expect(config.Config.Entrypoint).To(Equal([]string{"/registry-cache"}))
	g.Expect(pathsOf(g, image)).To(ConsistOf("registry-cache",
		"etc", "etc/passwd", "etc/group", "etc/ssl", "etc/ssl/certs", "etc/ssl/certs/ca-certificates.crt", "tmp"))
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
