// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

// Command registry-cache is the pull-through cache of one upstream registry.
// Flags, signals and the exit code are its own; everything else is in
// pkg/cacheserver.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"

	"github.com/gardener/gardener-extension-registry-cache/pkg/apis/config/v1alpha1"
	"github.com/gardener/gardener-extension-registry-cache/pkg/cacheserver"
)

// version is stamped by the linker: -ldflags "-X main.version=v1.2.3". Unset,
// the version is what Go knows about the build.
var version string

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	// A second signal ends the process at once.
	context.AfterFunc(ctx, stop)

	if err := run(ctx, os.Args[1:], os.Stdout, os.Stderr); err != nil {
		// Joined errors are told apart by line breaks, log lines are not.
		fmt.Fprintf(os.Stderr, "registry-cache: %s\n", strings.ReplaceAll(err.Error(), "\n", "; "))
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	flags := flag.NewFlagSet("registry-cache", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	configFile := flags.String("config", "", "`FILE` with the CacheConfiguration")
	showVersion := flags.Bool("version", false, "print the version and exit")
	err := flags.Parse(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		flags.SetOutput(stdout)
		_, err := fmt.Fprintln(stdout, "Usage: registry-cache --config FILE")
		flags.PrintDefaults()
		return err
	case err != nil:
		return err
	case flags.NArg() > 0:
		return fmt.Errorf("unexpected argument %q", flags.Arg(0))
	case *showVersion:
		_, err := fmt.Fprintln(stdout, buildVersion())
		return err
	case *configFile == "":
		return errors.New("flag --config is required")
	}

	config, err := readConfig(*configFile)
	if err != nil {
		return fmt.Errorf("configuration %s: %w", *configFile, err)
	}
	logger := cacheserver.NewLogger(config.Log, stderr)
	server, err := cacheserver.New(config, logger, cacheserver.Options{Version: buildVersion()}) //nolint:contextcheck // what New starts ends with Run, which ctx ends
	if err != nil {
		return fmt.Errorf("configuration %s: %w", *configFile, err)
	}
	return server.Run(ctx)
}

func readConfig(file string) (*v1alpha1.CacheConfiguration, error) {
	raw, err := os.ReadFile(file) //nolint:gosec // the file is the operator's to choose
	if err != nil {
		return nil, err
	}
	return v1alpha1.DecodeCacheConfiguration(raw)
}

func buildVersion() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "unknown"
}
