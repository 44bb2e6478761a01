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
	// readsPerImage bound how many manifests are read for an inventory: an index, and
	// what it refers to, for itself and for the index.
	readsPerImage = 4
)

// errEnough ends a walk that has found enough, which is no failure.
var errEnough = errors.New("enough")

// Inventory returns the images on the volume: all, or those of one repository. It reads
// their manifests, and uses none: what it lists becomes not younger by that.
func (e *Engine) Inventory(ctx context.Context, repository string) (*inventory.Inventory, error) {
	return (&census{Engine: e, repository: repository, maxImages: maxImages}).take(ctx)
}

// census makes one inventory. Once it has more than maxImages, or has read as many
// manifests as it may, it is enough, and nothing more is read.
type census struct {
	*Engine

	// repository is the one that is listed, or empty.
	repository string
	maxImages  int

	images []inventory.Image
	// reads are the manifests that were read, some of them twice.
	reads int
	// enough ends the walk.
	enough context.CancelCauseFunc
	// truncated says that it was ended.
	truncated bool
}

func (c *census) take(ctx context.Context) (*inventory.Inventory, error) {
	walkCtx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	c.enough = cancel
	root := filepath.Join(c.store.content, "repositories")
	err := c.store.eachRepository(walkCtx, func(folder string) error {
		name, err := filepath.Rel(root, folder)
		if err != nil || c.repository != "" && name != c.repository {
			return err
		}
		c.images = append(c.images, c.imagesOf(walkCtx, name, folder)...)
		if len(c.images) > c.maxImages {
			c.truncate()
		}
		return nil
	})
	// A repository's own walk, which may be the last, hides that the client has gone.
	if err := errors.Join(err, ctx.Err()); err != nil {
		return nil, err
	}
	slices.SortFunc(c.images, func(a, b inventory.Image) int {
		return cmp.Or(cmp.Compare(a.Repository, b.Repository), cmp.Compare(a.Digest, b.Digest))
	})
	listed := c.images[:min(len(c.images), c.maxImages)]
	return &inventory.Inventory{Images: append([]inventory.Image{}, listed...), Truncated: c.truncated}, nil
}

// truncate ends the walk.
func (c *census) truncate() {
	c.truncated = true
	c.enough(errEnough)
}

// imagesOf returns the images of a repository. What cannot be read is left out: it
// cannot be served either. If the walk ends in it, what an index refers to that was not
// read is listed by itself.
func (c *census) imagesOf(ctx context.Context, repository, folder string) []inventory.Image {
	tags := make(map[digest.Digest][]string)
	manifests := filepath.Join(folder, manifestsFolder)
	_ = eachFolder(ctx, filepath.Join(manifests, "tags"), func(tag string) error {
		if dgst, ok := c.store.tag(repository, tag); ok {
			tags[dgst] = append(tags[dgst], tag)
		}
		return nil
	})
	images := make(map[digest.Digest]*image)
	_ = eachFolder(ctx, filepath.Join(manifests, "revisions"), func(algorithm string) error {
		return eachFolder(ctx, filepath.Join(manifests, "revisions", algorithm), func(hex string) error {
			dgst, ok := parseDigest(algorithm, hex)
			if !ok || !c.store.has(dgst) {
				return nil
			}
			if i := c.newImage(dgst); !c.truncated {
				images[dgst] = i
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

// newImage returns an image, which is not complete if the walk ends in it.
func (c *census) newImage(dgst digest.Digest) *image {
	i := &image{blobs: make(map[digest.Digest]bool), missing: make(map[digest.Digest]bool)}
	c.addManifest(i, dgst, 0)
	return i
}

// addManifest adds a manifest or an index that is stored, and what it refers to.
func (c *census) addManifest(i *image, dgst digest.Digest, depth int) {
	if c.reads >= readsPerImage*c.maxImages {
		c.truncate()
		return
	}
	c.reads++
	c.addBlob(i, dgst)
	var content struct {
		Config    *ocispec.Descriptor  `json:"config"`
		Layers    []ocispec.Descriptor `json:"layers"`
		Manifests []ocispec.Descriptor `json:"manifests"`
	}
	if err := json.Unmarshal(c.store.peek(dgst), &content); err != nil {
		return // of a kind that refers to nothing
	}
	if content.Config != nil {
		content.Layers = append(content.Layers, *content.Config)
	}
	for _, layer := range content.Layers {
		// What another place has, or the manifest itself, is not fetched.
		if layer.Digest.Validate() == nil && len(layer.URLs) == 0 && len(layer.Data) == 0 {
			c.addBlob(i, layer.Digest)
		}
	}
	platforms := 0
	for _, child := range content.Manifests {
		if child.Digest.Validate() != nil {
			continue
		}
		i.children = append(i.children, child.Digest)
		if depth < maxIndexDepth && c.store.has(child.Digest) && !i.blobs[child.Digest] {
			c.addManifest(i, child.Digest, depth+1)
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
