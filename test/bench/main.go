// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

// Command bench compares our cache with a stock distribution registry that is
// configured as a cache of the same slow upstream, and with nginx where that can
// do the same. It prints a table in Markdown.
//
// The caches are processes of their own, so that their CPU time and memory can
// be told apart; upstream and clients are part of this process. An argument is a
// regular expression of the names of the experiments to run: see experiments.
//
// Whatever is about the insides of either cache does not belong here: it knows
// them by their configuration files and by HTTP.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"regexp"
	"strings"
	"syscall"
	"time"
)

// timeout is several times what all experiments take, for machines that are slow.
const timeout = 30 * time.Minute

// options are what the command line says.
type options struct {
	cache, cacheVersion, stock, nginx string
	// results is the file for the table, if it is one of all experiments.
	results string
	only    *regexp.Regexp
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "bench: %v\n", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) (err error) {
	options, err := parse(args, stderr)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	head, err := describe(ctx, options)
	if err != nil {
		return err
	}
	bench, err := newBench(ctx, options, stderr)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, bench.close()) }()

	started := time.Now()
	rows, err := bench.run(ctx, options.only)
	if len(rows) == 0 {
		return err
	}
	head = append(head, "Duration: "+time.Since(started).Round(time.Second).String())
	report := markdown(head, rows)
	if _, printErr := io.WriteString(stdout, report); printErr != nil {
		return errors.Join(err, fmt.Errorf("print results: %w", printErr))
	}
	if err != nil || options.only != nil || options.results == "" {
		return err
	}
	if err := os.WriteFile(options.results, []byte(report), 0o644); err != nil { //nolint:gosec // a file of the repository, which all may read
		return fmt.Errorf("write results: %w", err)
	}
	return nil
}

func parse(args []string, stderr io.Writer) (options, error) {
	var o options
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&o.cache, "cache", "", "our cache, a `FILE`")
	flags.StringVar(&o.cacheVersion, "cache-version", "", "`TEXT` that tells from what our cache was built")
	flags.StringVar(&o.stock, "stock", "", "the stock registry, a `FILE`")
	flags.StringVar(&o.nginx, "nginx", "", "nginx, a `FILE`")
	flags.StringVar(&o.results, "results", "", "`FILE` to write the table to, if no experiments are chosen")
	flags.Usage = func() {
		_, _ = fmt.Fprintf(stderr, "usage: bench -cache FILE -stock FILE -nginx FILE [REGEXP]\nREGEXP chooses experiments: %s\n", strings.Join(experimentNames(), ", "))
		flags.PrintDefaults()
	}
	if err := flags.Parse(args); err != nil {
		return o, fmt.Errorf("parse arguments: %w", err)
	}
	if o.cache == "" || o.stock == "" || o.nginx == "" || flags.NArg() > 1 {
		flags.Usage()
		return o, errors.New("three programs, and at most one regular expression, are needed")
	}
	if flags.NArg() == 0 || flags.Arg(0) == "" {
		return o, nil
	}
	only, err := regexp.Compile(flags.Arg(0))
	if err != nil {
		return o, fmt.Errorf("choose experiments: %w", err)
	}
	o.only = only
	return o, nil
}
