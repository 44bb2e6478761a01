// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"time"
)

// Who pulls an image that the cache does not have.
var (
	alone     = crowd{clients: 1}
	many      = crowd{clients: 20}
	lots      = crowd{clients: 100}
	lotsGated = crowd{clients: 100, gated: true}
	staggered = crowd{clients: 20, stagger: 100 * time.Millisecond}
)

// repetitions are fewer of what takes long.
func (c crowd) repetitions() int {
	switch {
	case c.clients == 1:
		return 5
	case c.clients <= many.clients:
		return 3
	default:
		return 1
	}
}

// String tells who pulls.
func (c crowd) String() string {
	switch {
	case c.clients == 1:
		return "1 client"
	case c.stagger > 0:
		return fmt.Sprintf("%d clients, one each %s", c.clients, c.stagger)
	default:
		return fmt.Sprintf("%d clients at once", c.clients)
	}
}

// coldRun is what was measured of one crowd at a fresh process with no content.
type coldRun struct {
	// copies of the image were fetched from the upstream.
	copies  float64
	slowest time.Duration
	// firstBytes are those of all layers of all clients.
	firstBytes []time.Duration
	memory     memory
	// cold are the requests of the crowd to the upstream, and warm those of one
	// more client later; only if the crowd is one client.
	cold, warm counts
}

// coldRuns are the repetitions. Direct pulls are only those of one client.
type coldRuns struct {
	direct, stock, ours []coldRun
}

// coldRuns measures a crowd, or returns what was measured before.
func (b *bench) coldRuns(ctx context.Context, c crowd) (coldRuns, error) {
	if runs, ok := b.colds[c]; ok {
		return runs, nil
	}
	var runs coldRuns
	for i := range c.repetitions() {
		b.logf("cold pull by %s, %d of %d", c, i+1, c.repetitions())
		if c == alone {
			run, err := b.measureCrowd(ctx, target{url: b.upstream.url}, c)
			if err != nil {
				return runs, fmt.Errorf("direct: %w", err)
			}
			runs.direct = append(runs.direct, run)
		}
		stock, err := b.cold(ctx, b.stock, c)
		if err != nil {
			return runs, err
		}
		ours, err := b.cold(ctx, b.ours, c)
		if err != nil {
			return runs, err
		}
		runs.stock, runs.ours = append(runs.stock, stock), append(runs.ours, ours)
	}
	b.colds[c] = runs
	return runs, nil
}

// cold lets a crowd pull from a fresh process with no content.
func (b *bench) cold(ctx context.Context, p *program, c crowd) (run coldRun, err error) {
	err = b.withServer(ctx, p, launch{remote: b.upstream.url}, func(s *server) error {
		memory := s.watchMemory(ctx)
		run, err = b.measureCrowd(ctx, s.target(), c)
		peak, memoryErr := memory()
		if err != nil {
			return err
		}
		if run.memory = peak; memoryErr != nil || c != alone {
			return memoryErr
		}
		if err := b.warmUp(ctx, s); err != nil {
			return err
		}
		warm, err := b.measureCrowd(ctx, s.target(), alone)
		run.warm = warm.cold
		return err
	})
	return run, err
}

func (b *bench) measureCrowd(ctx context.Context, t target, c crowd) (coldRun, error) {
	// A cache may say hello to its upstream when it starts.
	if _, err := b.upstream.settled(ctx); err != nil {
		return coldRun{}, err
	}
	b.upstream.reset()
	pulls, err := c.pull(ctx, t)
	if err != nil {
		return coldRun{}, err
	}
	run := coldRun{}
	for _, pull := range pulls {
		run.slowest = max(run.slowest, pull.elapsed)
		run.firstBytes = append(run.firstBytes, pull.firstBytes...)
	}
	run.cold, err = b.upstream.settled(ctx)
	run.copies = float64(run.cold.blobBytes) / float64(b.image.size)
	return run, err
}

// samples are one figure of each run.
func samples(runs []coldRun, figure func(coldRun) float64) []float64 {
	values := make([]float64, 0, len(runs))
	for _, run := range runs {
		values = append(values, figure(run))
	}
	return values
}

func slowestSeconds(run coldRun) float64 { return run.slowest.Seconds() }

func (b *bench) copies(ctx context.Context) ([]row, error) {
	var rows []row
	figure := func(run coldRun) float64 { return run.copies }
	for _, c := range []crowd{alone, many, lots, staggered} {
		runs, err := b.coldRuns(ctx, c)
		if err != nil {
			return rows, err
		}
		r := row{
			what: "Copies fetched from upstream, " + c.String(), format: "%.2f",
			stock: median(samples(runs.stock, figure)), ours: median(samples(runs.ours, figure)),
		}
		// The manifest's bytes are not counted, and nothing else is allowed for.
		r.limit = atMost("1 copy", r.ours.value, 1)
		rows = append(rows, r)
	}
	return rows, nil
}

func (b *bench) coldSingle(ctx context.Context) ([]row, error) {
	runs, err := b.coldRuns(ctx, alone)
	if err != nil {
		return nil, err
	}
	r := row{
		what: "Cold pull, 1 client", unit: "s", format: "%.2f",
		reference: "direct", referenceCell: median(samples(runs.direct, slowestSeconds)),
		stock: median(samples(runs.stock, slowestSeconds)), ours: median(samples(runs.ours, slowestSeconds)),
	}
	r.limit = atMost("1.05 × direct", r.ours.value/r.referenceCell.value, 1.05)
	return []row{r}, nil
}

func (b *bench) coldMany(ctx context.Context) ([]row, error) {
	single, err := b.coldRuns(ctx, alone)
	if err != nil {
		return nil, err
	}
	runs, err := b.coldRuns(ctx, many)
	if err != nil {
		return nil, err
	}
	r := row{
		what: "Cold pull, the slowest of " + many.String(), unit: "s", format: "%.2f",
		reference: "stock, 1 client", referenceCell: median(samples(single.stock, slowestSeconds)),
		stock: median(samples(runs.stock, slowestSeconds)), ours: median(samples(runs.ours, slowestSeconds)),
	}
	r.limit = atMost("1.5 × stock, 1 client", r.ours.value/r.referenceCell.value, 1.5)
	return []row{r}, nil
}

func (b *bench) firstByte(ctx context.Context) ([]row, error) {
	runs, err := b.coldRuns(ctx, alone)
	if err != nil {
		return nil, err
	}
	figures := func(runs []coldRun) cell {
		var values []float64
		for _, run := range runs {
			for _, firstByte := range run.firstBytes {
				values = append(values, firstByte.Seconds()*1000)
			}
		}
		return median(values)
	}
	return []row{{
		what: "First byte of a cold layer", unit: "ms", format: "%.1f",
		reference: "direct", referenceCell: figures(runs.direct), stock: figures(runs.stock), ours: figures(runs.ours),
	}}, nil
}

func (b *bench) requests(ctx context.Context) ([]row, error) {
	runs, err := b.coldRuns(ctx, alone)
	if err != nil {
		return nil, err
	}
	one := func(what string, figure func(coldRun) int) row {
		float := func(run coldRun) float64 { return float64(figure(run)) }
		return row{what: what, format: "%.0f", stock: median(samples(runs.stock, float)), ours: median(samples(runs.ours, float))}
	}
	total := one("Upstream requests of a cold pull", func(run coldRun) int { return run.cold.requests() })
	total.limit = atMost("7", total.ours.value, 7)
	return []row{
		total,
		one("… HEAD of blobs", func(run coldRun) int { return run.cold.blobHeads }),
		one("… GET of blobs", func(run coldRun) int { return run.cold.blobGets }),
		one("… HEAD of manifests", func(run coldRun) int { return run.cold.manifestHeads }),
		one("… GET of manifests", func(run coldRun) int { return run.cold.manifestGets }),
		one("… others", func(run coldRun) int { return run.cold.others }),
		one("Upstream requests of a warm pull", func(run coldRun) int { return run.warm.requests() }),
	}, nil
}
