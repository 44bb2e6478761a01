// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package pullthrough

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"
	"oras.land/oras-go/v2/registry/remote/auth"
	"oras.land/oras-go/v2/registry/remote/errcode"
)

const (
	// maxErrorBytes of an error's body are read, for the connection to be used
	// again.
	maxErrorBytes = 64 << 10
	// errorPatience is how long they may take.
	errorPatience = time.Second
	// sessionAge is how long tokens are kept: there may be one for each repository,
	// and clients can make up names.
	sessionAge = time.Hour
	// idleConnections are kept, for so many layers at a time.
	idleConnections = 64
	keepAlive       = 30 * time.Second
	idleTimeout     = 90 * time.Second
)

// Credentials are what the engine logs in to the upstream with. The zero value
// is no credentials.
type Credentials struct {
	// Username is the name of the account, `_json_key` for a key file of Google.
	Username string
	// Password is its password, token or key file.
	Password string
}

// kind is what a request is about. An upstream can fail for one, and work for
// the other.
type kind int

const (
	// kindManifest is manifests and tags.
	kindManifest kind = iota
	kindBlob
	// kindListing is lists of tags and referrers, which not all upstreams have.
	kindListing
	kinds
)

func (k kind) String() string { return [kinds]string{typeManifest, typeBlob, typeListing}[k] }

// remote is the upstream. It asks at most as often as the limits allow, with
// credentials for itself and its token service only, and follows redirects
// without them, but not to addresses that [dialer] refuses.
type remote struct {
	base        *url.URL
	userAgent   string
	limits      Limits
	metrics     *metrics
	client      *http.Client
	credentials func(rejected bool) Credentials
	breakers    [kinds]*breaker

	// limitedUntil is the time, in nanoseconds, until which tags that are known
	// are not asked for: the upstream's rate limit is used up.
	limitedUntil atomic.Int64
	// lastFailure is what the upstream failed with last, nil if it never did.
	lastFailure atomic.Pointer[Failure]

	mu      sync.Mutex
	session *session
}

// session is what was agreed with the upstream under some credentials.
type session struct {
	credentials Credentials
	began       time.Time
	// get asks token services as distribution's token protocol wants it, post as
	// OAuth2 does. They share tokens.
	get, post *auth.Client
	// usePost is set when the token service turned out not to know the first.
	usePost atomic.Bool
}

func newRemote(config Config, metrics *metrics) (*remote, error) {
	base, err := url.Parse(strings.TrimSuffix(config.RemoteURL, "/"))
	if err != nil {
		return nil, fmt.Errorf("remote URL: %w", err)
	}
	dialer := newDialer(base.Hostname(), config.Limits.Connect)
	transport := &http.Transport{
		Proxy:               dialer.proxy,
		DialContext:         dialer.dial,
		TLSHandshakeTimeout: config.Limits.Connect,
		// This transport speaks HTTP/1.1 only: each layer has a connection of its own,
		// as where nodes pull directly, and not a share of one.
		MaxIdleConnsPerHost: idleConnections,
		IdleConnTimeout:     idleTimeout,
		// What is stored is what the digest is of.
		DisableCompression: true,
	}
	r := &remote{
		base: base, userAgent: config.UserAgent, limits: config.Limits, metrics: metrics,
		client:      &http.Client{Transport: transport},
		credentials: config.Credentials,
	}
	for i := range r.breakers {
		r.breakers[i] = &breaker{base: config.Limits.BreakerBase, longest: config.Limits.BreakerLongest}
	}
	return r, nil
}

// close ends connections that are not in use.
func (r *remote) close() { r.client.CloseIdleConnections() }

// current returns the session of today. If credentials were rejected, it looks
// for others.
func (r *remote) current(rejected bool) *session {
	credentials := r.credentials(rejected)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.session == nil || r.session.credentials != credentials || time.Since(r.session.began) > sessionAge {
		r.session = r.newSession(credentials)
	}
	return r.session
}

func (r *remote) newSession(credentials Credentials) *session {
	client := func(oauth2 bool, cache auth.Cache) *auth.Client {
		return &auth.Client{
			Client:             r.client,
			Header:             http.Header{"User-Agent": {r.userAgent}},
			Cache:              cache,
			ClientID:           "registry-cache",
			ForceAttemptOAuth2: oauth2,

			// oras-go would look up the host of a token service before it asks it, which
			// need not be possible behind a proxy. The dialer sees the very address.
			BlockedRealmPrefixes: []netip.Prefix{},
			Credential: auth.StaticCredential(r.base.Host, auth.Credential{
				Username: credentials.Username, Password: credentials.Password,
			}),
		}
	}
	cache := auth.NewCache()
	return &session{credentials: credentials, began: time.Now(), get: client(false, cache), post: client(true, cache)}
}

func (s *session) do(request *http.Request) (*http.Response, error) {
	if s.usePost.Load() {
		return s.post.Do(request)
	}
	response, err := s.get.Do(request)
	var refused *errcode.ErrorResponse
	if errors.As(err, &refused) && (refused.StatusCode == http.StatusNotFound || refused.StatusCode == http.StatusMethodNotAllowed) &&
		s.credentials != (Credentials{}) {
		response, err = s.post.Do(request)
		if err == nil {
			s.usePost.Store(true)
		}
	}
	return response, err
}

// request is one question to the upstream.
type request struct {
	kind       kind
	method     string
	repository string
	// path is below the repository, query is the raw query.
	path, query string
	header      http.Header
	// resumes is a request for the rest of what clients have a part of. They cannot
	// go elsewhere, so it is made whatever has failed, at intervals of its own.
	resumes bool
}

func (q request) operation() string {
	return fmt.Sprintf("%s %s/%s", q.method, q.repository, q.path)
}

// do returns an answer below 400, whose body is the caller's to close. All errors
// are of type *upstreamError. The time until there is a header is limited, and
// the time that the body takes is the caller's.
func (r *remote) do(ctx context.Context, q request) (*http.Response, error) {
	if q.resumes {
		response, err := r.ask(ctx, q)
		r.noteFailure(ctx, err)
		return response, err
	}
	breaker := r.breakers[q.kind]
	ticket, ok := breaker.allow()
	if !ok {
		return nil, &upstreamError{operation: q.operation(), cause: errOpen}
	}
	response, err := r.ask(ctx, q)
	if err != nil && ctx.Err() != nil {
		// The cache stops: that tells nothing about the upstream.
		breaker.report(ticket, context.Canceled)
		return nil, err
	}
	breaker.report(ticket, err)
	r.noteFailure(ctx, err)
	return response, err
}

// noteFailure remembers what the upstream failed with, unless nobody waits for it any
// more, or it has answered and only has not what it was asked for.
func (r *remote) noteFailure(ctx context.Context, err error) {
	if err == nil || ctx.Err() != nil || errors.Is(err, context.Canceled) || !isTemporary(err) {
		return
	}
	r.lastFailure.Store(&Failure{Message: redact(err), Time: time.Now()})
}

func (r *remote) ask(ctx context.Context, q request) (*http.Response, error) {
	limit := r.limits.ManifestHeader
	if q.kind == kindBlob {
		limit = r.limits.BlobHeader
	}
	ctx, cancel := context.WithCancelCause(ctx)
	timer := time.AfterFunc(limit, func() { cancel(context.DeadlineExceeded) })
	began := time.Now()

	response, err := r.send(ctx, q)
	if err == nil && response.StatusCode >= http.StatusBadRequest {
		err = refusedRequest(q, response)
	}
	timer.Stop()
	if err == nil && context.Cause(ctx) != nil {
		// The time was up just when the header came.
		err = errors.Join(context.Cause(ctx), response.Body.Close())
	}
	if response != nil {
		r.noteRateLimit(response.Header)
	}
	if err != nil {
		var answered *upstreamError
		if errors.Is(context.Cause(ctx), context.DeadlineExceeded) && !errors.As(err, &answered) {
			err = fmt.Errorf("no answer in %s: %w", limit, context.DeadlineExceeded)
			// Others that wait to be used may be as dead as this one.
			r.client.CloseIdleConnections()
		}
		cancel(nil)
		err := failedRequest(q, err)
		r.metrics.upstreamAnswered(q.kind, err.status, time.Since(began))
		return nil, err
	}
	r.metrics.upstreamAnswered(q.kind, response.StatusCode, time.Since(began))
	response.Body = &cancellingBody{ReadCloser: response.Body, cancel: cancel}
	return response, nil
}

func (r *remote) send(ctx context.Context, q request) (*http.Response, error) {
	target := r.base.JoinPath("v2", q.repository, q.path)
	target.RawQuery = q.query
	ctx = auth.WithScopesForHost(ctx, r.base.Host, auth.ScopeRepository(q.repository, auth.ActionPull))
	request, err := http.NewRequestWithContext(ctx, q.method, target.String(), nil)
	if err != nil {
		return nil, err
	}
	if q.header != nil {
		request.Header = q.header.Clone()
	}
	session := r.current(false)
	response, err := session.do(request)
	if !isUnauthorized(response, err) {
		return response, err
	}
	// They may have been replaced since, or just now.
	next := r.current(true)
	if next == session {
		return response, err
	}
	if response != nil {
		_ = response.Body.Close() // in favour of the next answer
	}
	return next.do(request)
}

func isUnauthorized(response *http.Response, err error) bool {
	var refused *errcode.ErrorResponse
	return errors.As(err, &refused) && refused.StatusCode == http.StatusUnauthorized ||
		response != nil && response.StatusCode == http.StatusUnauthorized
}

// failedRequest is the error of a request that got no answer, or that was
// refused, or whose token request was.
func failedRequest(q request, cause error) *upstreamError {
	failed := &upstreamError{operation: q.operation(), cause: cause}
	var answered *upstreamError
	var refused *errcode.ErrorResponse
	switch {
	case errors.As(cause, &answered):
		return answered
	case errors.As(cause, &refused):
		failed.status = refused.StatusCode
		if refused.StatusCode < http.StatusInternalServerError && refused.StatusCode != http.StatusTooManyRequests {
			// To the token service, whatever it says in particular.
			failed.status = http.StatusUnauthorized
		}
	case errors.Is(cause, auth.ErrBasicCredentialNotFound):
		failed.status = http.StatusUnauthorized
	}
	return failed
}

// refusedRequest is the error of a request that was answered with one.
func refusedRequest(q request, response *http.Response) error {
	// Without, the connection could not be used again; with, it is not worth waiting.
	timer := time.AfterFunc(errorPatience, func() { _ = response.Body.Close() })
	defer timer.Stop()
	_, err := io.Copy(io.Discard, io.LimitReader(response.Body, maxErrorBytes))
	return &upstreamError{
		operation:  q.operation(),
		status:     response.StatusCode,
		retryAfter: parseRetryAfter(response.Header.Get("Retry-After"), time.Now()),
		cause:      errors.Join(err, response.Body.Close()),
	}
}

// cancellingBody ends the context of its request when it is closed.
type cancellingBody struct {
	io.ReadCloser
	cancel context.CancelCauseFunc
}

// Close implements io.Closer.
func (b *cancellingBody) Close() error {
	b.cancel(nil)
	return b.ReadCloser.Close()
}

// parseRetryAfter reads seconds or a date, as RFC 9110, section 10.2.3, has them.
// It returns 0 if it is neither, or in the past.
func parseRetryAfter(value string, now time.Time) time.Duration {
	if seconds, err := strconv.Atoi(value); err == nil {
		return time.Duration(min(max(0, seconds), int(longestRetryAfter/time.Second))) * time.Second
	}
	if date, err := http.ParseTime(value); err == nil {
		return max(0, date.Sub(now))
	}
	return 0
}

// noteRateLimit reads what Docker Hub says of its limit, `76;w=21600`:
// https://docs.docker.com/docker-hub/usage/pulls/
func (r *remote) noteRateLimit(header http.Header) {
	number, _, _ := strings.Cut(header.Get("Ratelimit-Remaining"), ";")
	remaining, err := strconv.Atoi(strings.TrimSpace(number))
	if err != nil {
		return
	}
	r.metrics.rateLimit.Set(float64(remaining))
	until := int64(0)
	if remaining <= 0 {
		until = time.Now().Add(r.limits.BreakerLongest).UnixNano()
	}
	r.limitedUntil.Store(until)
}

// limited says whether the rate limit of the upstream is used up.
func (r *remote) limited() bool { return time.Now().UnixNano() < r.limitedUntil.Load() }

// blob implements source.
func (r *remote) blob(ctx context.Context, wanted blobRequest) (*blobResponse, error) {
	q := request{
		kind: kindBlob, method: http.MethodGet, repository: wanted.repository, path: "blobs/" + wanted.digest.String(),
		header: http.Header{}, resumes: wanted.resumes,
	}
	if wanted.offset > 0 {
		q.header.Set("Range", fmt.Sprintf("bytes=%d-", wanted.offset))
		if wanted.validator != "" {
			q.header.Set("If-Range", wanted.validator)
		}
	}
	response, err := r.do(ctx, q)
	var answered *upstreamError
	if errors.As(err, &answered) && answered.status == http.StatusRequestedRangeNotSatisfiable {
		return nil, fmt.Errorf("%w: %w", errRange, err)
	}
	if err != nil {
		return nil, err
	}
	blob := &blobResponse{body: response.Body, size: response.ContentLength, validator: strongValidator(response.Header)}
	if response.StatusCode == http.StatusPartialContent {
		blob.offset, blob.size, err = parseContentRange(response.Header.Get("Content-Range"))
		if err != nil {
			return nil, errors.Join(fmt.Errorf("%s: %w", q.operation(), err), response.Body.Close())
		}
	}
	return blob, nil
}

// blobSize asks for the size of a blob, which is unknownSize if the upstream
// does not tell.
func (r *remote) blobSize(ctx context.Context, repository string, dgst digest.Digest) (int64, error) {
	response, err := r.do(ctx, request{kind: kindBlob, method: http.MethodHead, repository: repository, path: "blobs/" + dgst.String()})
	if err != nil {
		return 0, err
	}
	return response.ContentLength, response.Body.Close()
}

// strongValidator returns an entity tag that may stand in If-Range: a weak one
// may not.
func strongValidator(header http.Header) string {
	if tag := header.Get("Etag"); strings.HasPrefix(tag, `"`) {
		return tag
	}
	return ""
}

var contentRange = regexp.MustCompile(`^bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)$`)

// parseContentRange returns where a part begins, and the size of the whole, which
// may be unknownSize.
func parseContentRange(value string) (offset, size int64, err error) {
	match := contentRange.FindStringSubmatch(value)
	if match == nil {
		return 0, 0, fmt.Errorf("%w: Content-Range %q", errRange, value)
	}
	// The expression leaves no numbers that do not fit.
	offset, _ = strconv.ParseInt(match[1], 10, 64)
	size = unknownSize
	if match[3] != "*" {
		size, _ = strconv.ParseInt(match[3], 10, 64)
	}
	return offset, size, nil
}
