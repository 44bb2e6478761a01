// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package pullthrough

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/opencontainers/go-digest"
)

// resolve returns what a tag stands for: what the upstream says, which it is asked
// once for all who wait, or what it last said if it cannot be asked now.
func (e *Engine) resolve(ctx context.Context, repository, tag string) (digest.Digest, error) {
	key := repository + ":" + tag
	known, isKnown := e.store.tag(repository, tag)
	ask := func(ctx context.Context) (digest.Digest, error) {
		// Another call may have ended since.
		known, _ := e.store.tag(repository, tag)
		return e.askTag(ctx, repository, tag, known)
	}
	if !isKnown {
		note(ctx, Miss)
		return e.tags.do(ctx, key, ask)
	}

	breaker := e.remote.breakers[kindManifest]
	switch {
	case e.remote.limited():
		return e.stale(ctx, known), nil
	case !breaker.closed():
		// Nobody waits for the request that finds out whether the upstream is back.
		if breaker.due() {
			e.tags.begin(key, ask)
		}
		return e.stale(ctx, known), nil
	case breaker.isSlow():
		e.tags.begin(key, ask)
		return e.stale(ctx, known), nil
	}
	running, _ := e.tags.begin(key, ask)
	patience := time.NewTimer(e.limits.Stale)
	defer patience.Stop()
	select {
	case <-running.done:
		if running.err != nil && isTemporary(running.err) {
			return e.stale(ctx, known), nil
		}
		return running.value, running.err
	case <-patience.C:
		breaker.slow()
		return e.stale(ctx, known), nil
	case <-ctx.Done():
		return "", ctx.Err()
	}
}

func (e *Engine) stale(ctx context.Context, known digest.Digest) digest.Digest {
	note(ctx, Stale)
	e.metrics.staleTags.Inc()
	return known
}

// askTag asks the upstream what a tag stands for. A tag that was never seen is
// fetched with its manifest, which will be asked for next; else a HEAD has to do,
// which Docker Hub does not count.
func (e *Engine) askTag(ctx context.Context, repository, tag string, known digest.Digest) (digest.Digest, error) {
	dgst, err := e.findTag(ctx, repository, tag, known)
	switch {
	case isNotFound(err):
		// What does not exist any more is not to come back when the upstream fails.
		if removeErr := e.store.removeTag(repository, tag); removeErr != nil {
			e.log.Warn("Cannot remove a tag", "repository", repository, "tag", tag, "error", removeErr)
		}
		return "", err
	case err != nil:
		return "", err
	}
	if _, stored := e.store.manifest(repository, dgst); !stored {
		// The volume is full. What was known can be served, this could not.
		return dgst, nil
	}
	if err := e.withRoom(ctx, 1, func() error { return e.store.setTag(repository, tag, dgst) }); err != nil {
		e.log.Warn("Cannot store a tag", "repository", repository, "tag", tag, "error", err)
	}
	return dgst, nil
}

// findTag returns a digest whose manifest has been fetched: as long as that fails,
// the tag stands for what it did, which can be served.
func (e *Engine) findTag(ctx context.Context, repository, tag string, known digest.Digest) (digest.Digest, error) {
	if known != "" {
		dgst, err := e.headTag(ctx, repository, tag)
		if err != nil || dgst == known {
			return dgst, err
		}
		if dgst != "" {
			running, _ := e.beginManifest(repository, dgst)
			if _, err := running.wait(ctx); !isNotFound(err) {
				return dgst, err
			}
			// That call may be older than the manifest.
		}
	}
	fetched, err := e.fetchManifest(ctx, repository, tag, "")
	if err != nil {
		return "", err
	}
	return fetched.digest, nil
}

// headTag returns nothing if the upstream does not tell the digest without the
// manifest.
func (e *Engine) headTag(ctx context.Context, repository, tag string) (digest.Digest, error) {
	response, err := e.remote.do(ctx, request{
		kind: kindManifest, method: http.MethodHead, repository: repository, path: "manifests/" + tag, header: accepted,
	})
	var answered *upstreamError
	if errors.As(err, &answered) && (answered.status == http.StatusMethodNotAllowed || answered.status == http.StatusNotImplemented) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	return announcedDigest(response.Header), response.Body.Close()
}
