// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package pullthrough

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
)

// holdback is how much of the end of a blob is kept from readers until the digest
// of all of it is verified: none of them ever has a complete wrong blob.
const holdback = 32 << 10

// unknownSize stands for the size of a blob whose upstream did not tell.
const unknownSize = -1

// errUnstorable ends a spool whose volume is full: what it has can be read, and
// the rest has to come from elsewhere.
var errUnstorable = errors.New("the volume is full")

// spool is a file that one writes at its end while others read it, each at its
// own pace. It is deleted from memory, not from disk, with its last user.
type spool struct {
	file *os.File
	// size is that of the complete blob, or unknownSize.
	size int64

	mu      sync.Mutex
	written int64
	// ended is set when nothing more comes; err says why that is not the end of
	// the blob.
	ended bool
	err   error
	// changed is closed, and replaced, when any of the above changes.
	changed chan struct{}
}

// newSpool returns a spool whose file has the first bytes of the blob already.
func newSpool(file *os.File, written, size int64) *spool {
	return &spool{file: file, size: size, written: written, changed: make(chan struct{})}
}

// append adds to the end, for readers to see. Only one may write.
func (s *spool) append(p []byte) error {
	n, err := s.file.WriteAt(p, s.written)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.written += int64(n)
	s.announce()
	return err
}

// progress returns how much there is, and whether that is all that comes.
func (s *spool) progress() (written int64, ended bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.written, s.ended
}

// hasEnded says whether nothing more comes.
func (s *spool) hasEnded() bool {
	_, ended := s.progress()
	return ended
}

// isComplete says whether the blob is complete and verified.
func (s *spool) isComplete() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ended && s.err == nil
}

// knownSize returns the size of the blob, if it is known by now.
func (s *spool) knownSize() (int64, bool) {
	if s == nil {
		return 0, false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended && s.err == nil {
		return s.written, true
	}
	return s.size, s.size != unknownSize
}

// end says that nothing more comes: nil if the blob is complete and verified. It
// ends only once.
func (s *spool) end(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return
	}
	s.ended, s.err = true, err
	s.announce()
}

func (s *spool) announce() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// state returns up to where the spool may be read now, and a channel that is
// closed when there may be more to know. With the end of the blob it returns
// io.EOF.
func (s *spool) state() (limit int64, changed <-chan struct{}, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	unverified := s.written
	if s.size != unknownSize {
		unverified = min(unverified, s.size)
	}
	unverified = max(0, unverified-holdback)
	switch {
	case !s.ended:
		return unverified, s.changed, nil
	case s.err == nil:
		return s.written, nil, io.EOF
	case errors.Is(s.err, errUnstorable):
		// Who goes on elsewhere verifies the end there.
		return s.written, nil, s.err
	default:
		return unverified, nil, s.err
	}
}

// readAt reads what there is at an offset, and waits if there is nothing yet.
func (s *spool) readAt(ctx context.Context, p []byte, offset int64) (int, error) {
	for {
		limit, changed, err := s.state()
		if offset < limit {
			n, err := s.file.ReadAt(p[:min(int64(len(p)), limit-offset)], offset)
			if err != nil {
				// The end of the file is not that of the blob.
				return n, fmt.Errorf("read spool: %w", noEOF(err))
			}
			return n, nil
		}
		if err != nil {
			return 0, err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
}
