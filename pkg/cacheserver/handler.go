// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package cacheserver

import (
	"errors"
	"io"
	"log/slog"
	"net/http"
	"regexp"
	"strconv"
	"time"

	"github.com/distribution/distribution/v3/registry/api/errcode"

	"github.com/gardener/gardener-extension-registry-cache/pkg/pullthrough"
)

// catalogPath would have distribution walk all repositories for anybody.
const catalogPath = "/v2/_catalog"

// uploadPath is any step of an upload; its status can be asked for with GET.
var uploadPath = regexp.MustCompile(`^/v2/.+/blobs/uploads(/[^/]*)?$`)

// newRegistryHandler puts in front of distribution's handler what holds for any
// cache: it logs each request, lets only reads of its upstream through, and never
// answers 429.
func newRegistryHandler(next http.Handler, upstream string, writeTimeout time.Duration, log *slog.Logger) http.Handler {
	next = readOnly(ofUpstream(next, upstream))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		response := &responseWriter{ResponseWriter: w, deadlines: http.NewResponseController(w), timeout: writeTimeout}
		answer := &pullthrough.Answer{Body: response}
		defer func() { logRequest(log, r, response, answer.Outcome, time.Since(start)) }()

		next.ServeHTTP(response, r.WithContext(pullthrough.WithAnswer(r.Context(), answer)))
		if response.incomplete() {
			panic(http.ErrAbortHandler)
		}
	})
}

// logRequest leaves out all headers but the user agent, and the query: they may
// hold secrets.
func logRequest(log *slog.Logger, r *http.Request, response *responseWriter, outcome pullthrough.Outcome, duration time.Duration) {
	level := slog.LevelInfo
	status := response.statusCode()
	if r.URL.Path == "/v2/" && r.Method == http.MethodGet && status == http.StatusOK {
		// Each node asks every few seconds.
		level = slog.LevelDebug
	}
	log.LogAttrs(r.Context(), level, "Request",
		slog.String("method", r.Method),
		slog.String("path", r.URL.Path),
		slog.Int("status", status),
		slog.String("cache", string(outcome)),
		slog.Int64("bytes", response.written),
		slog.Bool("complete", !response.incomplete() && (r.Method == http.MethodHead || response.written >= response.length)),
		slog.Float64("seconds", duration.Seconds()),
		slog.String("remote", r.RemoteAddr),
		slog.String("userAgent", r.UserAgent()),
	)
}

func readOnly(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		isRead := r.Method == http.MethodGet || r.Method == http.MethodHead
		if isRead && r.URL.Path != catalogPath && !uploadPath.MatchString(r.URL.Path) {
			next.ServeHTTP(w, r)
			return
		}
		if !isRead {
			w.Header().Set("Allow", "GET, HEAD")
		}
		// The answer is all that the client gets: if it cannot be written, it has gone.
		_ = errcode.ServeJSON(w, errcode.ErrorCodeUnsupported.WithMessage("the cache is read-only"))
	})
}

// ofUpstream refuses what is meant for another upstream. containerd names it in the
// query parameter ns. When the addresses of two caches are exchanged, a node asks the
// wrong one for a while: by tag it would get another image of the same name, while
// after a 404 it goes on to the upstream. Clients other than containerd name none.
func ofUpstream(next http.Handler, upstream string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if wanted := r.URL.Query().Get("ns"); wanted == "" || wanted == upstream {
			next.ServeHTTP(w, r)
			return
		}
		// The answer is all that the client gets: if it cannot be written, it has gone.
		_ = errcode.ServeJSON(w, errcode.ErrorCodeNameUnknown.WithMessage("this is the cache of another upstream"))
	})
}

var errAnsweredTwice = errors.New("the response has begun already")

// responseWriter counts what is written, without buffering it, and answers 503
// where a handler says 429: containerd would retry a 429 at the cache instead of
// going on to the upstream.
//
// distribution's handlers write an error as an answer even if they failed in the
// middle of a blob, or after its end. That error must not become part of the
// blob: a second answer is dropped.
type responseWriter struct {
	http.ResponseWriter
	// deadlines are for a client that does not read.
	deadlines *http.ResponseController
	timeout   time.Duration
	// status is 0 until the response begins.
	status int
	// length is the length that the response declares; -1: none.
	length  int64
	written int64
	// answeredTwice is set when a handler begins another answer.
	answeredTwice bool
}

// incomplete says that the client must not take what it got for all.
func (w *responseWriter) incomplete() bool {
	return w.answeredTwice && w.written != w.length
}

func (w *responseWriter) begin(status int) {
	length, err := strconv.ParseInt(w.Header().Get("Content-Length"), 10, 64)
	if err != nil {
		length = -1
	}
	w.status, w.length = status, length
	w.extendDeadline()
}

// extendDeadline gives the client time for the next part of the answer.
func (w *responseWriter) extendDeadline() {
	// Not all writers have deadlines.
	_ = w.deadlines.SetWriteDeadline(time.Now().Add(w.timeout))
}

func (w *responseWriter) statusCode() int {
	if w.status == 0 {
		return http.StatusOK
	}
	return w.status
}

// WriteHeader begins the response, or marks that it was begun twice.
func (w *responseWriter) WriteHeader(status int) {
	if w.status != 0 {
		w.answeredTwice = true
		return
	}
	if status == http.StatusTooManyRequests {
		status = http.StatusServiceUnavailable
	}
	// An informational status comes before the one of the response.
	if status >= http.StatusOK {
		w.begin(status)
	}
	w.ResponseWriter.WriteHeader(status)
}

// Write adds to the response.
func (w *responseWriter) Write(p []byte) (int, error) {
	if w.answeredTwice {
		return 0, errAnsweredTwice
	}
	if w.status == 0 {
		w.begin(http.StatusOK)
	}
	w.extendDeadline()
	n, err := w.ResponseWriter.Write(p)
	w.written += int64(n)
	return n, err
}

// ReadFrom lets net/http have the kernel copy a file to a connection.
func (w *responseWriter) ReadFrom(source io.Reader) (int64, error) {
	if w.answeredTwice {
		return 0, errAnsweredTwice
	}
	if w.status == 0 {
		w.begin(http.StatusOK)
	}
	w.extendDeadline()
	n, err := io.Copy(w.ResponseWriter, source)
	w.written += n
	return n, err
}

// Flush sends what net/http holds back.
func (w *responseWriter) Flush() {
	if flusher, ok := w.ResponseWriter.(http.Flusher); ok {
		if w.status == 0 {
			w.begin(http.StatusOK)
		}
		flusher.Flush()
	}
}

// Unwrap is for http.ResponseController.
func (w *responseWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
