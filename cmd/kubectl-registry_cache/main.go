// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

// Command kubectl-registry_cache is the kubectl plugin `kubectl registry-cache`.
// Signals and the exit code are its own; everything else is in pkg/plugin.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/gardener/gardener-extension-registry-cache/pkg/plugin"
)

// version is set by the linker.
var version = "v0.0.0-dev"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	code := plugin.Run(ctx, version, os.Args[1:], plugin.Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr})
	stop()
	os.Exit(code)
}
