// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package pullthrough

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"time"

	"github.com/opencontainers/go-digest"
)

var (
	// errStalled ends a response of which almost nothing comes any more.
	errStalled = errors.New("the upstream sends almost nothing")
	// errRange is an answer to a request for the rest of a blob that does not go
	// with what is there of it.
	errRange = errors.New("the rest that the upstream offers does not fit")
)

// source is where content comes from that is not stored.
type source interface {
	// blob asks for a blob, or for the rest of it. Errors are of type *upstreamError
	// if the upstream answered.
	blob(ctx context.Context, wanted blobRequest) (*blobResponse, error)
}

// blobRequest is what a source is asked for.
type blobRequest struct {
	repository string
	digest     digest.Digest
	// offset is where the answer is to begin.
	offset int64
	// validator is that of an earlier answer, or empty: if the upstream has something
	// else by now, it sends all of that.
	validator string
	// resumes says that clients have what is before the offset.
	resumes bool
}

// blobResponse is a blob on its way.
type blobResponse struct {
	body io.ReadCloser
	// offset is where in the blob the body begins.
	offset int64
	// size is that of the whole blob, or unknownSize.
	size int64
	// validator is for the request that goes on where this one breaks off.
	validator string
}

// download reads a blob from a source, from an offset to its end, and goes on
// after interruptions. Neither the digest nor the end of what it reads is
// verified. It is not for concurrent use.
type download struct {
	source     source
	limits     Limits
	repository string
	digest     digest.Digest
	// resumed is called before it goes on after an interruption.
	resumed func(cause error)
	// pulled is told how many bytes came.
	pulled func(bytes int)

	offset    int64
	size      int64
	validator string
	// unchanged says that the upstream has to know the validator still: what is
	// there up to the offset is of no use otherwise.
	unchanged bool
	response  *blobResponse
	cancel    context.CancelCauseFunc
	watch     *stallWatch

	// cause is what the last response ended with.
	cause error
	// attempts were made since there was progress worth the name, which is counted
	// in bytes.
	attempts int
	progress int64
}

// open asks for the blob once: who waits for it may ask someone else.
func (d *download) open(ctx context.Context) error { return d.request(ctx, false) }

func (d *download) request(ctx context.Context, resumes bool) error {
	ctx, cancel := context.WithCancelCause(ctx)
	response, err := d.source.blob(ctx, blobRequest{d.repository, d.digest, d.offset, d.validator, resumes})
	if err != nil {
		cancel(err)
		return err
	}
	d.response, d.cancel = response, cancel
	d.watch = newStallWatch(d.limits.StallWindow, d.limits.StallBytes, cancel)
	if err := d.align(); err != nil {
		d.close()
		return err
	}
	return nil
}

// align makes the response begin at the offset: an upstream may send more.
func (d *download) align() error {
	r := d.response
	if r.offset > d.offset || d.unchanged && r.offset < d.offset || d.size != unknownSize && r.size != unknownSize && r.size != d.size {
		return fmt.Errorf("%w: from %d of %d, wanted from %d of %d", errRange, r.offset, r.size, d.offset, d.size)
	}
	if r.size != unknownSize {
		d.size = r.size
	}
	if r.validator != "" {
		d.validator = r.validator
	}
	buffer := buffers.get()
	defer buffers.put(buffer)
	for r.offset < d.offset {
		n, err := d.readResponse((*buffer)[:min(int64(len(*buffer)), d.offset-r.offset)])
		r.offset += int64(n)
		if err != nil && r.offset < d.offset {
			return fmt.Errorf("skip to %d: %w", d.offset, noEOF(err))
		}
	}
	return nil
}

// read returns io.EOF at the end of the blob, as far as the upstream tells.
func (d *download) read(ctx context.Context, p []byte) (int, error) {
	for {
		if d.response == nil {
			if err := d.resume(ctx); err != nil {
				return 0, err
			}
		}
		n, err := d.readResponse(p)
		d.offset += int64(n)
		if d.size != unknownSize && d.offset > d.size {
			return 0, fmt.Errorf("%w: more than the %d bytes that it was to have", errMismatch, d.size)
		}
		if d.progress += int64(n); d.progress >= d.limits.Progress {
			d.attempts, d.progress = 0, 0
		}
		complete := d.size != unknownSize && d.offset >= d.size
		switch {
		case complete, errors.Is(err, io.EOF) && d.size == unknownSize:
			return n, io.EOF
		case err == nil && n > 0:
			return n, nil
		case err == nil:
			continue
		}
		if ctx.Err() != nil {
			return n, ctx.Err()
		}
		d.cause = noEOF(err)
		d.resumed(d.cause)
		d.close()
		if n > 0 {
			return n, nil
		}
	}
}

// resume asks for the rest, a bounded number of times without progress.
func (d *download) resume(ctx context.Context) error {
	for {
		if d.attempts >= d.limits.Attempts {
			return fmt.Errorf("gave up at byte %d of %d after %d attempts to go on: %w", d.offset, d.size, d.attempts, d.cause)
		}
		if err := sleep(ctx, backoff(d.limits.Backoff, d.attempts)); err != nil {
			return err
		}
		d.attempts++
		err := d.request(ctx, true)
		var answered *upstreamError
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		case d.size == unknownSize && errors.As(err, &answered) && answered.status == http.StatusRequestedRangeNotSatisfiable:
			// It was cut behind its last byte: there is no more. The digest will tell.
			return io.EOF
		case errors.Is(err, errRange), errors.As(err, &answered) && !answered.temporary():
			return err
		}
		d.cause = err
		d.resumed(err)
	}
}

func (d *download) readResponse(p []byte) (int, error) {
	d.watch.begin()
	n, err := d.response.body.Read(p)
	d.pulled(n)
	if stalled := d.watch.end(n); stalled && err == nil {
		err = errStalled
	}
	return n, err
}

// close ends the response, if there is one. Nil has none.
func (d *download) close() {
	if d == nil || d.response == nil {
		return
	}
	d.watch.stop()
	d.cancel(nil)
	// The body ends with its context: what Close has to say about that is nothing
	// that could be acted on.
	_ = d.response.body.Close()
	d.response = nil
}

// stallWatch cancels a response of which less than some bytes come in the time
// of a window. Only the time that is spent on waiting for it counts.
type stallWatch struct {
	window time.Duration
	bytes  int
	cancel context.CancelCauseFunc
	timer  *time.Timer

	began    time.Time
	spent    time.Duration
	received int
}

func newStallWatch(window time.Duration, bytes int, cancel context.CancelCauseFunc) *stallWatch {
	w := &stallWatch{window: window, bytes: bytes, cancel: cancel}
	w.timer = time.AfterFunc(window, func() { cancel(errStalled) })
	w.timer.Stop()
	return w
}

func (w *stallWatch) begin() {
	w.began = time.Now()
	w.timer.Reset(w.window - w.spent)
}

// end says whether the response has stalled.
func (w *stallWatch) end(n int) bool {
	w.timer.Stop()
	w.spent += time.Since(w.began)
	if w.received += n; w.received >= w.bytes {
		w.spent, w.received = 0, 0
	}
	return w.spent >= w.window
}

func (w *stallWatch) stop() { w.timer.Stop() }

// noEOF returns an error that does not look like the end of a blob.
func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// maxBackoff bounds the time between two attempts.
const maxBackoff = 5 * time.Second

// backoff is the time before an attempt, which grows with those before and is
// random, so that many do not come back at once.
func backoff(base time.Duration, attempts int) time.Duration {
	longest := min(base<<min(attempts, 10), maxBackoff)
	return longest/2 + rand.N(longest/2+1) //nolint:gosec // no secret
}

func sleep(ctx context.Context, duration time.Duration) error {
	timer := time.NewTimer(duration)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
