// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package pullthrough

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// maxManifestBytes is twice what registries have to accept.
const maxManifestBytes = 8 << 20

// Media types of Docker's manifests:
// https://distribution.github.io/distribution/spec/manifest-v2-2/
const (
	mediaTypeDockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	mediaTypeDockerList     = "application/vnd.docker.distribution.manifest.list.v2+json"
)

// accepted is what the upstream is asked for, whoever asks: what it gives is
// stored for all. An upstream that does not find anything else gives what it has.
var accepted = http.Header{"Accept": {strings.Join([]string{
	ocispec.MediaTypeImageIndex, mediaTypeDockerList, ocispec.MediaTypeImageManifest, mediaTypeDockerManifest, "*/*",
}, ", ")}}

// manifest is a manifest of any media type. distribution's handlers send it as it
// is: it is none of the types that they know, which they would check against what
// the client accepts.
type manifest struct {
	digest    digest.Digest
	mediaType string
	payload   []byte
}

// References returns nothing: it is for pushes.
func (m *manifest) References() []ocispec.Descriptor { return nil }

// Payload returns the media type and the bytes of the manifest.
func (m *manifest) Payload() (mediaType string, payload []byte, err error) {
	return m.mediaType, m.payload, nil
}

// manifest returns a manifest of a repository from the volume, or else from the
// upstream.
func (e *Engine) manifest(ctx context.Context, repository string, dgst digest.Digest) (*manifest, error) {
	found, err := e.storedManifest(repository, dgst)
	outcome := Hit
	if err == nil && found == nil {
		running, shared := e.beginManifest(repository, dgst)
		if outcome = Miss; shared {
			outcome = Follow
		}
		found, err = running.wait(ctx)
	}
	if note(ctx, outcome) == Miss {
		// It was fetched to learn what its tag stands for.
		outcome = Miss
	}
	e.metrics.requested(typeManifest, outcome)
	if err != nil {
		return nil, err
	}
	e.metrics.answered(typeManifest, outcome, waited(ctx))
	// distribution's handler asks for the manifest to answer a HEAD, too.
	if method, _ := ctx.Value("http.request.method").(string); method != http.MethodHead {
		e.metrics.pushed(typeManifest, int64(len(found.payload)))
	}
	return found, nil
}

// beginManifest returns the call that gets a manifest, and whether there was one
// already.
func (e *Engine) beginManifest(repository string, dgst digest.Digest) (running *call[*manifest], shared bool) {
	return e.manifests.begin(repository+"@"+dgst.String(), func(ctx context.Context) (*manifest, error) {
		// Another call may have ended since it was looked for.
		if found, err := e.storedManifest(repository, dgst); err == nil && found != nil {
			return found, nil
		}
		return e.fetchManifest(ctx, repository, dgst.String(), dgst)
	})
}

// storedManifest returns nil if the repository's manifest is not stored. A file
// that is not what its digest says is deleted.
func (e *Engine) storedManifest(repository string, dgst digest.Digest) (*manifest, error) {
	mediaType, linked := e.store.manifest(repository, dgst)
	if !linked {
		return nil, nil
	}
	file, info, err := e.store.open(dgst)
	if err != nil {
		return nil, ignoreNotExist(err)
	}
	payload, err := io.ReadAll(io.LimitReader(file, maxManifestBytes))
	if err := errors.Join(err, file.Close()); err != nil {
		return nil, err
	}
	if dgst.Algorithm().FromBytes(payload) != dgst {
		e.metrics.mismatches.WithLabelValues(typeManifest).Inc()
		e.log.Error("Dropped a manifest whose file is not that of its digest", "repository", repository, "digest", dgst.String())
		return nil, e.evictor.drop(dgst)
	}
	e.evictor.used(dgst, info)
	if mediaType == "" {
		mediaType = mediaTypeOf(payload)
	}
	return &manifest{digest: dgst, mediaType: mediaType, payload: payload}, nil
}

// fetchManifest asks the upstream for a manifest by tag or digest, and stores it.
// If the digest is not known, it is what the upstream says, or the canonical one.
func (e *Engine) fetchManifest(ctx context.Context, repository, reference string, dgst digest.Digest) (*manifest, error) {
	q := request{kind: kindManifest, method: http.MethodGet, repository: repository, path: "manifests/" + reference, header: accepted}
	response, err := e.remote.do(ctx, q)
	if err != nil {
		return nil, err
	}
	payload, err := readAll(ctx, response, e.limits.ManifestHeader, maxManifestBytes)
	if err != nil {
		return nil, &upstreamError{operation: q.operation(), cause: err}
	}
	e.metrics.pulled(typeManifest, len(payload))
	if dgst == "" {
		dgst = announcedDigest(response.Header)
	}
	if dgst == "" {
		dgst = digest.FromBytes(payload)
	}
	if got := dgst.Algorithm().FromBytes(payload); got != dgst {
		e.metrics.mismatches.WithLabelValues(typeManifest).Inc()
		return nil, &upstreamError{operation: q.operation(), cause: fmt.Errorf("%w: it is %s, not %s", errMismatch, got, dgst)}
	}
	found := &manifest{mediaType: responseMediaType(response.Header, payload), payload: payload, digest: dgst}
	if err := e.storeManifest(ctx, repository, found); err != nil {
		// It is served all the same.
		e.log.Warn("Cannot store a manifest", "repository", repository, "digest", dgst.String(), "error", err)
	}
	return found, nil
}

func (e *Engine) storeManifest(ctx context.Context, repository string, found *manifest) error {
	err := e.withRoom(ctx, int64(len(found.payload)), func() error { return e.store.put(found.digest, found.payload) })
	if err != nil {
		return err
	}
	e.evictor.added(found.digest, int64(len(found.payload)))
	mediaType := found.mediaType
	if mediaType == mediaTypeOf(found.payload) {
		mediaType = ""
	}
	return e.withRoom(ctx, 1, func() error { return e.store.linkManifest(repository, found.digest, mediaType) })
}

// announcedDigest returns the digest of a response's content, or nothing.
func announcedDigest(header http.Header) digest.Digest {
	dgst := digest.Digest(header.Get("Docker-Content-Digest"))
	if dgst.Validate() != nil {
		return ""
	}
	return dgst
}

// responseMediaType is what the upstream says that a manifest is. It is what the
// content says if the upstream says nothing, or something that no manifest is.
func responseMediaType(header http.Header, payload []byte) string {
	mediaType, _, err := mime.ParseMediaType(header.Get("Content-Type"))
	switch {
	case err != nil, mediaType == "application/json", mediaType == "application/octet-stream", mediaType == "text/plain":
		return mediaTypeOf(payload)
	}
	return mediaType
}

// mediaTypeOf returns what a manifest says of itself, or what its form tells.
func mediaTypeOf(payload []byte) string {
	var form struct {
		MediaType string          `json:"mediaType"`
		Manifests json.RawMessage `json:"manifests"`
	}
	switch err := json.Unmarshal(payload, &form); {
	case err != nil:
		return "application/octet-stream"
	case form.MediaType != "":
		return form.MediaType
	case form.Manifests != nil:
		return ocispec.MediaTypeImageIndex
	default:
		return ocispec.MediaTypeImageManifest
	}
}
