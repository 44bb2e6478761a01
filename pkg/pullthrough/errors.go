// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package pullthrough

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"time"

	"github.com/distribution/distribution/v3/registry/api/errcode"
)

// errClosed is what is asked of an engine that is closed.
var errClosed = errors.New("the cache stops")

// upstreamError says that the upstream has not given what it was asked for.
type upstreamError struct {
	// operation is what was asked: a method and a path.
	operation string
	// status is what the upstream answered; 0: it did not.
	status int
	// retryAfter is for how long it wants to be left alone; 0: it did not say.
	retryAfter time.Duration
	cause      error
}

func (e *upstreamError) Error() string {
	if e.status != 0 {
		return fmt.Sprintf("%s: the upstream answers %d %s", e.operation, e.status, http.StatusText(e.status))
	}
	return fmt.Sprintf("%s: %s", e.operation, redact(e.cause))
}

func (e *upstreamError) Unwrap() error { return e.cause }

// temporary says whether it may be different the next time.
func (e *upstreamError) temporary() bool {
	if errors.Is(e.cause, errRefusedAddress) {
		return false
	}
	switch e.status {
	case 0, http.StatusTooManyRequests, http.StatusRequestTimeout:
		return true
	case http.StatusNotImplemented:
		return false
	}
	return e.status >= http.StatusInternalServerError
}

// isTemporary says whether what is known from before may be served instead.
func isTemporary(err error) bool {
	var answered *upstreamError
	return !errors.As(err, &answered) || answered.temporary()
}

// clientError says that a client does not take its answer.
type clientError struct{ error }

func (e *clientError) Unwrap() error { return e.error }

func isNotFound(err error) bool {
	var answered *upstreamError
	return errors.As(err, &answered) && answered.status == http.StatusNotFound
}

// answer is an error as a client gets it: 404 with the code of what it asked for,
// 401, 403, and 503 for all others, so that it goes on to the upstream itself. It
// is never 429, which containerd would try again at the cache. The cause is for
// the log.
func answer(err, unknown error) error {
	var answered *upstreamError
	var coded errcode.Error
	switch {
	case errors.As(err, &coded):
		return coded
	case errors.As(err, &answered):
		switch answered.status {
		case http.StatusNotFound:
			return unknown
		case http.StatusUnauthorized:
			return errcode.ErrorCodeUnauthorized.WithMessage("the upstream wants other credentials")
		case http.StatusForbidden:
			return errcode.ErrorCodeDenied.WithMessage("the upstream denies access")
		}
	}
	return errcode.ErrorCodeUnavailable.WithMessage("not stored, and the upstream cannot give it")
}

// logFailure logs why a client gets no answer of its liking, unless the upstream
// has said so, or the client has gone.
func (e *Engine) logFailure(ctx context.Context, err error, attributes ...any) {
	var gone *clientError
	hasSaidSo := !isTemporary(err) && !errors.Is(err, errRefusedAddress)
	if ctx.Err() != nil || hasSaidSo || errors.As(err, &gone) {
		return
	}
	e.log.Warn("Cannot answer from store or upstream", append(attributes, "error", redact(err))...)
}

var (
	queryOfURL    = regexp.MustCompile(`(https?://[^\s"'?]*)\?[^\s"']*`)
	userInfoOfURL = regexp.MustCompile(`(https?://)[^\s"'/@]*@`)
)

// Redact takes user info and queries out of the URLs in a text. Token requests
// have the account in their query, and signed URLs of blobs their signature.
func Redact(text string) string {
	return queryOfURL.ReplaceAllString(userInfoOfURL.ReplaceAllString(text, "$1"), "$1?...")
}

func redact(err error) string { return Redact(err.Error()) }
