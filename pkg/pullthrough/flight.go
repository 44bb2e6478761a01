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

// errTooLarge says that a blob would take more of the volume than may be in use.
var errTooLarge = errors.New("the blob is larger than the volume may have")

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

	// response is that of an unstorable blob from its beginning, for one client.
	response *download
	// evictions is how often it had others make room.
	evictions int
	// began is when it asked the upstream.
	began time.Time
	// hashed is the hash of what the spool has of an unstorable blob. It is set
	// before the spool ends.
	hashed hash.Hash
}

// flights are those in progress, by digest.
type flights struct {
	mu       sync.Mutex
	byDigest map[digest.Digest]*flight
	// remains are those of flights that failed, for the next of the same blob.
	remains map[digest.Digest]remains
}

// remains say what the beginning of a blob is of that lies in its spool. A next
// flight goes on with it if the upstream says that it is still the same.
type remains struct {
	size      int64
	validator string
}

// errStored ends a flight that is not needed: another has just landed.
var errStored = errors.New("the blob is stored by now")

// join returns the flight of a blob, and begins one if there is none. Who joins
// must part.
func (e *Engine) join(repository string, dgst digest.Digest) (f *flight, follows bool, err error) {
	e.flights.mu.Lock()
	defer e.flights.mu.Unlock()
	if f, ok := e.flights.byDigest[dgst]; ok {
		f.users++
		return f, true, nil
	}
	f = &flight{engine: e, repository: repository, digest: dgst, started: make(chan struct{}), users: 2}
	if !e.tasks.start(f.run) {
		return nil, false, errClosed
	}
	e.flights.byDigest[dgst] = f
	return f, false, nil
}

// delist has those who come now begin another flight.
func (e *Engine) delist(f *flight) {
	e.flights.mu.Lock()
	defer e.flights.mu.Unlock()
	if e.flights.byDigest[f.digest] == f {
		delete(e.flights.byDigest, f.digest)
	}
}

// part ends the use of a flight.
func (e *Engine) part(f *flight) {
	e.flights.mu.Lock()
	f.users--
	last := f.users == 0
	e.flights.mu.Unlock()
	if last {
		f.takeResponse().close()
	}
	if last && f.spool != nil {
		// What was written to it was synced before it got its name.
		_ = f.spool.file.Close()
	}
}

// takeResponse returns the response of a flight that has no spool, to one client.
func (f *flight) takeResponse() *download {
	f.engine.flights.mu.Lock()
	defer f.engine.flights.mu.Unlock()
	taken := f.response
	f.response = nil
	return taken
}

// known returns the size of a blob in flight, if it is known.
func (f *flights) known(dgst digest.Digest) (size int64, ok bool) {
	f.mu.Lock()
	flight, ok := f.byDigest[dgst]
	f.mu.Unlock()
	if !ok {
		return 0, false
	}
	select {
	case <-flight.started:
		return flight.spool.knownSize()
	default:
		return 0, false
	}
}

// count returns how many flights are in progress, and how many clients share
// one that another began.
func (f *flights) count() (flying, following int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, flight := range f.byDigest {
		following += max(0, flight.users-2)
	}
	return len(f.byDigest), following
}

// abandon forgets the remains of a blob, and has them removed if no flight uses
// them.
func (f *flights) abandon(dgst digest.Digest, remove func() error) (removed bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, ok := f.byDigest[dgst]; ok {
		return false
	}
	delete(f.remains, dgst)
	return remove() == nil
}

// takeRemains returns the remains of a blob, which are those of nobody then.
func (f *flights) takeRemains(dgst digest.Digest) (remains, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	left, ok := f.remains[dgst]
	delete(f.remains, dgst)
	return left, ok
}

func (f *flights) leaveRemains(dgst digest.Digest, left remains) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.remains[dgst] = left
}

// run is the whole life of a flight.
func (f *flight) run(ctx context.Context) {
	f.began = time.Now()
	// A flight leaves the list after its blob has its name, and the client of this
	// one may have looked before. What cannot be read is fetched anew.
	file, _, err := f.engine.store.open(f.digest)
	if err == nil {
		err = errors.Join(errStored, file.Close())
	} else {
		err = f.fetch(ctx)
	}
	f.engine.delist(f)
	if f.spool == nil {
		f.err = err
		close(f.started)
	} else {
		f.engine.metrics.spoolBytes.Sub(float64(f.spool.written))
		// If it failed, those who come now do not get what cannot be completed.
		f.spool.end(err)
	}
	if !errors.Is(err, errStored) {
		f.report(err, time.Since(f.began))
	}
	f.engine.part(f)
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
	file, d, hasher, err := f.open(ctx)
	var noSpool *spoolError
	switch {
	case errors.As(err, &noSpool):
		return f.startUnstorable(d, err)
	case err != nil:
		return err
	case f.engine.evictor.tooLarge(d.size):
		if d.offset > 0 {
			d.close()
			d = nil
		}
		return errors.Join(f.startUnstorable(d, errTooLarge), file.Close(), os.Remove(file.Name()))
	}
	defer d.close()
	f.start(newSpool(file, d.offset, d.size))

	if err = f.copy(ctx, d, hasher); err == nil {
		err = f.verify(hasher)
	}
	if err != nil {
		return errors.Join(err, f.leave(file, d, err))
	}
	// Clients need not wait for the disk.
	f.spool.end(nil)
	return f.store(ctx, file)
}

// spoolError says that there can be no spool on the volume.
type spoolError struct{ error }

func (e *spoolError) Unwrap() error { return e.error }

// open asks the upstream for the blob, or for the rest of what an earlier flight
// left of it. It returns the spool's file with what is there, and the hash of
// that. Nothing else uses the file.
func (f *flight) open(ctx context.Context) (*os.File, *download, hash.Hash, error) {
	file, d, hasher, err := f.openRemains(ctx)
	var answered *upstreamError
	if err == nil || errors.As(err, &answered) && !errors.Is(err, errRange) {
		return file, d, hasher, err
	}
	d = f.engine.newDownload(f.repository, f.digest, 0)
	if err := d.open(ctx); err != nil {
		return nil, d, nil, err
	}
	err = f.engine.withRoom(ctx, 0, func() (err error) {
		file, err = f.engine.store.createSpool(f.digest)
		return err
	})
	if err != nil {
		return nil, d, nil, &spoolError{err}
	}
	return file, d, f.digest.Algorithm().Hash(), nil
}

// maxRemains is how much of a blob is kept at most for a next flight, which has to
// hash it before it can answer.
const maxRemains = 1 << 30

// errNoRemains says that there is nothing to go on with.
var errNoRemains = errors.New("no earlier flight left anything")

// openRemains asks the upstream for the rest of what an earlier flight left, if
// it did. It fails if the upstream has something else by now: those who followed
// that flight may still read the file, so it is not written from its beginning
// again.
func (f *flight) openRemains(ctx context.Context) (*os.File, *download, hash.Hash, error) {
	before, ok := f.engine.flights.takeRemains(f.digest)
	if !ok {
		return nil, nil, nil, errNoRemains
	}
	file, err := f.engine.store.openSpool(f.digest)
	if err != nil {
		return nil, nil, nil, err
	}
	hasher := f.digest.Algorithm().Hash()
	offset, err := io.Copy(hasher, file)
	if err != nil || offset == 0 {
		return nil, nil, nil, errors.Join(err, errNoRemains, file.Close())
	}
	d := f.engine.newDownload(f.repository, f.digest, offset)
	d.size, d.validator, d.unchanged = before.size, before.validator, true
	if err := d.open(ctx); err != nil {
		if !errors.Is(err, errRange) {
			f.engine.flights.leaveRemains(f.digest, before)
		}
		d.close()
		return nil, nil, nil, errors.Join(err, file.Close())
	}
	d.unchanged = false
	return file, d, hasher, nil
}

// leave deals with the spool of a flight that failed: what is of use is kept for
// the next, if the upstream can be asked whether it still is.
func (f *flight) leave(file *os.File, d *download, why error) error {
	isUseful := d.validator != "" && f.spool.written > 0 && f.spool.written <= maxRemains
	if errors.Is(why, errMismatch) || errors.Is(why, errUnstorable) || !isUseful {
		return ignoreNotExist(os.Remove(file.Name()))
	}
	f.engine.flights.leaveRemains(f.digest, remains{size: d.size, validator: d.validator})
	return nil
}

// startUnstorable is for a volume on which there is no place for a spool: the
// first client takes over the response, if it begins at the beginning, and each
// other goes to the upstream by itself.
func (f *flight) startUnstorable(d *download, cause error) error {
	f.response = d
	empty, err := os.Open(os.DevNull)
	if err != nil {
		return errors.Join(cause, err)
	}
	f.hashed = f.digest.Algorithm().Hash()
	err = fmt.Errorf("%w: %w", errUnstorable, cause)
	s := newSpool(empty, 0, unknownSize)
	s.end(err)
	f.start(s)
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

// maxEvictions is how often a flight has others make room for it: what is evicted
// takes its room until nobody reads it any more.
const maxEvictions = 3

func (f *flight) append(ctx context.Context, p []byte, hasher hash.Hash) error {
	for rest := p; len(rest) > 0; {
		before := f.spool.written
		err := f.spool.append(rest)
		added := int(f.spool.written - before)
		_, _ = hasher.Write(rest[:added]) // a hash never fails
		rest = rest[added:]
		f.engine.metrics.spoolBytes.Add(float64(added))
		if err == nil {
			continue
		}
		f.evictions++
		if !isFull(err) || f.evictions > maxEvictions || f.engine.evictor.makeRoom(ctx, f.missing()) == 0 {
			f.hashed = hasher
			return fmt.Errorf("%w: %w", errUnstorable, err)
		}
	}
	return nil
}

// missing is how many bytes of the blob are not yet there, as far as is known.
func (f *flight) missing() int64 {
	return max(0, f.spool.size-f.spool.written)
}

const (
	// near is how far ahead of a flight a client may read without asking whether it
	// is worth waiting.
	near = 4 << 20
	// patience is for how long it waits for the flight then.
	patience = time.Second
	// settling is for how long the speed of a flight tells nothing.
	settling = 100 * time.Millisecond
)

// distance returns how long a flight will take to get to an offset that is not
// near; it is 0 for all others.
func (f *flight) distance(offset int64) time.Duration {
	written, ended := f.spool.progress()
	ahead := offset - written
	if ended || ahead <= near {
		return 0
	}
	perSecond := float64(written) / max(time.Since(f.began), settling).Seconds()
	return time.Duration(min(float64(ahead)/max(perSecond, 1), time.Hour.Seconds()) * float64(time.Second))
}

// unstorable returns how much the spool of a flight has whose volume is full, and
// the hash of that; it is nil for all others.
func (f *flight) unstorable() (int64, hash.Hash) {
	if _, _, err := f.spool.state(); !errors.Is(err, errUnstorable) {
		return 0, nil
	}
	return f.spool.written, f.hashed
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
	err := file.Sync()
	if err == nil {
		err = f.engine.withRoom(ctx, 1, func() error { return f.engine.store.commit(file.Name(), f.digest) })
	}
	if err != nil {
		return errors.Join(fmt.Errorf("%w: commit: %w", errUnstorable, err), ignoreNotExist(os.Remove(file.Name())))
	}
	f.engine.evictor.added(f.digest, f.spool.written)
	f.engine.linkLayer(f.repository, f.digest)
	return nil
}

// isFull says whether an error means that the volume has no more room.
func isFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// ignoreNotExist returns no error for what is not there, such as a path below a
// file.
func ignoreNotExist(err error) error {
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		return nil
	}
	return err
}
