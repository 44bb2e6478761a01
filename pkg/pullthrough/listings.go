// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package pullthrough

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"sync"
	"time"

	"github.com/distribution/distribution/v3/registry/api/errcode"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
)

const (
	maxListingBytes = 8 << 20
	// maxFreshBytes bounds the memory of listings that are kept.
	maxFreshBytes = 4 << 20
)

// listingPath is a list of tags or referrers, of the OCI distribution
// specification v1.1: what the upstream knows, and the volume does not.
var listingPath = regexp.MustCompile(`^/v2/(.+)/(tags/list|referrers/([^/]+))$`)

// passedHeaders are those that a listing has besides its media type.
var passedHeaders = []string{"OCI-Filters-Applied", "Warning"}

// listing is an answer of the upstream. It is not to be changed.
type listing struct {
	header  http.Header
	body    []byte
	expires time.Time
}

// listings are those that are served again for a short time.
type listings struct {
	mu    sync.Mutex
	byKey map[string]*listing
	bytes int
}

// Listings returns a handler that answers lists of tags and referrers, and leaves
// all else to next. distribution's handlers know no referrers, and page the lists
// of tags anew.
func (e *Engine) Listings(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		match := listingPath.FindStringSubmatch(r.URL.Path)
		if match == nil {
			next.ServeHTTP(w, r)
			return
		}
		if err := e.serveListing(w, r, match[1], match[2], match[3]); err != nil {
			// The answer is all that the client gets: if it cannot be written, it has gone.
			_ = errcode.ServeJSON(w, err)
		}
	})
}

func (e *Engine) serveListing(w http.ResponseWriter, r *http.Request, repository, path, referrersOf string) error {
	name, err := reference.WithName(repository)
	if err != nil {
		return errcode.ErrorCodeNameInvalid.WithDetail(repository)
	}
	if err := e.authorize(r.Context(), name.Name()); err != nil {
		return answer(err, errcode.ErrorCodeUnauthorized)
	}
	if referrersOf != "" {
		if _, err := digest.Parse(referrersOf); err != nil {
			return errcode.ErrorCodeDigestInvalid.WithDetail(referrersOf)
		}
	}
	query := r.URL.Query()
	// It names the upstream, which is this one.
	query.Del("ns")
	found, outcome, err := e.listing(r.Context(), repository, path, query.Encode(), referrersOf != "")
	note(r.Context(), outcome)
	if err != nil {
		e.logFailure(r.Context(), err, "repository", repository, "path", path)
		return answer(err, errcode.ErrorCodeNameUnknown.WithDetail(repository))
	}
	maps.Copy(w.Header(), found.header)
	w.WriteHeader(http.StatusOK)
	if r.Method != http.MethodHead {
		_, _ = w.Write(found.body) // who does not read it has gone
	}
	return nil
}

// listing asks the upstream. Referrers are asked for by each node that verifies
// an image, so they are kept for a short time, and longer while it fails.
func (e *Engine) listing(ctx context.Context, repository, path, query string, keep bool) (*listing, Outcome, error) {
	key := repository + "/" + path + "?" + query
	kept := e.listings.get(key)
	if kept != nil && time.Now().Before(kept.expires) {
		return kept, Hit, nil
	}
	running, shared := e.listingCalls.begin(key, func(ctx context.Context) (*listing, error) {
		found, err := e.fetchListing(ctx, repository, path, query)
		if err == nil && keep {
			e.listings.put(key, found)
		}
		return found, err
	})
	found, err := running.wait(ctx)
	switch {
	case err != nil && kept != nil && isTemporary(err):
		return kept, Stale, nil
	case shared:
		return found, Follow, err
	}
	return found, Miss, err
}

func (e *Engine) fetchListing(ctx context.Context, repository, path, query string) (*listing, error) {
	q := request{kind: kindListing, method: http.MethodGet, repository: repository, path: path, query: query}
	response, err := e.remote.do(ctx, q)
	if err != nil {
		return nil, err
	}
	body, err := readAll(ctx, response, e.limits.ManifestHeader, maxListingBytes)
	if err != nil {
		return nil, &upstreamError{operation: q.operation(), cause: err}
	}
	found := &listing{header: http.Header{}, body: body, expires: time.Now().Add(e.limits.Freshness)}
	found.header.Set("Content-Type", response.Header.Get("Content-Type"))
	found.header.Set("Content-Length", fmt.Sprint(len(body)))
	for _, name := range passedHeaders {
		if values := response.Header.Values(name); len(values) > 0 {
			found.header[http.CanonicalHeaderKey(name)] = slices.Clone(values)
		}
	}
	for _, link := range response.Header.Values("Link") {
		found.header.Add("Link", relativeLink(link))
	}
	return found, nil
}

// readAll reads a body of bounded size in bounded time, and closes it.
func readAll(ctx context.Context, response *http.Response, limit time.Duration, most int64) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = response.Body.Close() })
	defer stop()
	body, err := io.ReadAll(io.LimitReader(response.Body, most+1))
	if err := errors.Join(err, response.Body.Close()); err != nil {
		return nil, err
	}
	if int64(len(body)) > most {
		return nil, fmt.Errorf("the answer has more than %d bytes", most)
	}
	return body, nil
}

var linkWithHost = regexp.MustCompile(`<https?://[^/>]*(/[^>]*)>`)

// relativeLink takes the upstream's host out of links to other pages (RFC 8288),
// so that a client stays with the cache.
func relativeLink(link string) string { return linkWithHost.ReplaceAllString(link, "<$1>") }

func (l *listings) get(key string) *listing {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.byKey[key]
}

// put keeps a listing. If they become too many, those go first that are no longer
// fresh, and then all others.
func (l *listings) put(key string, added *listing) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.remove(key)
	if l.bytes+added.weight(key) > maxFreshBytes {
		for key, old := range l.byKey {
			if time.Now().After(old.expires) {
				l.remove(key)
			}
		}
	}
	if l.bytes+added.weight(key) > maxFreshBytes {
		clear(l.byKey)
		l.bytes = 0
	}
	l.byKey[key] = added
	l.bytes += added.weight(key)
}

func (l *listings) remove(key string) {
	if old, ok := l.byKey[key]; ok {
		l.bytes -= old.weight(key)
		delete(l.byKey, key)
	}
}

// weight is about what a listing takes of memory.
func (l *listing) weight(key string) int { return len(key) + len(l.body) + 1<<10 }
