// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"github.com/spf13/pflag"

	"github.com/gardener/gardener-extension-registry-cache/test/charts"
)

// What the charts pass is what the program takes.
func TestArgumentsOfCharts(t *testing.T) {
	for name, release := range charts.Releases() {
		deployment, err := release.Deployment()
		if err != nil {
			t.Fatal(err)
		}
		if deployment == nil {
			continue
		}
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			container := deployment.Spec.Template.Spec.Containers[0]
			subcommands := map[string]options{"controller": newControllerOptions(), "admission": newAdmissionOptions()}
			g.Expect(subcommands).To(HaveKey(container.Args[0]))
			subcommand := subcommands[container.Args[0]]

			flags := pflag.NewFlagSet("", pflag.ContinueOnError)
			subcommand.addFlags(flags)
			g.Expect(flags.Parse(append(container.Args[1:], "--kubeconfig=testdata/kubeconfig.yaml"))).To(Succeed())
			g.Expect(subcommand.complete()).To(Succeed())
			g.Expect(flags.Args()).To(BeEmpty())
		})
	}
}

func TestControllerHasTheValuesOfItsChart(t *testing.T) {
	g := NewWithT(t)
	deployment, err := charts.Releases()["controller-all"].Deployment()
	g.Expect(err).NotTo(HaveOccurred())
	o := newControllerOptions()
	flags := pflag.NewFlagSet("", pflag.ContinueOnError)
	o.addFlags(flags)
	g.Expect(flags.Parse(append(deployment.Spec.Template.Spec.Containers[0].Args[1:], "--kubeconfig=testdata/kubeconfig.yaml"))).To(Succeed())
	g.Expect(o.complete()).To(Succeed())

	g.Expect(o.controller.Completed().MaxConcurrentReconciles).To(Equal(20))
	g.Expect(o.reconciler.Completed().IgnoreOperationAnnotation).To(BeTrue())
	g.Expect(o.healthCheck.Completed().MaxConcurrentReconciles).To(Equal(10))
	g.Expect(o.healthCheck.syncPeriod).To(Equal(90 * time.Second))
	g.Expect(o.heartbeat.Completed().RenewIntervalSeconds).To(BeEquivalentTo(60))
	g.Expect(o.heartbeat.Completed().Namespace).To(Equal(charts.ExtensionNamespace))
	g.Expect(o.manager.Completed().LeaderElectionNamespace).To(Equal(charts.ExtensionNamespace))
	g.Expect(o.general.Completed().GardenerVersion).To(HaveValue(Equal("v1.150.0")))
	g.Expect(o.general.Completed().SelfHostedShootCluster).To(BeTrue())
	server := o.webhooks.Completed().Server
	g.Expect(server.Mode).To(Equal("service"))
	g.Expect(server.Namespace).To(Equal(charts.ExtensionNamespace))
	g.Expect(server.ServicePort).To(Equal(8443))
}
