// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package node_test

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"net"
	"runtime"
	"strings"
	"time"

	containerregistry "github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/gardener/gardener-extension-registry-cache/test/upstream"
)

const (
	repository = "app"
	// Layers are pulled side by side, so that a direct pull takes about as long as
	// one of them. It must not be short: times of pulls are compared.
	layers    = 3
	layerSize = 4 << 20
)

// upstreamSpeed is that of an upstream at the other end of the internet, on each
// connection.
var upstreamSpeed = upstream.Speed{Delay: 20 * time.Millisecond, BytesPerSecond: 8 << 20}

// startRegistry runs a registry at port 443 of an address, with all names of the
// test's domain, until the spec or the suite ends.
func startRegistry(ctx context.Context, address string, signer *authority, speed upstream.Speed) *upstream.Registry {
	GinkgoHelper()
	started, err := upstream.Start(folder("registry"), "", "") //nolint:contextcheck // it lives until it is closed
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(started.Close)
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "tcp", net.JoinHostPort(address, "443"))
	Expect(err).NotTo(HaveOccurred())
	started.Publish(listener, signer.issue(domain).tls(), speed)
	return started
}

// image is an image that was pushed to the upstream.
type image struct {
	content v1.Image
	tag     string
	// size is that of all its blobs.
	size int64
}

// pushImage pushes an image that nobody has pulled yet to the upstream.
func pushImage(ctx context.Context) image {
	GinkgoHelper()
	config := &v1.ConfigFile{OS: "linux", Architecture: runtime.GOARCH, RootFS: v1.RootFS{Type: "layers"}}
	content, err := mutate.ConfigFile(mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON), config)
	Expect(err).NotTo(HaveOccurred())
	for i := range layers {
		content, err = mutate.AppendLayers(content, static.NewLayer(randomArchive(fmt.Sprintf("random-%d", i)), types.OCIUncompressedLayer))
		Expect(err).NotTo(HaveOccurred())
	}
	manifest, err := content.Manifest()
	Expect(err).NotTo(HaveOccurred())
	size := manifest.Config.Size
	for _, layer := range manifest.Layers {
		size += layer.Size
	}
	pushed := image{content: content, tag: strings.ToLower(rand.Text()), size: size}
	pushed.push(ctx, registry, pushed.tag)
	return pushed
}

// push pushes the image to a registry, past its slowness.
func (i image) push(ctx context.Context, to *upstream.Registry, tag string) {
	GinkgoHelper()
	reference, err := containerregistry.ParseReference(to.Host()+"/"+repository+":"+tag, containerregistry.Insecure)
	Expect(err).NotTo(HaveOccurred())
	Expect(remote.Write(reference, i.content, remote.WithContext(ctx))).To(Succeed())
}

// id is what containerd calls the image.
func (i image) id() string {
	GinkgoHelper()
	id, err := i.content.ConfigName()
	Expect(err).NotTo(HaveOccurred())
	return id.String()
}

// randomArchive is a layer with one file.
func randomArchive(name string) []byte {
	GinkgoHelper()
	content := make([]byte, layerSize)
	// It never fails.
	_, _ = rand.Read(content)
	var archive bytes.Buffer
	writer := tar.NewWriter(&archive)
	Expect(writer.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: layerSize, Typeflag: tar.TypeReg})).To(Succeed())
	_, err := writer.Write(content)
	Expect(err).NotTo(HaveOccurred())
	Expect(writer.Close()).To(Succeed())
	return archive.Bytes()
}
