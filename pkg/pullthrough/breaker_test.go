// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package pullthrough

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	. "github.com/onsi/gomega"
)

func TestBreaker(t *testing.T) {
	var (
		refused = &upstreamError{cause: errors.New("refused")}
		broken  = &upstreamError{status: 502}
		slow    = &upstreamError{cause: context.DeadlineExceeded}
		limited = &upstreamError{status: 429}
		later   = &upstreamError{status: 503, retryAfter: time.Minute}
		never   = &upstreamError{status: 429, retryAfter: 100 * time.Hour}
		denied  = &upstreamError{status: 403}
	)
	for name, test := range map[string]struct {
		reports []error
		// after is how long it stays open; 0: it is closed.
		after time.Duration
	}{
		"nothing":                      {nil, 0},
		"two failures":                 {[]error{refused, broken}, 0},
		"three failures":               {[]error{refused, broken, refused}, 10 * time.Second},
		"failures and success":         {[]error{refused, broken, nil, refused, broken}, 0},
		"an answer is one":             {[]error{refused, broken, denied, refused, broken}, 0},
		"one that cost time":           {[]error{slow}, 10 * time.Second},
		"a limit":                      {[]error{limited}, 10 * time.Second},
		"a wish":                       {[]error{later}, time.Minute},
		"an immodest wish":             {[]error{never}, time.Hour},
		"who stops tells nothing":      {[]error{context.Canceled, context.Canceled, context.Canceled}, 0},
		"twice":                        {[]error{slow, slow}, 20 * time.Second},
		"so often that it is for ever": {[]error{slow, slow, slow, slow, slow, slow, slow, slow, slow}, 2 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := NewWithT(t)
				b := &breaker{base: 10 * time.Second, longest: 2 * time.Minute}
				for _, err := range test.reports {
					b.report(b.generation, err)
				}
				g.Expect(b.closed()).To(Equal(test.after == 0))
				if test.after == 0 {
					g.Expect(allowed(b)).To(BeTrue())
					return
				}
				g.Expect(allowed(b)).To(BeFalse())
				time.Sleep(test.after - time.Nanosecond)
				g.Expect(allowed(b)).To(BeFalse())
				time.Sleep(time.Nanosecond)
				g.Expect(b.due()).To(BeTrue())
				ticket, ok := b.allow()
				g.Expect(ok).To(BeTrue(), "one tries")
				g.Expect(allowed(b)).To(BeFalse(), "and only one")
				g.Expect(b.due()).To(BeFalse())
				b.report(ticket, nil)
				g.Expect(b.closed()).To(BeTrue())
			})
		})
	}
}

func TestSlowIsNotOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewWithT(t)
		b := &breaker{base: 10 * time.Second, longest: 2 * time.Minute}
		b.slow()
		g.Expect(b.isSlow()).To(BeTrue())
		g.Expect(b.closed()).To(BeTrue())
		g.Expect(allowed(b)).To(BeTrue())
		time.Sleep(10 * time.Second)
		g.Expect(b.isSlow()).To(BeFalse())
	})
}

func TestFailuresFarApartAreNoneInARow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &breaker{base: 10 * time.Second, longest: 2 * time.Minute}
		for range 10 {
			ticket, _ := b.allow()
			b.report(ticket, errors.New("refused"))
			time.Sleep(2*time.Minute + time.Nanosecond)
		}
		NewWithT(t).Expect(b.closed()).To(BeTrue())
	})
}

func allowed(b *breaker) bool {
	_, ok := b.allow()
	return ok
}

func TestRequestsOfBeforeTellABreakerNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewWithT(t)
		b := &breaker{base: 10 * time.Second, longest: 2 * time.Minute}
		var tickets []int
		for range 5 {
			ticket, ok := b.allow()
			g.Expect(ok).To(BeTrue())
			tickets = append(tickets, ticket)
		}
		for _, ticket := range tickets[:4] {
			b.report(ticket, context.DeadlineExceeded)
		}
		b.report(tickets[4], nil)
		g.Expect(b.closed()).To(BeFalse(), "it began before the others failed")
		time.Sleep(10 * time.Second)
		g.Expect(allowed(b)).To(BeTrue(), "four at a time are one failure")
	})
}

func TestFailuresOfLongAgoAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewWithT(t)
		b := &breaker{base: 10 * time.Second, longest: 2 * time.Minute}
		b.report(b.generation, context.DeadlineExceeded)
		time.Sleep(10*time.Second + 2*time.Minute)
		g.Expect(b.closed()).To(BeFalse())
		time.Sleep(time.Nanosecond)
		g.Expect(b.closed()).To(BeTrue())
	})
}

func TestBackoff(t *testing.T) {
	g := NewWithT(t)
	for attempts, longest := range map[int]time.Duration{0: 100 * time.Millisecond, 1: 200 * time.Millisecond, 3: 800 * time.Millisecond, 100: maxBackoff} {
		for range 100 {
			g.Expect(backoff(100*time.Millisecond, attempts)).To(And(BeNumerically(">=", longest/2), BeNumerically("<=", longest)))
		}
	}
}

func TestStallWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewWithT(t)
		ctx, cancel := context.WithCancelCause(t.Context())
		w := newStallWatch(10*time.Second, 100, cancel)
		// Who takes long to come back for more is not the upstream.
		for range 5 {
			w.begin()
			time.Sleep(6 * time.Second)
			g.Expect(w.end(100)).To(BeFalse())
			time.Sleep(time.Hour)
		}
		// A drip is no progress.
		for range 9 {
			w.begin()
			time.Sleep(time.Second)
			g.Expect(w.end(1)).To(BeFalse())
		}
		w.begin()
		time.Sleep(time.Second)
		synctest.Wait()
		g.Expect(context.Cause(ctx)).To(MatchError(errStalled))
		g.Expect(w.end(1)).To(BeTrue())
	})
}
