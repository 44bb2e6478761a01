// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"time"
)

const (
	// firstBound is what a client waits for the first resolve: stock dials for
	// 30 s, and waits for an answer on a connection that it has for ever.
	firstBound = 35 * time.Second
	// restBound is what it then waits for all the others.
	restBound = 15 * time.Second
	resolves  = 20
	// resolvePause is between two resolves: their time is to go past whatever
	// back-off a cache has.
	resolvePause = 250 * time.Millisecond
)

// resolution is how long clients waited for a tag.
type resolution struct {
	first time.Duration
	// rest is shorter than resolves if these took longer than restBound.
	rest []time.Duration
	// firstCut and restCut tell that the wait was ended.
	firstCut, restCut bool
}

// blackhole is about tags that a cache knows, when packets to the upstream vanish.
func (b *bench) blackhole(ctx context.Context) ([]row, error) {
	stock, err := b.resolveBlackholed(ctx, b.stock)
	if err != nil {
		return nil, err
	}
	ours, err := b.resolveBlackholed(ctx, b.ours)
	if err != nil {
		return nil, err
	}
	first := row{
		what: "Resolve of a known tag, upstream black-holed: first", unit: "s", format: "%.2f",
		stock: cutCell(stock.firstCut, firstBound.Seconds(), stock.first.Seconds()),
		ours:  cutCell(ours.firstCut, firstBound.Seconds(), ours.first.Seconds()),
	}
	first.limit = atMost("3 s", first.ours.value, 3)
	rest := row{what: fmt.Sprintf("… median of the next %d", resolves), unit: "ms", format: "%.1f", stock: stock.restCell(median), ours: ours.restCell(median)}
	worst := row{what: "… slowest of these", unit: "ms", format: "%.1f", stock: stock.restCell(largest), ours: ours.restCell(largest)}
	worst.limit = atMost("10 ms", worst.ours.value, 10)
	return []row{first, rest, worst}, nil
}

func (r resolution) restCell(statistic func([]float64) cell) cell {
	if r.restCut {
		return cutCell(true, restBound.Seconds()*1000, 0)
	}
	values := make([]float64, 0, len(r.rest))
	for _, duration := range r.rest {
		values = append(values, duration.Seconds()*1000)
	}
	return statistic(values)
}

// resolveBlackholed has an upstream of its own, for nothing brings it back.
func (b *bench) resolveBlackholed(ctx context.Context, p *program) (result resolution, err error) {
	b.logf("resolve a tag through %s while the upstream drops packets", p.name)
	shared := b.upstream
	if b.upstream, err = startUpstream(ctx, b.image); err != nil {
		return result, err
	}
	defer func() {
		err = errors.Join(err, b.upstream.close())
		b.upstream = shared
	}()
	err = b.withServer(ctx, p, launch{remote: b.upstream.url}, func(s *server) error {
		if err := b.warmUp(ctx, s); err != nil {
			return err
		}
		if err := b.enterBlackhole(ctx); err != nil {
			return err
		}
		client := newClient(s.target())
		defer client.close()
		result, err = b.resolveAll(ctx, client)
		return err
	})
	return result, err
}

// enterBlackhole black-holes the upstream, and makes sure of it.
func (b *bench) enterBlackhole(ctx context.Context) error {
	connected, fresh := newClient(target{url: b.upstream.url}), newClient(target{url: b.upstream.url})
	defer connected.close()
	defer fresh.close()
	if _, err := connected.resolve(ctx); err != nil {
		return err
	}
	if err := b.upstream.blackhole(); err != nil {
		return err
	}
	for _, client := range []*client{connected, fresh} {
		short, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
		_, err := client.resolve(short)
		cancel()
		if !errors.Is(err, context.DeadlineExceeded) {
			return fmt.Errorf("the upstream is no black hole: %w", err)
		}
	}
	return nil
}

func (b *bench) resolveAll(ctx context.Context, client *client) (resolution, error) {
	var result resolution
	var err error
	bounded, cancel := context.WithTimeout(ctx, firstBound)
	defer cancel()
	if result.first, result.firstCut, err = b.resolve(bounded, client); err != nil {
		return result, err
	}
	bounded, cancelRest := context.WithTimeout(ctx, restBound)
	defer cancelRest()
	for range resolves {
		took, cut, err := b.resolve(bounded, client)
		if err != nil {
			return result, err
		}
		result.rest = append(result.rest, took)
		if cut || sleep(bounded, resolvePause) != nil {
			result.restCut = true
			break
		}
	}
	return result, context.Cause(ctx)
}

// resolve returns how long a resolve took, and whether it was still waiting when
// ctx ended.
func (b *bench) resolve(ctx context.Context, client *client) (time.Duration, bool, error) {
	started := time.Now()
	digest, err := client.resolve(ctx)
	took := time.Since(started)
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return took, true, nil
	case err != nil:
		return took, false, fmt.Errorf("after %s: %w", took.Round(time.Millisecond), err)
	case digest != b.image.manifest.Digest:
		return took, false, fmt.Errorf("the tag is %q, and should be %q", digest, b.image.manifest.Digest)
	}
	return took, false, nil
}
