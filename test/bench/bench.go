// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"time"
)

// experiment is a part of the bench that can be chosen by its name.
type experiment struct {
	name string
	run  func(*bench, context.Context) ([]row, error)
}

// experiments are in the order of the table.
func experiments() []experiment {
	return []experiment{
		{"copies", (*bench).copies},
		{"cold-single", (*bench).coldSingle},
		{"cold-many", (*bench).coldMany},
		{"first-byte", (*bench).firstByte},
		{"requests", (*bench).requests},
		{"memory", (*bench).memory},
		{"warm-http", (*bench).warmHTTP},
		{"warm-tls", (*bench).warmTLS},
		{"blackhole", (*bench).blackhole},
	}
}

func experimentNames() []string {
	all := experiments()
	names := make([]string, 0, len(all))
	for _, e := range all {
		names = append(names, e.name)
	}
	return names
}

// bench is what the experiments share.
type bench struct {
	// dir is the folder of all files; close removes it.
	dir                string
	progress           io.Writer
	started            time.Time
	image              *image
	upstream           *upstream
	certificate        *certificate
	ours, stock, nginx *program
	// colds are the cold pulls so far, which several experiments look at.
	colds map[crowd]coldRuns
}

func newBench(ctx context.Context, o options, progress io.Writer) (b *bench, err error) {
	b = &bench{progress: progress, started: time.Now(), colds: map[crowd]coldRuns{}}
	// Not below /tmp, which may be memory.
	folder := os.Getenv("TMPDIR")
	if folder == "" {
		folder = "/var/tmp"
	}
	if b.dir, err = os.MkdirTemp(folder, "registry-cache-bench-"); err != nil {
		return nil, fmt.Errorf("make a folder: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, b.close())
		}
	}()
	if b.certificate, err = newCertificate(b.dir); err != nil {
		return nil, err
	}
	if b.image, err = newImage(layerCount, layerSize); err != nil {
		return nil, err
	}
	files := filepath.Join(b.dir, "files")
	if err := writeImage(files, b.image); err != nil {
		return nil, err
	}
	b.ours, b.stock, b.nginx = ourCache(o.cache), stockRegistry(o.stock), nginxServer(o.nginx, files, b.image)
	b.upstream, err = startUpstream(ctx, b.image)
	return b, err
}

func (b *bench) close() error {
	var err error
	if b.upstream != nil {
		err = b.upstream.close()
	}
	return errors.Join(err, os.RemoveAll(b.dir))
}

// run runs the chosen experiments, or all if only is nil. The others still run
// when one has failed.
func (b *bench) run(ctx context.Context, only *regexp.Regexp) ([]row, error) {
	var rows []row
	var errs []error
	for _, e := range experiments() {
		if only != nil && !only.MatchString(e.name) {
			continue
		}
		more, err := e.run(b, ctx)
		switch {
		case ctx.Err() != nil:
			return nil, fmt.Errorf("%s: %w", e.name, context.Cause(ctx))
		case err != nil:
			errs = append(errs, fmt.Errorf("%s: %w", e.name, err))
			b.logf("%v", errs[len(errs)-1])
		}
		rows = append(rows, more...)
	}
	if len(rows) == 0 && len(errs) == 0 {
		return nil, fmt.Errorf("no experiment is named like %s", only)
	}
	return rows, errors.Join(errs...)
}

func (b *bench) logf(format string, arguments ...any) {
	_, _ = fmt.Fprintf(b.progress, "%4.0f s  %s\n", time.Since(b.started).Seconds(), fmt.Sprintf(format, arguments...))
}

// withServers starts servers, and stops them when use returns. Each has a folder
// of its own, which goes with it, unless launch has one.
func (b *bench) withServers(ctx context.Context, programs []*program, l launch, use func([]*server) error) (err error) {
	var servers []*server
	defer func() {
		for _, s := range servers {
			err = s.explain(err)
			if stopErr := s.stop(); stopErr != nil {
				b.logf("%v", stopErr) // no reason to throw away what was measured
			}
			if l.dir == "" {
				err = errors.Join(err, os.RemoveAll(s.dir))
			}
		}
	}()
	for _, p := range programs {
		own := l
		if own.dir == "" {
			if own.dir, err = os.MkdirTemp(b.dir, p.name+"-"); err != nil {
				return fmt.Errorf("make a folder: %w", err)
			}
		}
		s, err := p.start(ctx, own)
		if err != nil {
			return err
		}
		servers = append(servers, s)
	}
	return use(servers)
}

func (b *bench) withServer(ctx context.Context, p *program, l launch, use func(*server) error) error {
	return b.withServers(ctx, []*program{p}, l, func(servers []*server) error { return use(servers[0]) })
}

// warmUp pulls until the upstream is not asked for blobs any more.
func (b *bench) warmUp(ctx context.Context, s *server) error {
	const tries = 10
	for range tries {
		b.upstream.reset()
		if _, err := (crowd{clients: 1}).pull(ctx, s.target()); err != nil {
			return err
		}
		counts, err := b.upstream.settled(ctx)
		if err != nil {
			return err
		}
		if counts.blobBytes == 0 {
			return nil
		}
	}
	return fmt.Errorf("blobs are fetched from the upstream after %d pulls still", tries)
}
