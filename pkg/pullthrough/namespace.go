// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package pullthrough

import (
	"context"
	"net/http"

	"github.com/distribution/distribution/v3"
	"github.com/distribution/distribution/v3/registry/api/errcode"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Namespace returns the registry that clients see: what the engine has, in place
// of what a registry without it would have.
func (e *Engine) Namespace(local distribution.Namespace) distribution.Namespace {
	return &namespace{Namespace: local, engine: e}
}

type namespace struct {
	distribution.Namespace
	engine *Engine
}

// Repository returns a repository of the upstream, once the request is allowed
// to see it.
func (n *namespace) Repository(ctx context.Context, name reference.Named) (distribution.Repository, error) {
	if err := n.engine.authorize(ctx, name.Name()); err != nil {
		return nil, err
	}
	local, err := n.Namespace.Repository(ctx, name)
	if err != nil {
		return nil, err
	}
	return &repository{Repository: local, engine: n.engine}, nil
}

// Remove is here because distribution warns if a registry cannot remove
// repositories. Nothing calls it.
func (n *namespace) Remove(context.Context, reference.Named) error {
	return distribution.ErrUnsupported
}

// authorize says whether a request may have what is in a repository. It is asked
// before anything is served, and allows everybody everything.
func (e *Engine) authorize(context.Context, string) error { return nil }

// repository answers what clients of a registry that is read-only can ask for
// from the engine, and has distribution's local repository for all else.
type repository struct {
	distribution.Repository
	engine *Engine
}

// Blobs returns the blobs of the repository.
func (r *repository) Blobs(ctx context.Context) distribution.BlobStore {
	return &blobs{BlobStore: r.Repository.Blobs(ctx), repository: r}
}

// Manifests returns the manifests of the repository.
func (r *repository) Manifests(ctx context.Context, options ...distribution.ManifestServiceOption) (distribution.ManifestService, error) {
	local, err := r.Repository.Manifests(ctx, options...)
	if err != nil {
		return nil, err
	}
	return &manifests{ManifestService: local, repository: r}, nil
}

// Tags returns the tags of the repository.
func (r *repository) Tags(ctx context.Context) distribution.TagService {
	return &tags{TagService: r.Repository.Tags(ctx), repository: r}
}

type blobs struct {
	distribution.BlobStore
	repository *repository
}

// Stat returns no more than the digest: distribution's handler has no use for
// more, and the upstream is asked when the blob is served.
func (b *blobs) Stat(_ context.Context, dgst digest.Digest) (ocispec.Descriptor, error) {
	return ocispec.Descriptor{Digest: dgst}, nil
}

// ServeBlob answers a request for a blob. Its errors are what the client gets if
// the answer has not begun.
func (b *blobs) ServeBlob(ctx context.Context, w http.ResponseWriter, r *http.Request, dgst digest.Digest) error {
	name := b.repository.Named().Name()
	err := b.repository.engine.serveBlob(ctx, w, r, name, dgst)
	if err == nil {
		return nil
	}
	b.repository.engine.logFailure(ctx, err, "repository", name, "digest", dgst.String())
	return answer(err, errcode.ErrorCodeBlobUnknown.WithDetail(dgst))
}

type manifests struct {
	distribution.ManifestService
	repository *repository
}

// Get returns a manifest as the upstream has it, to the byte.
func (m *manifests) Get(ctx context.Context, dgst digest.Digest, _ ...distribution.ManifestServiceOption) (distribution.Manifest, error) {
	name := m.repository.Named().Name()
	found, err := m.repository.engine.manifest(ctx, name, dgst)
	if err == nil {
		return found, nil
	}
	m.repository.engine.logFailure(ctx, err, "repository", name, "digest", dgst.String())
	return nil, answer(err, errcode.ErrorCodeManifestUnknown.WithDetail(dgst))
}

type tags struct {
	distribution.TagService
	repository *repository
}

// Get returns what a tag stands for.
func (t *tags) Get(ctx context.Context, tag string) (ocispec.Descriptor, error) {
	name := t.repository.Named().Name()
	dgst, err := t.repository.engine.resolve(ctx, name, tag)
	if err == nil {
		return ocispec.Descriptor{Digest: dgst}, nil
	}
	t.repository.engine.logFailure(ctx, err, "repository", name, "tag", tag)
	return ocispec.Descriptor{}, answer(err, errcode.ErrorCodeManifestUnknown.WithDetail(tag))
}
