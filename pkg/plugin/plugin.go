// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

// Package plugin is the kubectl plugin `kubectl registry-cache`: what a Shoot owner
// sees of the caches, and asks about them, with the rights of their own kubeconfig.
// It reads, and changes nothing. How a cache works is not its business.
package plugin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/yaml"
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
	case err == nil:
		return ExitOK
	case errors.Is(err, context.Canceled) && ctx.Err() != nil:
		err = errors.New("interrupted")
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
	cmd.SetFlagErrorFunc(explainFlagError)
	flags := genericclioptions.NewConfigFlags(true)
	flags.Namespace = nil // there is one namespace that caches are in
	// What is asked for is not kept, and is small.
	flags.CacheDir, flags.DisableCompression = nil, nil
	flags.Timeout = ptr.To(requestTimeout.String())
	flags.AddFlags(cmd.PersistentFlags())
	cmd.AddCommand(newStatusCommand(flags, streams), newTopCommand(flags, streams), newImagesCommand(flags, streams),
		newExplainCommand(flags, streams), newLintCommand(streams))
	return cmd
}

// explainFlagError says where help is about a flag that is wrong.
func explainFlagError(cmd *cobra.Command, err error) error {
	var unknown *pflag.NotExistError
	if errors.As(err, &unknown) && (unknown.GetSpecifiedName() == "n" || unknown.GetSpecifiedName() == "namespace") {
		return fmt.Errorf("%w: caches are in the namespace %s only", err, namespace)
	}
	return fmt.Errorf("%w: see %s --help", err, cmd.CommandPath())
}

// arguments refuses another number of arguments than from least to most, 0: any, with
// what is to be there instead.
func arguments(least, most int, wanted string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) < least || most > 0 && len(args) > most {
			return fmt.Errorf("%s takes %s: see %s --help", cmd.CommandPath(), wanted, cmd.CommandPath())
		}
		return nil
	}
}

// output is the flag that chooses how a command prints all that it knows. Empty, it
// prints a table.
type output struct{ format string }

// String returns the format.
func (o *output) String() string { return o.format }

// Type returns what help shows as the value.
func (o *output) Type() string { return "json|yaml" }

// Set takes a format.
func (o *output) Set(format string) error {
	if format != "json" && format != "yaml" {
		return errors.New("must be json or yaml")
	}
	o.format = format
	return nil
}

func (o *output) addTo(cmd *cobra.Command) {
	cmd.Flags().VarP(o, "output", "o", "print all that is known; the default is a table")
	if err := cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"json", "yaml"}, cobra.ShellCompDirectiveNoFileComp)); err != nil {
		panic(err) // there is no such flag
	}
}

// print prints a value in the format.
func (o *output) print(out io.Writer, value any) error {
	encoded, err := json.MarshalIndent(value, "", "  ")
	if err == nil && o.format == "yaml" {
		encoded, err = yaml.JSONToYAML(encoded)
	} else {
		encoded = append(encoded, '\n')
	}
	if err != nil {
		return fmt.Errorf("encode output: %w", err)
	}
	_, err = out.Write(encoded)
	return err
}
