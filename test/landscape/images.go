// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package landscape

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/gardener/gardener-extension-registry-cache/pkg/imagevector"
	"github.com/gardener/gardener-extension-registry-cache/test/cluster"
	"github.com/gardener/gardener-extension-registry-cache/test/process"
	"github.com/gardener/gardener-extension-registry-cache/test/upstream"
)

// internetCA is where the cache's image, as it is published here, has the
// certificate authority of the test's internet, beside those of the real one.
const internetCA = "etc/ssl/certs/test-internet.crt"

// publishProductImages puts the image of the cache server where the image vector
// says that it is, and the one that each pod needs.
func (l *Landscape) publishProductImages(ctx context.Context) error {
	vector, err := imagevector.Read()
	if err != nil {
		return err
	}
	image, err := imagevector.RegistryCache(vector)
	if err != nil {
		return err
	}
	cache, err := name.ParseReference(image)
	if err != nil {
		return fmt.Errorf("parse the image of the image vector: %w", err)
	}
	pause, err := name.ParseReference(cluster.PauseImage)
	if err != nil {
		return fmt.Errorf("parse image: %w", err)
	}
	registry, err := l.StartRegistry(ctx, upstream.Speed{}, "", "", cache.Context().RegistryStr(), pause.Context().RegistryStr())
	if err != nil {
		return err
	}
	cacheImage, err := l.cacheImage()
	if err != nil {
		return fmt.Errorf("read image %s: %w", image, err)
	}
	if err := Push(ctx, registry, cache.Context().RepositoryStr(), cache.Identifier(), cacheImage); err != nil {
		return err
	}
	pauseImage, err := NewImage(0, 0)
	if err != nil {
		return err
	}
	if err := Push(ctx, registry, pause.Context().RepositoryStr(), pause.Identifier(), pauseImage); err != nil {
		return err
	}
	// Images of tests share its layer: what a pull takes must not depend on whether
	// there was a pod before.
	_, err = l.Node.Run(ctx, "ctr", "images", "pull", cluster.PauseImage)
	return err
}

// cacheImage is the product's image of the cache server, as `make images` writes
// it, with one more file: upstreams here have certificates of a test authority.
func (l *Landscape) cacheImage() (v1.Image, error) {
	dir, err := process.FindBinary("images")
	if err != nil {
		return nil, err
	}
	layouts, err := layout.ImageIndexFromPath(filepath.Join(dir, "registry-cache"))
	if err != nil {
		return nil, err
	}
	manifest, err := layouts.IndexManifest()
	if err != nil {
		return nil, err
	}
	if len(manifest.Manifests) != 1 {
		return nil, fmt.Errorf("%d images where one was expected", len(manifest.Manifests))
	}
	index, err := layouts.ImageIndex(manifest.Manifests[0].Digest)
	if err != nil {
		return nil, err
	}
	if manifest, err = index.IndexManifest(); err != nil {
		return nil, err
	}
	for _, descriptor := range manifest.Manifests {
		if descriptor.Platform.Architecture != runtime.GOARCH {
			continue
		}
		image, err := index.Image(descriptor.Digest)
		if err != nil {
			return nil, err
		}
		return appendFile(image, internetCA, 0o644, l.Internet.CA)
	}
	return nil, fmt.Errorf("there is none for %s", runtime.GOARCH)
}

// NewImage returns an image that a pod can run, with random layers of a size.
func NewImage(layers int, size int64) (v1.Image, error) {
	path, err := process.FindBinary("pause")
	if err != nil {
		return nil, err
	}
	binary, err := os.ReadFile(path) //nolint:gosec // the binary is what the test was given to run
	if err != nil {
		return nil, fmt.Errorf("read binary of the image: %w", err)
	}
	image := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	if image, err = appendFile(image, "pause", 0o755, binary); err != nil {
		return nil, err
	}
	for i := range layers {
		content := make([]byte, size)
		// It never fails.
		_, _ = rand.Read(content)
		if image, err = appendFile(image, fmt.Sprintf("random-%d", i), 0o644, content); err != nil {
			return nil, err
		}
	}
	config, err := image.ConfigFile()
	if err != nil {
		return nil, fmt.Errorf("read configuration of the image: %w", err)
	}
	config = config.DeepCopy()
	config.OS, config.Architecture = "linux", runtime.GOARCH
	config.Config.Entrypoint = []string{"/pause"}
	return mutate.ConfigFile(image, config)
}

// NewProgramImage returns an image with a program of this machine, and the libraries
// that it loads, all where they are here.
func NewProgramImage(ctx context.Context, program string) (v1.Image, error) {
	libraries, err := exec.CommandContext(ctx, "ldd", program).Output() //nolint:gosec // the program is what the test names
	if err != nil {
		return nil, fmt.Errorf("list libraries of %s: %w", program, err)
	}
	image, err := NewImage(0, 0)
	if err != nil {
		return nil, err
	}
	for _, field := range append(strings.Fields(string(libraries)), program) {
		if !strings.HasPrefix(field, "/") {
			continue
		}
		content, err := os.ReadFile(field) //nolint:gosec // a program or library of the machine
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", field, err)
		}
		if image, err = appendFile(image, strings.TrimPrefix(field, "/"), 0o755, content); err != nil {
			return nil, err
		}
	}
	return image, nil
}

// NewIndex returns an index of an image for this platform and one for another,
// which is listed first and has twice the layers.
func NewIndex(layers int, size int64) (v1.ImageIndex, error) {
	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for _, platform := range []struct {
		architecture string
		layers       int
	}{{"riscv64", 2 * layers}, {runtime.GOARCH, layers}} {
		image, err := NewImage(platform.layers, size)
		if err != nil {
			return nil, err
		}
		config, err := image.ConfigFile()
		if err != nil {
			return nil, fmt.Errorf("read configuration of the image: %w", err)
		}
		config = config.DeepCopy()
		config.Architecture = platform.architecture
		if image, err = mutate.ConfigFile(image, config); err != nil {
			return nil, fmt.Errorf("set platform of the image: %w", err)
		}
		index = mutate.AppendManifests(index, mutate.IndexAddendum{
			Add:        image,
			Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: platform.architecture}},
		})
	}
	return index, nil
}

// Push pushes an image or an index to a registry, past its slowness.
func Push(ctx context.Context, registry *upstream.Registry, repository, tag string, content remote.Taggable, options ...remote.Option) error {
	reference, err := name.ParseReference(registry.Host()+"/"+repository+":"+tag, name.Insecure)
	if err != nil {
		return fmt.Errorf("push: %w", err)
	}
	options = append(options, remote.WithContext(ctx))
	switch content := content.(type) {
	case v1.Image:
		err = remote.Write(reference, content, options...)
	case v1.ImageIndex:
		err = remote.WriteIndex(reference, content, options...)
	default:
		err = errors.New("neither an image nor an index")
	}
	if err != nil {
		return fmt.Errorf("push %s: %w", reference, err)
	}
	return nil
}

// appendFile adds a layer with one file, which belongs to root.
func appendFile(image v1.Image, path string, mode int64, content []byte) (v1.Image, error) {
	var archive bytes.Buffer
	writer := tar.NewWriter(&archive)
	err := writer.WriteHeader(&tar.Header{Name: path, Mode: mode, Size: int64(len(content)), Typeflag: tar.TypeReg})
	if err == nil {
		_, err = writer.Write(content)
	}
	if err == nil {
		err = writer.Close()
	}
	if err != nil {
		return nil, fmt.Errorf("make layer with %s: %w", path, err)
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(archive.Bytes())), nil
	}, tarball.WithMediaType(types.OCILayer), tarball.WithCompressionLevel(gzip.NoCompression))
	if err != nil {
		return nil, fmt.Errorf("make layer with %s: %w", path, err)
	}
	return mutate.AppendLayers(image, layer)
}
