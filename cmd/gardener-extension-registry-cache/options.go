// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"os"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	"sigs.k8s.io/controller-runtime/pkg/manager"

	controllercmd "github.com/gardener/gardener/extensions/pkg/controller/cmd"
	"github.com/gardener/gardener/extensions/pkg/controller/heartbeat"
	heartbeatcmd "github.com/gardener/gardener/extensions/pkg/controller/heartbeat/cmd"
	webhookcmd "github.com/gardener/gardener/extensions/pkg/webhook/cmd"
	gardenerhealthz "github.com/gardener/gardener/pkg/healthz"
)

// This file has what the subcommands have in common.

// options are the flags of a subcommand, and what it runs with them.
type options interface {
	addFlags(flags *pflag.FlagSet)
	complete() error
	run(ctx context.Context) error
}

func newSubcommand(name, short string, o options) *cobra.Command {
	cmd := &cobra.Command{
		Use:   name,
		Short: short,
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := o.complete(); err != nil {
				return err
			}
			return o.run(cmd.Context())
		},
	}
	o.addFlags(cmd.Flags())
	return cmd
}

func newManagerOptions(name string) *controllercmd.ManagerOptions {
	return &controllercmd.ManagerOptions{
		LeaderElection:          true,
		LeaderElectionID:        controllercmd.LeaderElectionNameID(name),
		LeaderElectionNamespace: os.Getenv("LEADER_ELECTION_NAMESPACE"),
		WebhookServerPort:       443,
		WebhookCertDir:          "/tmp/" + name + "-cert",
	}
}

func newHeartbeatOptions(name string) *heartbeatcmd.Options {
	return &heartbeatcmd.Options{
		ExtensionName:        name,
		RenewIntervalSeconds: 30,
		Namespace:            os.Getenv("LEADER_ELECTION_NAMESPACE"),
	}
}

func newWebhookServerOptions() *webhookcmd.ServerOptions {
	return &webhookcmd.ServerOptions{Namespace: os.Getenv("WEBHOOK_CONFIG_NAMESPACE")}
}

func complete(all controllercmd.OptionAggregator, heartbeat *heartbeatcmd.Options) error {
	if err := all.Complete(); err != nil {
		return fmt.Errorf("complete options: %w", err)
	}
	if err := heartbeat.Validate(); err != nil {
		return fmt.Errorf("validate options: %w", err)
	}
	return nil
}

// addHeartbeat adds the controller that says by a Lease that the program lives.
func addHeartbeat(mgr manager.Manager, options *heartbeatcmd.Options) error {
	config := options.Completed()
	return heartbeat.Add(mgr, heartbeat.AddArgs{
		ExtensionName:        config.ExtensionName,
		Namespace:            config.Namespace,
		RenewIntervalSeconds: config.RenewIntervalSeconds,
		Clock:                clock.RealClock{},
	})
}

func addHealthChecks(mgr manager.Manager) error {
	log := mgr.GetLogger()
	for _, err := range []error{
		mgr.AddHealthzCheck("ping", healthz.Ping),
		mgr.AddHealthzCheck("informer-sync", gardenerhealthz.NewCacheSyncHealthzWithDeadline(log, clock.RealClock{}, mgr.GetCache(), gardenerhealthz.DefaultCacheSyncDeadline)),
		mgr.AddReadyzCheck("informer-sync", gardenerhealthz.NewCacheSyncHealthz(mgr.GetCache())),
		mgr.AddReadyzCheck("webhook-server", mgr.GetWebhookServer().StartedChecker()),
	} {
		if err != nil {
			return fmt.Errorf("add health check: %w", err)
		}
	}
	return nil
}
