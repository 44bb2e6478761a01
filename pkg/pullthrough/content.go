// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package pullthrough

import (
	"context"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"

	"github.com/opencontainers/go-digest"
)

// content is a blob as one client reads it, from where it is.
type content interface {
	// length is the size of the blob, or unknownSize.
	length() int64
	// readAt reads what there is at an offset, and waits if there is nothing yet.
	// It returns io.EOF only at the end of a blob that is complete and verified.
	readAt(ctx context.Context, p []byte, offset int64) (int, error)
	// close ends the use of the blob.
	close() error
}

// openBlob returns a blob from the volume, or from its flight, which begins now
// if there is none.
func (e *Engine) openBlob(ctx context.Context, repository string, dgst digest.Digest) (content, Outcome, error) {
	// Who follows the flight of another repository takes no error of it for its
	// own, and a blob may be evicted between two looks at it.
	for range 3 {
		file, info, err := e.store.open(dgst)
		if err == nil {
			e.used(repository, dgst, info)
			return &stored{file: file, size: info.Size()}, Hit, nil
		}
		f, follows, err := e.join(repository, dgst)
		if err != nil {
			return nil, Miss, err
		}
		select {
		case <-f.started:
		case <-ctx.Done():
			e.part(f)
			return nil, Miss, ctx.Err()
		}
		if errors.Is(f.err, errStored) {
			e.part(f)
			continue
		}
		if f.err == nil {
			outcome := Miss
			if follows {
				outcome = Follow
			}
			blob := &flying{flight: f, repository: repository}
			if err := blob.begin(ctx); err != nil {
				return nil, outcome, errors.Join(err, blob.close())
			}
			return blob, outcome, nil
		}
		e.part(f)
		if !follows || f.repository == repository {
			return nil, Miss, f.err
		}
	}
	return nil, Miss, fmt.Errorf("blob %s comes and goes", dgst)
}

// used notes that a stored blob is used, and that the repository has it.
func (e *Engine) used(repository string, dgst digest.Digest, info os.FileInfo) {
	e.evictor.used(dgst, info)
	// Whoever asks can make up names of repositories.
	if e.store.hasRepository(repository) {
		e.linkLayer(repository, dgst)
	}
}

func (e *Engine) linkLayer(repository string, dgst digest.Digest) {
	if err := e.store.linkLayer(repository, dgst); err != nil {
		e.log.Debug("Cannot link a blob", "repository", repository, "digest", dgst.String(), "error", err)
	}
}

// stored is a blob on the volume.
type stored struct {
	file *os.File
	size int64
}

func (s *stored) length() int64 { return s.size }

func (s *stored) readAt(_ context.Context, p []byte, offset int64) (int, error) {
	n, err := s.file.ReadAt(p, offset)
	if errors.Is(err, io.EOF) && offset+int64(n) < s.size {
		// Somebody cut the file while it was read.
		return n, io.ErrUnexpectedEOF
	}
	return n, err
}

func (s *stored) close() error { return s.file.Close() }

// flying is a blob in flight.
type flying struct {
	flight *flight
	// repository is the one that the client asked for.
	repository string
	// waits says that it waits for the flight, however far that is.
	waits bool
	// rest is what comes straight from the upstream, and not from the spool.
	rest *passage
}

// begin asks the upstream at once if not even the beginning is on the volume.
func (f *flying) begin(ctx context.Context) error {
	if limit, _, err := f.flight.spool.state(); limit > 0 || !errors.Is(err, errUnstorable) {
		return nil
	}
	if response := f.flight.takeResponse(); response != nil {
		f.rest = &passage{download: response, hasher: f.flight.digest.Algorithm().Hash()}
		return nil
	}
	return f.divert(ctx, 0)
}

func (f *flying) length() int64 {
	if f.rest != nil {
		return f.rest.download.size
	}
	return f.flight.spool.size
}

func (f *flying) readAt(ctx context.Context, p []byte, offset int64) (int, error) {
	if f.rest == nil {
		n, err := f.readSpool(ctx, p, offset)
		switch {
		case errors.Is(err, errFar) && f.divert(ctx, offset) != nil:
			// There is no other way than to wait.
			f.waits = true
			return f.readAt(ctx, p, offset)
		case !errors.Is(err, errFar) && !errors.Is(err, errUnstorable):
			return n, err
		}
	}
	if f.rest == nil || f.rest.position != offset {
		if err := f.divert(ctx, offset); err != nil {
			return 0, err
		}
	}
	n, err := f.rest.read(ctx, p)
	if err == nil || errors.Is(err, io.EOF) || ctx.Err() != nil {
		return n, err
	}
	if _, hashed := f.flight.unstorable(); hashed != nil {
		return n, err
	}
	// The shortcut ends before its end, and the flight comes by, or has.
	f.rest.close()
	f.rest, f.waits = nil, true
	return f.readAt(ctx, p, offset)
}

// errFar says that a flight takes long to get to where a client wants to read.
var errFar = errors.New("the flight is far from there")

// readSpool does not wait long for a flight that is far away. Who reads the end of
// a layer first, as snapshotters do that load it lazily, would be better off
// without a cache otherwise.
func (f *flying) readSpool(ctx context.Context, p []byte, offset int64) (int, error) {
	wait := f.flight.distance(offset)
	switch {
	case wait == 0 || f.waits:
		return f.flight.spool.readAt(ctx, p, offset)
	case wait > patience:
		return 0, errFar
	}
	waiting, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	n, err := f.flight.spool.readAt(waiting, p, offset)
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		return n, errFar
	}
	return n, err
}

// divert has the blob come straight from the upstream from an offset on, for this
// client alone: the volume is full, or the flight would take long to get there. It
// is verified if the offset is where the hash of the flight ends; else the client
// asked for a part, which no digest is known of.
func (f *flying) divert(ctx context.Context, offset int64) error {
	size := f.length()
	if f.rest != nil {
		f.rest.close()
		f.rest = nil
	}
	rest := &passage{download: f.flight.engine.newDownload(f.flight.repository, f.flight.digest, offset), position: offset}
	// The client was told the size already, and a shortcut is none if the upstream
	// sends all of the blob.
	rest.download.size = size
	rest.download.unchanged = !f.flight.spool.hasEnded()
	if position, hashed := f.flight.unstorable(); hashed != nil && position == offset {
		hasher, err := cloneHash(hashed)
		if err != nil {
			return err
		}
		rest.hasher = hasher
	}
	// A shortcut is one of many ways; who was cut off has no other.
	if err := rest.download.request(ctx, offset > 0 && f.flight.spool.hasEnded()); err != nil {
		return err
	}
	rest.download.unchanged = false
	f.rest = rest
	return nil
}

func (f *flying) close() error {
	if f.rest != nil {
		f.rest.close()
	}
	if f.repository != f.flight.repository && f.flight.spool.isComplete() && f.flight.engine.store.hasRepository(f.repository) {
		f.flight.engine.linkLayer(f.repository, f.flight.digest)
	}
	f.flight.engine.part(f.flight)
	return nil
}

// passage is a download that nothing stores. It is read by one client from its
// beginning to its end.
type passage struct {
	download *download
	// hasher is the hash of what comes before; nil: there is nothing to verify.
	hasher hash.Hash
	// position is where the next read goes on.
	position int64
	// held is what was read from the upstream and not by the client.
	held []byte
	// ended says that the download has, and was verified.
	ended bool
}

func (p *passage) read(ctx context.Context, into []byte) (int, error) {
	for !p.ended && len(p.held) <= p.keep() {
		if err := p.fill(ctx); err != nil {
			return 0, err
		}
	}
	available := len(p.held)
	if !p.ended {
		available -= p.keep()
	}
	if available == 0 {
		return 0, io.EOF
	}
	n := copy(into, p.held[:available])
	p.held = p.held[:copy(p.held, p.held[n:])]
	p.position += int64(n)
	return n, nil
}

// keep is how much of the end is held back.
func (p *passage) keep() int {
	if p.hasher == nil {
		return 0
	}
	return holdback
}

func (p *passage) fill(ctx context.Context) error {
	buffer := buffers.get()
	defer buffers.put(buffer)
	n, err := p.download.read(ctx, *buffer)
	p.held = append(p.held, (*buffer)[:n]...)
	if p.hasher != nil {
		_, _ = p.hasher.Write((*buffer)[:n]) // a hash never fails
	}
	if err == nil || !errors.Is(err, io.EOF) {
		return err
	}
	if p.hasher != nil {
		if got := digest.NewDigest(p.download.digest.Algorithm(), p.hasher); got != p.download.digest {
			return fmt.Errorf("%w: it is %s", errMismatch, got)
		}
	}
	p.ended = true
	return nil
}

func (p *passage) close() { p.download.close() }

func cloneHash(of hash.Hash) (hash.Hash, error) {
	cloner, ok := of.(hash.Cloner)
	if !ok {
		return nil, fmt.Errorf("cannot clone a %T", of)
	}
	return cloner.Clone()
}
