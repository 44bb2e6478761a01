// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package pullthrough

import (
	"context"
	"io"
	"time"
)

// Outcome says where an answer came from. The zero value is none: there was
// nothing to look up.
type Outcome string

// The outcomes.
const (
	// Hit was stored.
	Hit Outcome = "hit"
	// Miss was fetched for this request.
	Miss Outcome = "miss"
	// Follow was being fetched for another request already.
	Follow Outcome = "follow"
	// Stale is what a tag was last known to stand for; the upstream was not asked,
	// or did not answer.
	Stale Outcome = "stale"
)

// Answer is what the engine and the server that it answers through have to tell
// each other about one request.
type Answer struct {
	// Outcome is set by the engine before it answers.
	Outcome Outcome
	// Body is that of the response, without what distribution's handlers put around
	// it: with that, the kernel could not copy a file to the connection. Optional.
	Body io.ReaderFrom

	began time.Time
}

type answerKey struct{}

// WithAnswer returns the context of a request that is answered from now on.
func WithAnswer(ctx context.Context, answer *Answer) context.Context {
	answer.began = time.Now()
	return context.WithValue(ctx, answerKey{}, answer)
}

// answerOf returns nil if nobody wants to know, or can tell.
func answerOf(ctx context.Context) *Answer {
	answer, _ := ctx.Value(answerKey{}).(*Answer)
	return answer
}

// waited returns how long a client has waited.
func waited(ctx context.Context) time.Duration {
	if answer := answerOf(ctx); answer != nil {
		return time.Since(answer.began)
	}
	return 0
}

// note writes the outcome of a request, and returns the one that stands: that of
// its first step. A manifest that was fetched to learn what its tag stands for is
// no hit, and a stale tag is stale wherever its manifest comes from.
func note(ctx context.Context, outcome Outcome) Outcome {
	answer := answerOf(ctx)
	if answer == nil {
		return outcome
	}
	if answer.Outcome == "" {
		answer.Outcome = outcome
	}
	return answer.Outcome
}
