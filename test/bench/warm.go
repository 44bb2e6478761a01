// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"golang.org/x/sync/errgroup"
)

const (
	// Each of the clients pulls several times in each of the rounds.
	warmRounds  = 5
	warmClients = 4
	warmPulls   = 4

	gibibyte = 1 << 30
)

// load is what serving some warm pulls took.
type load struct {
	cpuPerGiB, gibPerSecond float64
}

func (b *bench) warmHTTP(ctx context.Context) ([]row, error) {
	return b.warm(ctx, "plain HTTP", nil)
}

func (b *bench) warmTLS(ctx context.Context) ([]row, error) {
	return b.warm(ctx, "TLS 1.3", b.certificate)
}

// warm measures all servers in turns, so that what else the machine does is
// the same to them.
func (b *bench) warm(ctx context.Context, protocol string, certificate *certificate) ([]row, error) {
	programs := []*program{b.nginx, b.stock, b.ours}
	loads := make([][]load, len(programs))
	err := b.withServers(ctx, programs, launch{remote: b.upstream.url, certificate: certificate}, func(servers []*server) error {
		for _, s := range servers {
			if err := b.warmUp(ctx, s); err != nil {
				return err
			}
		}
		for round := range warmRounds {
			b.logf("warm pulls by %d clients, %s, %d of %d", warmClients, protocol, round+1, warmRounds)
			for i, s := range servers {
				load, err := b.load(ctx, s)
				if err != nil {
					return err
				}
				loads[i] = append(loads[i], load)
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	one := func(what, unit, format string, figure func(load) float64) row {
		r := row{what: fmt.Sprintf("%s, warm, %s, %d clients", what, protocol, warmClients), unit: unit, format: format, reference: b.nginx.name}
		for i, cell := range []*cell{&r.referenceCell, &r.stock, &r.ours} {
			values := make([]float64, 0, warmRounds)
			for _, load := range loads[i] {
				values = append(values, figure(load))
			}
			*cell = median(values)
		}
		return r
	}
	cpu := one("CPU of the server", "s/GiB", "%.3f", func(l load) float64 { return l.cpuPerGiB })
	cpu.limit = atMost("1.0 × stock", cpu.ours.value/cpu.stock.value, 1)
	return []row{cpu, one("Throughput", "GiB/s", "%.2f", func(l load) float64 { return l.gibPerSecond })}, nil
}

// load lets clients pull several times.
func (b *bench) load(ctx context.Context, s *server) (load, error) {
	before, err := s.cpuTime()
	if err != nil {
		return load{}, err
	}
	started := time.Now()
	group, ctx := errgroup.WithContext(ctx)
	for range warmClients {
		group.Go(func() error {
			client := newClient(s.target())
			defer client.close()
			for range warmPulls {
				if _, err := client.pull(ctx); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return load{}, err
	}
	elapsed := time.Since(started)
	after, err := s.cpuTime()
	gib := float64(b.image.size) * warmClients * warmPulls / gibibyte
	return load{cpuPerGiB: (after - before).Seconds() / gib, gibPerSecond: gib / elapsed.Seconds()}, err
}

// memory is about the peaks of fresh processes: with no content, and with all.
func (b *bench) memory(ctx context.Context) ([]row, error) {
	cold, err := b.coldRuns(ctx, many)
	if err != nil {
		return nil, err
	}
	var stock, ours []memory
	for i := range lotsGated.repetitions() {
		b.logf("warm pull by %s, %d of %d", lotsGated, i+1, lotsGated.repetitions())
		for program, peaks := range map[*program]*[]memory{b.stock: &stock, b.ours: &ours} {
			peak, err := b.warmMemory(ctx, program)
			if err != nil {
				return nil, err
			}
			*peaks = append(*peaks, peak)
		}
	}
	rows := memoryRows("Peak memory, cold, "+many.String(), peaks(cold.stock), peaks(cold.ours), 64)
	return append(rows, memoryRows("Peak memory, warm, "+lotsGated.String(), stock, ours, 96)...), nil
}

func peaks(runs []coldRun) []memory {
	result := make([]memory, 0, len(runs))
	for _, run := range runs {
		result = append(result, run.memory)
	}
	return result
}

func memoryRows(what string, stock, ours []memory, most float64) []row {
	one := func(what string, figure func(memory) int64) row {
		mebibytes := func(peaks []memory) cell {
			values := make([]float64, 0, len(peaks))
			for _, peak := range peaks {
				values = append(values, float64(figure(peak))/(1<<20))
			}
			return largest(values)
		}
		return row{what: what, unit: "MiB", format: "%.0f", stock: mebibytes(stock), ours: mebibytes(ours)}
	}
	resident := one(what, func(m memory) int64 { return m.resident })
	resident.limit = atMost(fmt.Sprintf("%.0f MiB", most), resident.ours.value, most)
	return []row{resident, one("… without pages of files", func(m memory) int64 { return m.anonymous })}
}

// warmMemory fills a cache, and measures another process that has its content.
func (b *bench) warmMemory(ctx context.Context, p *program) (peak memory, err error) {
	dir, err := os.MkdirTemp(b.dir, p.name+"-")
	if err != nil {
		return peak, fmt.Errorf("make a folder: %w", err)
	}
	defer func() { _ = os.RemoveAll(dir) }() // close would find out
	l := launch{dir: dir, remote: b.upstream.url}
	if err := b.withServer(ctx, p, l, func(s *server) error { return b.warmUp(ctx, s) }); err != nil {
		return peak, err
	}
	err = b.withServer(ctx, p, l, func(s *server) error {
		memory := s.watchMemory(ctx)
		_, pullErr := lotsGated.pull(ctx, s.target())
		if peak, err = memory(); pullErr != nil {
			return pullErr
		}
		return err
	})
	return peak, err
}
