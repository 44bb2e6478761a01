// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"io"
	"testing"

	. "github.com/onsi/gomega"
)

// The flags by which Gardener's charts and operators steer extensions.
func TestControllerHasTheUsualFlags(t *testing.T) {
	g := NewWithT(t)
	command, _, err := newCommand().Find([]string{"controller"})
	g.Expect(err).NotTo(HaveOccurred())

	for _, name := range []string{
		"kubeconfig", "leader-election", "leader-election-id", "leader-election-namespace", "metrics-bind-address", "health-bind-address",
		"log-level", "log-format", "max-concurrent-reconciles", "disable-controllers", "disable-webhooks", "ignore-operation-annotation",
		"heartbeat-namespace", "heartbeat-renew-interval-seconds", "gardener-version", "self-hosted-shoot-cluster", "extension-classes",
		"webhook-config-mode", "webhook-config-url", "webhook-config-namespace", "webhook-config-service-port", "webhook-config-server-port", "webhook-config-cert-dir",
	} {
		g.Expect(command.Flags().Lookup(name)).NotTo(BeNil(), name)
	}
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
		"unknown webhook":    {[]string{"controller", "--kubeconfig=testdata/kubeconfig.yaml", "--disable-webhooks=foo"}, `unknown webhook "foo"`},
		"unknown controller": {[]string{"controller", "--kubeconfig=testdata/kubeconfig.yaml", "--disable-controllers=foo"}, `unknown controller "foo"`},
		"missing kubeconfig": {[]string{"controller", "--kubeconfig=testdata/missing.yaml"}, "testdata/missing.yaml"},
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
