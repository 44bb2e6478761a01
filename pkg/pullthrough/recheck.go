// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package pullthrough

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
)

const (
	// mostRecent bounds the memory of each of the two generations of what is
	// remembered: about 2 MB.
	mostRecent = 10_000
	// mostRechecks is how many blobs are hashed at the same time. All others wait
	// for their turn, and are served meanwhile.
	mostRechecks = 2
)

// rechecks find stored blobs that the disk, or somebody who writes to the volume,
// has changed. To hash each blob that is served would take four times the CPU of
// serving it, so clients tell: they hash what they get, and ask again for what was
// wrong. Who asks again for what it was sent to its end may have found it wrong,
// and the file is hashed.
//
// Many ask again because they have deleted what they had, so a file that is right
// is not hashed again for some time.
type rechecks struct {
	// delivered are the blobs that clients were sent up to their end.
	delivered *recent[delivery]
	// verified are the blobs that were hashed and are right.
	verified *recent[digest.Digest]
	// running are the hashes of now, by digest.
	running *calls[struct{}]
	// slots has a value for each of them that has its turn.
	slots chan struct{}
}

// delivery is a blob that a client has.
type delivery struct {
	// client is an address without a port. That of a proxy stands for all behind it.
	client string
	digest digest.Digest
}

func newRechecks(remember time.Duration, tasks *tasks) *rechecks {
	return &rechecks{
		delivered: newRecent[delivery](remember, mostRecent),
		verified:  newRecent[digest.Digest](remember, mostRecent),
		running:   newCalls[struct{}](tasks),
		slots:     make(chan struct{}, mostRechecks),
	}
}

func deliveryTo(r *http.Request, dgst digest.Digest) delivery {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		host = r.RemoteAddr
	}
	return delivery{client: host, digest: dgst}
}

// recheck hashes a stored blob if the client may have found it wrong, and waits
// for that for a time in which no client gives up. It deletes a blob that is
// wrong: what is then opened is its flight. If the time is over, the client gets
// what there is, and the next one what is right.
func (e *Engine) recheck(ctx context.Context, r *http.Request, repository string, dgst digest.Digest) {
	if !fromBeginning(r) || !e.rechecks.delivered.has(deliveryTo(r, dgst)) || e.rechecks.verified.has(dgst) {
		return
	}
	running, _ := e.rechecks.running.begin(dgst.String(), func(ctx context.Context) (struct{}, error) {
		return struct{}{}, e.verifyStored(ctx, repository, dgst)
	})
	waiting, cancel := context.WithTimeout(ctx, e.limits.Recheck)
	defer cancel()
	// Whatever came of it, what there is now is served.
	if _, err := running.wait(waiting); err != nil && !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, context.Canceled) {
		e.log.Warn("Cannot recheck a blob", "repository", repository, "digest", dgst.String(), "error", err)
	}
}

// fromBeginning says whether a client has nothing of the blob. One that reads
// parts of it, as snapshotters do that load it lazily, asks often.
func fromBeginning(r *http.Request) bool {
	asked := r.Header.Get("Range")
	return asked == "" || strings.HasPrefix(asked, "bytes=0-")
}

// verifyStored hashes a stored blob, and deletes it if it is wrong or cannot be
// read.
func (e *Engine) verifyStored(ctx context.Context, repository string, dgst digest.Digest) error {
	select {
	case e.rechecks.slots <- struct{}{}:
		defer func() { <-e.rechecks.slots }()
	case <-ctx.Done():
		return ctx.Err()
	}
	wrong, err := e.findWrong(ctx, dgst)
	if err != nil || wrong == nil {
		return err
	}
	e.metrics.mismatches.WithLabelValues(typeBlob).Inc()
	e.log.Error("Dropped a blob whose file is not that of its digest", "repository", repository, "digest", dgst.String(), "error", wrong)
	return e.evictor.drop(dgst)
}

// findWrong returns what is wrong with a stored blob: nil if it is right, or not
// stored.
func (e *Engine) findWrong(ctx context.Context, dgst digest.Digest) (wrong, err error) {
	file, info, err := e.store.open(dgst)
	if err != nil {
		return nil, ignoreNotExist(err)
	}
	blob := &stored{file: file, size: info.Size()}
	defer func() { err = errors.Join(err, blob.close()) }()
	buffer := buffers.get()
	defer buffers.put(buffer)
	hasher := dgst.Algorithm().Hash()
	for offset := int64(0); ; {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		n, err := blob.readAt(ctx, *buffer, offset)
		_, _ = hasher.Write((*buffer)[:n]) // a hash never fails
		offset += int64(n)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("at byte %d: %w", offset, err), nil
		}
	}
	if got := digest.NewDigest(dgst.Algorithm(), hasher); got != dgst {
		return fmt.Errorf("%w: it is %s, of %d bytes", errMismatch, got, info.Size()), nil
	}
	e.rechecks.verified.add(dgst)
	return nil, nil
}

// noteDelivery remembers that a client was sent a part of a stored blob, if that
// is its end, or if the file broke off: then the client asks again as well.
func (e *Engine) noteDelivery(r *http.Request, dgst digest.Digest, part byteRange, size int64, err error) {
	var gone *clientError
	if err == nil && part.offset+part.length == size || err != nil && !errors.As(err, &gone) {
		e.rechecks.delivered.add(deliveryTo(r, dgst))
	}
}

// recent remembers keys for a time, or for up to twice that time. Of many it
// forgets the oldest before.
type recent[K comparable] struct {
	lasts time.Duration
	most  int

	mu sync.Mutex
	// young were added since began, old in the generation before.
	young, old map[K]struct{}
	began      time.Time
}

// newRecent has room for twice the given number of keys.
func newRecent[K comparable](lasts time.Duration, most int) *recent[K] {
	return &recent[K]{lasts: lasts, most: most, young: make(map[K]struct{}), began: time.Now()}
}

func (r *recent[K]) add(key K) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.turn()
	if _, ok := r.young[key]; !ok && len(r.young) >= r.most {
		r.begin()
	}
	r.young[key] = struct{}{}
}

func (r *recent[K]) has(key K) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.turn()
	_, ok := r.young[key]
	if !ok {
		_, ok = r.old[key]
	}
	return ok
}

// turn forgets what is older than twice the time.
func (r *recent[K]) turn() {
	switch age := time.Since(r.began); {
	case age >= 2*r.lasts:
		r.begin()
		r.old = nil
	case age >= r.lasts:
		r.begin()
	}
}

func (r *recent[K]) begin() {
	r.young, r.old, r.began = make(map[K]struct{}), r.young, time.Now()
}
