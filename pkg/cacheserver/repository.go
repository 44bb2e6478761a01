// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package cacheserver

import (
	"context"
	"errors"
	"log/slog"
	"net/http"

	"github.com/distribution/distribution/v3"
	"github.com/distribution/distribution/v3/registry/api/errcode"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// repository keeps what is used from expiry, and turns the errors of its inner
// repository into those that a cache may answer with: 401, 403, 404, and 503
// for all others, so that a client goes on to the upstream.
type repository struct {
	distribution.Repository
	expiry *expiry
	// offline says that the inner repository has no more than what is stored, so
	// that it cannot tell what does not exist.
	offline bool
	log     *slog.Logger
}

// Blobs returns the blobs of the repository.
func (r *repository) Blobs(ctx context.Context) distribution.BlobStore {
	return &blobStore{BlobStore: r.Repository.Blobs(ctx), repository: r}
}

// Manifests returns the manifests of the repository.
func (r *repository) Manifests(ctx context.Context, options ...distribution.ManifestServiceOption) (distribution.ManifestService, error) {
	inner, err := r.Repository.Manifests(ctx, options...)
	if err != nil {
		return nil, err
	}
	return &manifestService{ManifestService: inner, repository: r}, nil
}

// Tags returns the tags of the repository.
func (r *repository) Tags(ctx context.Context) distribution.TagService {
	return &tagService{TagService: r.Repository.Tags(ctx), repository: r}
}

type blobStore struct {
	distribution.BlobStore
	repository *repository
}

// Stat does not count as use: only serving does.
func (s *blobStore) Stat(ctx context.Context, dgst digest.Digest) (ocispec.Descriptor, error) {
	descriptor, err := s.BlobStore.Stat(ctx, dgst)
	return descriptor, s.repository.answer(ctx, err)
}

// ServeBlob answers a request for a blob, which counts as use.
func (s *blobStore) ServeBlob(ctx context.Context, w http.ResponseWriter, r *http.Request, dgst digest.Digest) error {
	if err := s.BlobStore.ServeBlob(ctx, w, r, dgst); err != nil {
		return s.repository.answer(ctx, err)
	}
	s.repository.expiry.usedBlob(s.repository.Named(), dgst)
	return nil
}

type manifestService struct {
	distribution.ManifestService
	repository *repository
}

// Get returns a manifest, which counts as use.
func (s *manifestService) Get(ctx context.Context, dgst digest.Digest, options ...distribution.ManifestServiceOption) (distribution.Manifest, error) {
	manifest, err := s.ManifestService.Get(ctx, dgst, options...)
	if err != nil {
		return nil, s.repository.answer(ctx, err)
	}
	s.repository.expiry.usedManifest(s.repository.Named(), dgst)
	return manifest, nil
}

type tagService struct {
	distribution.TagService
	repository *repository
}

// Get returns what a tag stands for.
func (s *tagService) Get(ctx context.Context, tag string) (ocispec.Descriptor, error) {
	descriptor, err := s.TagService.Get(ctx, tag)
	return descriptor, s.repository.answer(ctx, err)
}

// answer returns an unknown blob, manifest or tag as it is: distribution's
// handlers compare these errors without unwrapping them.
func (r *repository) answer(ctx context.Context, err error) error {
	switch {
	case err == nil:
		return nil
	case isUnknown(err):
		if r.offline {
			return errcode.ErrorCodeUnavailable.WithMessage("not stored, and the upstream cannot be reached")
		}
		return err
	case ctx.Err() != nil:
		// The client has gone, which is no failure of the upstream.
		return errcode.ErrorCodeUnavailable
	}

	var list errcode.Errors
	var single errcode.Error
	switch {
	case errors.As(err, &list) && len(list) > 0:
		if coder, ok := list[0].(errcode.ErrorCoder); ok && mayAnswer(coder.ErrorCode()) {
			return list
		}
	case errors.As(err, &single) && mayAnswer(single.Code):
		return single
	}
	// The cause may hold signed URLs, so it goes to the log only, without them.
	r.log.Warn("Cannot answer from store or upstream", "repository", r.Named().Name(), "error", redact(err.Error()))
	return errcode.ErrorCodeUnavailable.WithMessage("the upstream failed")
}

func isUnknown(err error) bool {
	var manifest distribution.ErrManifestUnknown
	var revision distribution.ErrManifestUnknownRevision
	var tag distribution.ErrTagUnknown
	var repository distribution.ErrRepositoryUnknown
	return errors.Is(err, distribution.ErrBlobUnknown) || errors.As(err, &manifest) || errors.As(err, &revision) ||
		errors.As(err, &tag) || errors.As(err, &repository)
}

func mayAnswer(code errcode.ErrorCode) bool {
	switch code.Descriptor().HTTPStatusCode {
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound:
		return true
	}
	return false
}
