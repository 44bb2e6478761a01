// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package pullthrough

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync"
	"time"
)

// failuresToOpen is how many failures in a row open a breaker, if none of them
// cost much time.
const failuresToOpen = 3

// longestRetryAfter bounds what an upstream may ask for.
const longestRetryAfter = time.Hour

// errOpen says that the upstream was not asked.
var errOpen = errors.New("the upstream is left alone after it failed")

// breaker keeps from an upstream that fails what would have to wait for it. It
// opens after a failure that took long or was a 429, and after some in a row of
// any other kind; then one request at a time tries whether the upstream is back.
// What happened long ago, and was not tried since, counts no more.
type breaker struct {
	// base is for how long it opens first; each time in a row it is twice as long,
	// up to longest.
	base, longest time.Duration

	mu sync.Mutex
	// generation counts openings, closings and trials: what began before the last
	// of them tells nothing new.
	generation int
	failures   int
	openings   int
	until      time.Time
	trying     bool
	// failed is when it last counted a failure.
	failed time.Time
	// slowUntil is until when nobody waits who need not.
	slowUntil time.Time
}

// closed says whether the upstream may be asked as if nothing had happened.
func (b *breaker) closed() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.forget()
	return b.openings == 0
}

// due says whether it is time to try whether the upstream is back.
func (b *breaker) due() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return !b.trying && !time.Now().Before(b.until)
}

// allow says whether the upstream may be asked now. Whoever is allowed to must
// report, with the ticket.
func (b *breaker) allow() (ticket int, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.forget()
	switch {
	case b.openings == 0:
		return b.generation, true
	case b.trying || time.Now().Before(b.until):
		return 0, false
	}
	b.trying = true
	b.generation++
	return b.generation, true
}

// report tells how a request went.
func (b *breaker) report(ticket int, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if ticket != b.generation {
		return
	}
	b.trying = false
	var answered *upstreamError
	switch {
	case errors.Is(err, context.Canceled):
		return
	case err == nil, errors.As(err, &answered) && !answered.temporary():
		b.close()
		return
	}
	if time.Since(b.failed) > b.longest {
		b.failures = 0
	}
	b.failures++
	b.failed = time.Now()
	retryAfter := time.Duration(0)
	limited := false
	if answered != nil {
		retryAfter = min(answered.retryAfter, longestRetryAfter)
		limited = answered.status == http.StatusTooManyRequests
	}
	if b.openings > 0 || b.failures >= failuresToOpen || limited || retryAfter > 0 || isTimeout(err) {
		b.open(retryAfter)
	}
}

// slow notes that the upstream takes long. It may be asked, but it is not worth
// waiting for who has an answer of before.
func (b *breaker) slow() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.slowUntil = time.Now().Add(b.base)
}

// isSlow says whether the upstream takes long.
func (b *breaker) isSlow() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return time.Now().Before(b.slowUntil)
}

func (b *breaker) open(atLeast time.Duration) {
	duration := max(atLeast, min(b.base<<min(b.openings, 10), b.longest))
	b.until = time.Now().Add(duration)
	b.openings++
	b.generation++
}

func (b *breaker) close() {
	if b.openings > 0 {
		b.generation++
	}
	b.failures, b.openings = 0, 0
}

// forget closes a breaker that nobody has asked for some time whether it may.
func (b *breaker) forget() {
	if b.openings > 0 && !b.trying && time.Since(b.until) > b.longest {
		b.close()
	}
}

func isTimeout(err error) bool {
	var timeout net.Error
	return errors.Is(err, context.DeadlineExceeded) || errors.As(err, &timeout) && timeout.Timeout()
}
