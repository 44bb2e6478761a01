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
	"sync"
	"syscall"
	"time"

	"github.com/opencontainers/go-digest"
)

// errMismatch ends a blob that is not what its digest says.
var errMismatch = errors.New("the content does not have the digest that it was asked for by")

// flight fetches one cold blob, for all who ask for it while it does. It belongs
// to none of them: it goes on when they leave, at the speed of the upstream and
// the volume.
type flight struct {
	engine *Engine
	// repository is the one that the blob is fetched from: that of who asked
	// first.
	repository string
	digest     digest.Digest

	// started is closed when spool or err is set.
	started chan struct{}
	spool   *spool
	// err is why it never started.
	err error

	// users are its clients and, while it runs, itself. They are counted under the
	// lock of the list; the last one closes the spool.
	users int

	// prefix is the hash of the first bytes of an unstorable blob, as many as the
	// spool has. It is set before the spool ends.
	prefix hash.Hash
}

// flights are those in progress, by digest.
type flights struct {
	mu   sync.Mutex
	byID map[digest.Digest]*flight
	// remains are those of flights that failed, for the next of the same blob.
	remains map[digest.Digest]remains
}

// remains say what the beginning of a blob is of that lies in its spool. A next
// flight goes on with it if the upstream says that it is still the same.
type remains struct {
	size      int64
	validator string
}

// join returns the flight of a blob, and begins one if there is none. It returns
// nil if the blob is stored by now. Who joins must part.
func (e *Engine) join(repository string, dgst digest.Digest) (f *flight, follows bool, err error) {
	e.flights.mu.Lock()
	defer e.flights.mu.Unlock()
	if f, ok := e.flights.byID[dgst]; ok {
		f.users++
		return f, true, nil
	}
	// A flight leaves the list after its blob has its name.
	if e.store.has(dgst) {
		return nil, false, nil
	}
	f = &flight{engine: e, repository: repository, digest: dgst, started: make(chan struct{}), users: 2}
	if !e.tasks.start(f.run) {
		return nil, false, errClosed
	}
	e.flights.byID[dgst] = f
	return f, false, nil
}

// land takes a flight off the list when it has ended.
func (e *Engine) land(f *flight) {
	e.flights.mu.Lock()
	delete(e.flights.byID, f.digest)
	e.flights.mu.Unlock()
	e.part(f)
}

// part ends the use of a flight.
func (e *Engine) part(f *flight) {
	e.flights.mu.Lock()
	defer e.flights.mu.Unlock()
	if f.users--; f.users == 0 && f.spool != nil {
		// What was written to it was synced before it got its name.
		_ = f.spool.file.Close()
	}
}

// count returns how many flights are in progress, and how many clients share
// one that another began.
func (f *flights) count() (flying, following int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, flight := range f.byID {
		following += max(0, flight.users-2)
	}
	return len(f.byID), following
}

// release says that no flight uses the spool of a blob, and none will: it may be
// deleted.
func (f *flights) release(dgst digest.Digest) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, ok := f.byID[dgst]; ok {
		return false
	}
	delete(f.remains, dgst)
	return true
}

// run is the whole life of a flight.
func (f *flight) run(ctx context.Context) {
	began := time.Now()

	err := f.fetch(ctx)
	if f.spool == nil {
		f.err = err
		close(f.started)
	} else {
		f.engine.metrics.spoolBytes.Sub(float64(f.spool.written))
	}
	f.engine.land(f)
	f.report(err, time.Since(began))
}

func (f *flight) report(err error, duration time.Duration) {
	log := f.engine.log.With("repository", f.repository, "digest", f.digest.String(), "seconds", duration.Seconds())
	result := "stored"
	switch {
	case err == nil:
		log.Debug("Stored a blob")
	case errors.Is(err, errMismatch):
		result = "mismatch"
		f.engine.metrics.mismatches.WithLabelValues(typeBlob).Inc()
		log.Error("Dropped a blob whose content is not that of its digest", "error", err)
	case errors.Is(err, errUnstorable):
		result = "unstorable"
		log.Warn("Cannot store a blob, streaming it through", "error", err)
	default:
		result = "failed"
		log.Warn("Cannot fetch a blob", "error", redact(err))
	}
	f.engine.metrics.flightResults.WithLabelValues(result).Inc()
}

// fetch writes the spool, and gives it the name of the blob.
func (f *flight) fetch(ctx context.Context) error {
	file, err := f.openSpool(ctx)
	if err != nil {
		return f.startUnstorable(err)
	}
	d, hasher, err := f.open(ctx, file)
	defer d.close()
	if err != nil {
		return errors.Join(err, f.discard(file))
	}
	f.start(newSpool(file, d.offset, d.size))

	err = f.copy(ctx, d, hasher)
	if err == nil {
		err = f.verify(hasher)
	}
	if err != nil {
		f.spool.end(err)
		return errors.Join(err, f.leave(file, d, err))
	}
	f.spool.end(nil)
	return f.store(ctx, file)
}

// openSpool makes room for the file if there is none.
func (f *flight) openSpool(ctx context.Context) (*os.File, error) {
	file, err := f.engine.store.createSpool(f.digest)
	if isFull(err) && f.engine.evictor.makeRoom(ctx, 0) > 0 {
		file, err = f.engine.store.createSpool(f.digest)
	}
	return file, err
}

// open asks the upstream for the blob, or for the rest of what an earlier flight
// left of it, and returns the hash of that.
func (f *flight) open(ctx context.Context, file *os.File) (*download, hash.Hash, error) {
	d := f.engine.newDownload(f.repository, f.digest, 0)
	hasher := f.digest.Algorithm().Hash()
	if before, ok := f.engine.flights.remainsOf(f.digest); ok {
		d.size, d.validator, d.exact = before.size, before.validator, true
		var err error
		if d.offset, err = io.Copy(hasher, file); err != nil {
			return d, nil, fmt.Errorf("read what there is of it: %w", err)
		}
	}
	err := d.open(ctx)
	if err == nil && d.offset > 0 {
		d.exact = false
		f.engine.flights.abandon(f.digest)
		return d, hasher, nil
	}
	if d.offset > 0 && errors.Is(err, errRange) {
		f.engine.flights.abandon(f.digest)
		d = f.engine.newDownload(f.repository, f.digest, 0)
		hasher.Reset()
		err = d.open(ctx)
	}
	if err != nil {
		return d, nil, err
	}
	return d, hasher, file.Truncate(0)
}

// leave deals with the spool of a flight that failed: what is of use is kept for
// the next, if the upstream can be asked whether it still is.
func (f *flight) leave(file *os.File, d *download, why error) error {
	if errors.Is(why, errMismatch) || errors.Is(why, errUnstorable) || d.validator == "" || f.spool.written == 0 {
		return ignoreNotExist(os.Remove(file.Name()))
	}
	f.engine.flights.mu.Lock()
	defer f.engine.flights.mu.Unlock()
	f.engine.flights.remains[f.digest] = remains{size: d.size, validator: d.validator}
	return nil
}

func (f *flights) remainsOf(dgst digest.Digest) (remains, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	left, ok := f.remains[dgst]
	return left, ok
}

// abandon forgets the remains of a blob.
func (f *flights) abandon(dgst digest.Digest) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.remains, dgst)
}

// startUnstorable is for a volume on which there is no place for a spool. There
// is no point in one either if the upstream does not have the blob, which each
// client finds out for itself.
func (f *flight) startUnstorable(cause error) error {
	empty, err := os.Open(os.DevNull)
	if err != nil {
		return errors.Join(cause, err)
	}
	f.prefix = f.digest.Algorithm().Hash()
	f.start(newSpool(empty, 0, unknownSize))
	err = fmt.Errorf("%w: %w", errUnstorable, cause)
	f.spool.end(err)
	return err
}

func (f *flight) start(s *spool) {
	f.spool = s
	f.engine.metrics.spoolBytes.Add(float64(s.written))
	close(f.started)
}

// copy reads the download into spool and hash.
func (f *flight) copy(ctx context.Context, d *download, hasher hash.Hash) error {
	buffer := buffers.get()
	defer buffers.put(buffer)
	for {
		n, err := d.read(ctx, *buffer)
		if n > 0 {
			if err := f.append(ctx, (*buffer)[:n], hasher); err != nil {
				return err
			}
		}
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("read: %w", err)
		}
	}
}

func (f *flight) append(ctx context.Context, p []byte, hasher hash.Hash) error {
	for rest := p; len(rest) > 0; {
		before := f.spool.written
		err := f.spool.append(rest)
		added := int(f.spool.written - before)
		_, _ = hasher.Write(rest[:added]) // a hash never fails
		rest = rest[added:]
		f.engine.metrics.spoolBytes.Add(float64(added))
		switch {
		case err == nil:
		case isFull(err) && f.engine.evictor.makeRoom(ctx, f.missing()) > 0:
		default:
			f.prefix = hasher
			return fmt.Errorf("%w: %w", errUnstorable, err)
		}
	}
	return nil
}

// missing is how many bytes of the blob are not yet there, as far as is known.
func (f *flight) missing() int64 {
	return max(0, f.spool.size-f.spool.written)
}

func (f *flight) verify(hasher hash.Hash) error {
	if got := digest.NewDigest(f.digest.Algorithm(), hasher); got != f.digest {
		return fmt.Errorf("%w: it is %s, of %d bytes", errMismatch, got, f.spool.written)
	}
	return nil
}

// store gives the spool the name of the blob. Its readers have all of it already.
func (f *flight) store(ctx context.Context, file *os.File) error {
	// Without, a crash of the machine could leave the name and not the content.
	if err := file.Sync(); err != nil {
		return errors.Join(fmt.Errorf("sync: %w", err), os.Remove(file.Name()))
	}
	err := f.engine.store.commit(file.Name(), f.digest)
	if isFull(err) && f.engine.evictor.makeRoom(ctx, 1) > 0 {
		err = f.engine.store.commit(file.Name(), f.digest)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("commit: %w", err), os.Remove(file.Name()))
	}
	f.engine.evictor.added(f.digest, f.spool.written)
	f.engine.linkLayer(f.repository, f.digest)
	return nil
}

// discard closes a file that no spool was made of, and deletes it if a next
// flight has no use for it.
func (f *flight) discard(file *os.File) error {
	if _, ok := f.engine.flights.remainsOf(f.digest); ok {
		return file.Close()
	}
	return errors.Join(file.Close(), ignoreNotExist(os.Remove(file.Name())))
}

// isFull says whether an error means that the volume has no more room.
func isFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

func ignoreNotExist(err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}
