// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"io"
	"testing"

	. "github.com/onsi/gomega"
	"github.com/spf13/pflag"
)

// The flags by which Gardener's charts and operators steer extensions.
func TestSubcommandsHaveTheUsualFlags(t *testing.T) {
	both := []string{
		"kubeconfig", "leader-election", "leader-election-id", "leader-election-namespace", "metrics-bind-address", "health-bind-address",
		"log-level", "log-format", "disable-controllers", "disable-webhooks", "heartbeat-namespace", "heartbeat-renew-interval-seconds",
		"webhook-config-mode", "webhook-config-url", "webhook-config-namespace", "webhook-config-owner-namespace",
		"webhook-config-service-port", "webhook-config-server-port", "webhook-config-cert-dir",
	}
	for subcommand, own := range map[string][]string{
		"controller": {"max-concurrent-reconciles", "ignore-operation-annotation", "gardener-version", "self-hosted-shoot-cluster", "extension-classes", "healthcheck-max-concurrent-reconciles", "healthcheck-sync-period"},
		"admission":  {"runtime-kubeconfig"},
	} {
		t.Run(subcommand, func(t *testing.T) {
			g := NewWithT(t)
			command, _, err := newCommand().Find([]string{subcommand})
			g.Expect(err).NotTo(HaveOccurred())
			for _, name := range append(own, both...) {
				g.Expect(command.Flags().Lookup(name)).NotTo(BeNil(), name)
			}
		})
	}
}

func TestAdmissionDefaults(t *testing.T) {
	g := NewWithT(t)
	t.Setenv("LEADER_ELECTION_NAMESPACE", "garden")
	t.Setenv("WEBHOOK_CONFIG_NAMESPACE", "garden")
	t.Setenv("GARDEN_KUBECONFIG", "testdata/kubeconfig.yaml")
	options := newAdmissionOptions()
	options.addFlags(pflag.NewFlagSet("", pflag.ContinueOnError))
	g.Expect(options.complete()).To(Succeed())

	g.Expect(options.garden.Completed().Config.Host).To(Equal("https://127.0.0.1:1"))
	g.Expect(options.manager.Completed().LeaderElectionID).To(Equal("admission-registry-cache-leader-election"))
	g.Expect(options.manager.Completed().LeaderElectionNamespace).To(Equal("garden"))
	g.Expect(options.heartbeat.Completed().Namespace).To(Equal("garden"))
	g.Expect(options.webhooks.Completed().Server.OwnerNamespace).To(Equal("garden"))
}

func TestWrongArguments(t *testing.T) {
	for name, test := range map[string]struct {
		args     []string
		expected string
	}{
		"unknown command":    {[]string{"admit"}, `unknown command "admit"`},
		"unknown flag":       {[]string{"controller", "--foo"}, "unknown flag: --foo"},
		"argument":           {[]string{"controller", "now"}, `unknown command "now"`},
		"log level":          {[]string{"controller", "--kubeconfig=testdata/kubeconfig.yaml", "--log-level=loud"}, "invalid --log-level: loud"},
		"heartbeat interval": {[]string{"controller", "--kubeconfig=testdata/kubeconfig.yaml", "--heartbeat-renew-interval-seconds=0"}, "must be greater than 0"},
		"sync period":        {[]string{"controller", "--kubeconfig=testdata/kubeconfig.yaml", "--healthcheck-sync-period=0s"}, "--healthcheck-sync-period must be greater than 0"},
		"unknown webhook":    {[]string{"controller", "--kubeconfig=testdata/kubeconfig.yaml", "--disable-webhooks=foo"}, `unknown webhook "foo"`},
		"unknown controller": {[]string{"controller", "--kubeconfig=testdata/kubeconfig.yaml", "--disable-controllers=foo"}, `unknown controller "foo"`},
		"missing kubeconfig": {[]string{"controller", "--kubeconfig=testdata/missing.yaml"}, "testdata/missing.yaml"},

		"argument of admission":           {[]string{"admission", "now"}, `unknown command "now"`},
		"flag of the controller":          {[]string{"admission", "--extension-classes=shoot"}, "unknown flag: --extension-classes"},
		"heartbeat interval of admission": {[]string{"admission", "--kubeconfig=testdata/kubeconfig.yaml", "--heartbeat-renew-interval-seconds=0"}, "must be greater than 0"},
		"unknown webhook of admission":    {[]string{"admission", "--kubeconfig=testdata/kubeconfig.yaml", "--disable-webhooks=foo"}, `unknown webhook "foo"`},
		"not in a cluster":                {[]string{"admission", "--kubeconfig=testdata/kubeconfig.yaml"}, "find the runtime cluster, without --runtime-kubeconfig: "},
		"missing runtime kubeconfig":      {[]string{"admission", "--kubeconfig=testdata/kubeconfig.yaml", "--runtime-kubeconfig=testdata/missing.yaml"}, "read --runtime-kubeconfig: "},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			command := newCommand()
			command.SetArgs(test.args)
			command.SetOut(io.Discard)
			command.SetErr(io.Discard)

			g.Expect(command.ExecuteContext(t.Context())).To(MatchError(ContainSubstring(test.expected)))
		})
	}
}
