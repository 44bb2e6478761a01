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
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/opencontainers/go-digest"
)

const (
	// bufferSize is what is copied at a time, of what is in flight. Each transfer has
	// a buffer, so it also bounds the memory of a client.
	bufferSize = 64 << 10
	// fileSize is what is sent at a time of a file. Clients have a time limit for it.
	fileSize = 4 << 20
)

// buffers are used by turns.
var buffers = bufferPool{sync.Pool{New: func() any { return new([]byte) }}}

type bufferPool struct{ pool sync.Pool }

func (p *bufferPool) get() *[]byte {
	buffer, ok := p.pool.Get().(*[]byte)
	if !ok || len(*buffer) < bufferSize {
		content := make([]byte, bufferSize)
		buffer = &content
	}
	return buffer
}

func (p *bufferPool) put(buffer *[]byte) { p.pool.Put(buffer) }

// maxAge is for how long a client may keep what a digest stands for: for ever.
const maxAge = 365 * 24 * time.Hour

// serveBlob answers a request for a blob. An error after the header was sent
// means that the client did not get all, and has to learn that by a connection
// that breaks.
func (e *Engine) serveBlob(ctx context.Context, w http.ResponseWriter, r *http.Request, repository string, dgst digest.Digest) error {
	if matches(r.Header.Get("If-None-Match"), dgst) {
		w.Header().Set("ETag", entityTag(dgst))
		w.WriteHeader(http.StatusNotModified)
		return nil
	}
	if r.Method == http.MethodHead {
		return e.serveBlobHead(ctx, w, repository, dgst)
	}

	e.recheck(ctx, r, repository, dgst)
	blob, outcome, err := e.openBlob(ctx, repository, dgst)
	note(ctx, outcome)
	e.metrics.requested(typeBlob, outcome)
	if err != nil {
		return err
	}
	err = e.send(ctx, w, r, blob, dgst, func() { e.metrics.answered(typeBlob, outcome, waited(ctx)) })
	return errors.Join(err, blob.close())
}

func (e *Engine) send(ctx context.Context, w http.ResponseWriter, r *http.Request, blob content, dgst digest.Digest, first func()) error {
	size := blob.length()
	part := byteRange{length: size}
	if asked := r.Header.Get("Range"); asked != "" && rangeApplies(r.Header.Get("If-Range"), dgst) {
		satisfiable := false
		if part, satisfiable = parseRange(asked, size); !satisfiable {
			return refuseRange(w, size)
		}
	}
	if size == 0 {
		// There is no end to hold back: what is sent is complete with the header.
		if _, err := blob.readAt(ctx, make([]byte, 1), 0); !errors.Is(err, io.EOF) {
			return fmt.Errorf("empty blob: %w", err)
		}
	}
	blobHeader(w.Header(), dgst, part.length)
	status := http.StatusOK
	if part.partial {
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", part.offset, part.offset+part.length-1, size))
		status = http.StatusPartialContent
	}
	w.WriteHeader(status)
	// Clients give up on a header that does not come; the content takes its time.
	if flusher, ok := w.(http.Flusher); ok {
		flusher.Flush()
	}
	var sent int64
	var err error
	answer := answerOf(ctx)
	file, isStored := blob.(*stored)
	if isStored && answer != nil && answer.Body != nil {
		first()
		sent, err = file.sendTo(answer.Body, part)
	} else {
		sent, err = copyContent(ctx, w, blob, part, first)
	}
	e.metrics.pushed(typeBlob, sent)
	if isStored {
		e.noteDelivery(r, dgst, part, size, err)
	}
	return err
}

func (e *Engine) serveBlobHead(ctx context.Context, w http.ResponseWriter, repository string, dgst digest.Digest) error {
	size, outcome, err := e.blobSize(ctx, repository, dgst)
	note(ctx, outcome)
	if err != nil {
		return err
	}
	blobHeader(w.Header(), dgst, size)
	w.WriteHeader(http.StatusOK)
	return nil
}

// blobSize returns the size of a blob, which is not fetched for that.
func (e *Engine) blobSize(ctx context.Context, repository string, dgst digest.Digest) (int64, Outcome, error) {
	if file, info, err := e.store.open(dgst); err == nil {
		return info.Size(), Hit, file.Close()
	}
	if size, ok := e.flights.known(dgst); ok {
		return size, Follow, nil
	}
	key := repository + "@" + dgst.String()
	size, err := e.heads.do(ctx, key, func(ctx context.Context) (int64, error) {
		return e.remote.blobSize(ctx, repository, dgst)
	})
	return size, Miss, err
}

func blobHeader(header http.Header, dgst digest.Digest, length int64) {
	header.Set("Content-Type", "application/octet-stream")
	header.Set("Docker-Content-Digest", dgst.String())
	header.Set("ETag", entityTag(dgst))
	header.Set("Cache-Control", fmt.Sprintf("max-age=%.f", maxAge.Seconds()))
	header.Set("Accept-Ranges", "bytes")
	if length != unknownSize {
		header.Set("Content-Length", strconv.FormatInt(length, 10))
	}
}

func refuseRange(w http.ResponseWriter, size int64) error {
	w.Header().Set("Content-Range", fmt.Sprintf("bytes */%d", size))
	w.WriteHeader(http.StatusRequestedRangeNotSatisfiable)
	return nil
}

// sendTo has the kernel send a part of the file, if the connection is not
// encrypted. Measured by make bench, that takes 0.12 seconds of CPU for a GiB,
// and copying with buffers of 64 KiB 0.41.
func (s *stored) sendTo(body io.ReaderFrom, part byteRange) (sent int64, err error) {
	if _, err := s.file.Seek(part.offset, io.SeekStart); err != nil {
		return 0, err
	}
	for sent < part.length {
		wanted := min(fileSize, part.length-sent)
		n, err := body.ReadFrom(io.LimitReader(s.file, wanted))
		sent += n
		switch {
		case errors.Is(err, syscall.EIO), errors.Is(err, syscall.ESTALE):
			return sent, fmt.Errorf("read: %w", err)
		case err != nil:
			return sent, &clientError{err}
		}
		if n < wanted {
			return sent, fmt.Errorf("at byte %d: %w", part.offset+sent, io.ErrUnexpectedEOF)
		}
	}
	return sent, nil
}

// copyContent sends a part of a blob, and calls first before its first byte.
func copyContent(ctx context.Context, w io.Writer, blob content, part byteRange, first func()) (sent int64, err error) {
	buffer := buffers.get()
	defer buffers.put(buffer)
	for part.length == unknownSize || sent < part.length {
		window := *buffer
		if part.length != unknownSize {
			window = window[:min(int64(len(window)), part.length-sent)]
		}
		n, err := blob.readAt(ctx, window, part.offset+sent)
		if n > 0 {
			if sent == 0 {
				first()
			}
			written, err := w.Write(window[:n])
			sent += int64(written)
			if err != nil {
				return sent, &clientError{err}
			}
		}
		switch {
		case errors.Is(err, io.EOF) && (part.length == unknownSize || sent == part.length):
			return sent, nil
		case err != nil:
			return sent, fmt.Errorf("at byte %d: %w", part.offset+sent, noEOF(err))
		}
	}
	return sent, nil
}

func entityTag(dgst digest.Digest) string { return `"` + dgst.String() + `"` }

// matches says whether a list of entity tags, quoted or not, has that of a
// digest.
func matches(tags string, dgst digest.Digest) bool {
	for tag := range strings.SplitSeq(tags, ",") {
		tag = strings.Trim(strings.TrimPrefix(strings.TrimSpace(tag), "W/"), `"`)
		if tag == dgst.String() {
			return true
		}
	}
	return false
}

// rangeApplies says whether a range is of what the client has a part of already.
func rangeApplies(ifRange string, dgst digest.Digest) bool {
	return ifRange == "" || ifRange == entityTag(dgst)
}
