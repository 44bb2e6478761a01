// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package pullthrough

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/gardener/gardener-extension-registry-cache/pkg/apis/inventory"
)

const (
	// maxImages bound an inventory, and maxListedManifest the manifests that are read for
	// it. An index in an index in an index is no image.
	maxImages         = 5000
	maxListedManifest = 4 << 20
	maxIndexDepth     = 2
)

// errEnough ends a walk.
var errEnough = errors.New("enough")

// Inventory returns the images on the volume: all, or those of one repository. It reads
// all manifests, and uses none: what it lists becomes not younger by that.
func (e *Engine) Inventory(ctx context.Context, repository string) (*inventory.Inventory, error) {
	found := &inventory.Inventory{Images: []inventory.Image{}}
	root := filepath.Join(e.store.content, "repositories")
	err := e.store.eachRepository(ctx, func(folder string) error {
		name, err := filepath.Rel(root, folder)
		if err != nil || repository != "" && name != repository {
			return err
		}
		found.Images = append(found.Images, e.imagesOf(ctx, name, folder)...)
		if len(found.Images) > maxImages {
			return errEnough
		}
		return nil
	})
	if err != nil && !errors.Is(err, errEnough) {
		return nil, err
	}
	slices.SortFunc(found.Images, func(a, b inventory.Image) int {
		return cmp.Or(cmp.Compare(a.Repository, b.Repository), cmp.Compare(a.Digest, b.Digest))
	})
	if len(found.Images) > maxImages {
		found.Images, found.Truncated = found.Images[:maxImages], true
	}
	return found, nil
}

// imagesOf returns the images of a repository. What cannot be read is left out: it
// cannot be served either.
func (e *Engine) imagesOf(ctx context.Context, repository, folder string) []inventory.Image {
	tags := make(map[digest.Digest][]string)
	manifests := filepath.Join(folder, manifestsFolder)
	_ = eachFolder(ctx, filepath.Join(manifests, "tags"), func(tag string) error {
		if dgst, ok := e.store.tag(repository, tag); ok {
			tags[dgst] = append(tags[dgst], tag)
		}
		return nil
	})
	images := make(map[digest.Digest]*image)
	_ = eachFolder(ctx, filepath.Join(manifests, "revisions"), func(algorithm string) error {
		return eachFolder(ctx, filepath.Join(manifests, "revisions", algorithm), func(hex string) error {
			if dgst, ok := parseDigest(algorithm, hex); ok && e.store.has(dgst) {
				images[dgst] = e.newImage(dgst)
			}
			return nil
		})
	})
	inner := make(map[digest.Digest]bool)
	for _, i := range images {
		for _, child := range i.children {
			inner[child] = true
		}
	}
	listed := make([]inventory.Image, 0, len(images))
	for dgst, i := range images {
		if inner[dgst] && len(tags[dgst]) == 0 {
			continue
		}
		slices.Sort(tags[dgst])
		listed = append(listed, inventory.Image{
			Repository: repository, Digest: dgst.String(), Tags: tags[dgst],
			Blobs: len(i.blobs), Missing: len(i.missing), Bytes: i.bytes, LastUsed: i.used,
		})
	}
	return listed
}

// image is a manifest or an index with what it refers to.
type image struct {
	blobs, missing map[digest.Digest]bool
	children       []digest.Digest
	bytes          int64
	used           time.Time
}

func (e *Engine) newImage(dgst digest.Digest) *image {
	i := &image{blobs: make(map[digest.Digest]bool), missing: make(map[digest.Digest]bool)}
	e.addManifest(i, dgst, 0)
	return i
}

// addManifest adds a manifest or an index that is stored, and what it refers to.
func (e *Engine) addManifest(i *image, dgst digest.Digest, depth int) {
	e.addBlob(i, dgst)
	var content struct {
		Config    *ocispec.Descriptor  `json:"config"`
		Layers    []ocispec.Descriptor `json:"layers"`
		Manifests []ocispec.Descriptor `json:"manifests"`
	}
	if err := json.Unmarshal(e.store.peek(dgst), &content); err != nil {
		return // of a kind that refers to nothing
	}
	if content.Config != nil {
		content.Layers = append(content.Layers, *content.Config)
	}
	for _, layer := range content.Layers {
		// What another place has, or the manifest itself, is not fetched.
		if layer.Digest.Validate() == nil && len(layer.URLs) == 0 && len(layer.Data) == 0 {
			e.addBlob(i, layer.Digest)
		}
	}
	platforms := 0
	for _, child := range content.Manifests {
		if child.Digest.Validate() != nil {
			continue
		}
		i.children = append(i.children, child.Digest)
		if depth < maxIndexDepth && e.store.has(child.Digest) && !i.blobs[child.Digest] {
			e.addManifest(i, child.Digest, depth+1)
			platforms++
		}
	}
	if platforms == 0 && len(content.Manifests) > 0 {
		// An index alone is of no use.
		i.missing[content.Manifests[0].Digest] = true
	}
}

func (e *Engine) addBlob(i *image, dgst digest.Digest) {
	if i.blobs[dgst] {
		return
	}
	info, err := os.Lstat(e.store.blobPath(dgst))
	if err != nil {
		i.missing[dgst] = true
		return
	}
	i.blobs[dgst] = true
	i.bytes += info.Size()
	last := e.evictor.lastUse(dgst)
	if last == 0 {
		last = lastUse(info)
	}
	if used := time.Unix(0, last).UTC().Truncate(time.Second); used.After(i.used) {
		i.used = used
	}
}

// lastUse returns when a blob was last used, in nanoseconds since 1970; 0: it is not
// known.
func (v *evictor) lastUse(dgst digest.Digest) int64 {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.blobs[dgst].last
}

// peek returns a manifest without using it: the time of access of its file stays, if it
// is this process's own. It returns nothing if there is none.
func (s *store) peek(dgst digest.Digest) []byte {
	path := s.blobPath(dgst)
	file, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOATIME, 0) //nolint:gosec // a path of ours
	if errors.Is(err, os.ErrPermission) {
		file, err = os.Open(path) //nolint:gosec // see above
	}
	if err != nil {
		return nil
	}
	defer func() { _ = file.Close() }() // it was only read
	content, err := io.ReadAll(io.LimitReader(file, maxListedManifest))
	if err != nil {
		return nil
	}
	return content
}
