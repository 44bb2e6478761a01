// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package pullthrough

import "context"

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

type outcomeKey struct{}

// WithOutcome returns a context under which the engine writes to outcome where its
// answer came from, before it answers.
func WithOutcome(ctx context.Context, outcome *Outcome) context.Context {
	return context.WithValue(ctx, outcomeKey{}, outcome)
}

// note writes the outcome of a request, and returns the one that stands: that of
// its first step. A manifest that was fetched to learn what its tag stands for is
// no hit, and a stale tag is stale wherever its manifest comes from.
func note(ctx context.Context, outcome Outcome) Outcome {
	noted, ok := ctx.Value(outcomeKey{}).(*Outcome)
	if !ok {
		return outcome
	}
	if *noted == "" {
		*noted = outcome
	}
	return *noted
}
