// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

// Package plugin is the kubectl plugin `kubectl registry-cache`: what a Shoot owner
// sees of the caches, and asks about them, with the rights of their own kubeconfig.
// It reads, and changes nothing. How a cache works is not its business.
package plugin

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericclioptions"
)

// The exit codes of all commands.
const (
	// ExitOK says that all is well.
	ExitOK = 0
	// ExitProblems says that lint found problems.
	ExitProblems = 1
	// ExitFailed says that the command could not do its work: wrong arguments, an
	// unreadable file, an API server that does not answer, a missing right.
	ExitFailed = 2
)

// Streams are where a command reads and writes. Out is coloured only if it is a
// terminal.
type Streams struct {
	In       io.Reader
	Out, Err io.Writer
}

// errProblems says that a command did its work and found problems, which it has
// printed already.
var errProblems = errors.New("problems were found")

// Run runs the plugin with its arguments until it is done or ctx ends, and returns its
// exit code.
func Run(ctx context.Context, version string, args []string, streams Streams) int {
	cmd := newCommand(version, streams) //nolint:contextcheck // cobra hands it to the commands
	cmd.SetArgs(args)
	err := cmd.ExecuteContext(ctx)
	switch {
	case err == nil, errors.Is(err, context.Canceled) && ctx.Err() != nil:
		return ExitOK
	case errors.Is(err, errProblems):
		return ExitProblems
	}
	_, _ = fmt.Fprintln(streams.Err, "Error:", err)
	return ExitFailed
}

func newCommand(version string, streams Streams) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "kubectl-registry_cache",
		Short: "See and understand the registry caches of a Gardener Shoot",
		Long: `See and understand the registry caches of a Gardener Shoot.

All commands but lint read from the cluster of the current kubeconfig, for instance
the one that "gardenctl target --shoot" has set, and change nothing.

Exit codes: 0 all is well; 1 lint found problems; 2 the command could not do its work.`,
		Example: `  # How are the caches?
  kubectl registry-cache status

  # Will a Shoot with these caches be accepted?
  kubectl registry-cache lint shoot.yaml

  # Where do nodes get this image from?
  kubectl registry-cache explain-pull nginx:1.29`,
		Version:       version,
		SilenceErrors: true,
		SilenceUsage:  true,
		Annotations:   map[string]string{cobra.CommandDisplayNameAnnotation: "kubectl registry-cache"},
	}
	cmd.SetIn(streams.In)
	cmd.SetOut(streams.Out)
	cmd.SetErr(streams.Err)
	flags := genericclioptions.NewConfigFlags(true)
	flags.Namespace = nil // there is one namespace that caches are in
	for _, sub := range []*cobra.Command{newStatusCommand(flags, streams), newTopCommand(flags, streams), newImagesCommand(flags, streams), newExplainCommand(flags, streams)} {
		flags.AddFlags(sub.Flags())
		cmd.AddCommand(sub)
	}
	cmd.AddCommand(newLintCommand(streams))
	return cmd
}
