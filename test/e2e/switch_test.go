// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"context"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	extensionsv1alpha1 "github.com/gardener/gardener/pkg/apis/extensions/v1alpha1"

	"github.com/gardener/gardener-extension-registry-cache/pkg/apis/registry/v1alpha3"
	"github.com/gardener/gardener-extension-registry-cache/test/upstream"
)

// switchOver switches a node, whose image is in the cache already, from the
// existing extension to ours, back and again, while it pulls.
func switchOver(ctx context.Context, registry *upstream.Registry, upstreamHost string, caches ...v1alpha3.RegistryCache) {
	GinkgoHelper()
	// The caches stay what they are, only the nodes get to know them another way.
	status, err := shoot.ApplyCaches(ctx, caches...)
	Expect(err).NotTo(HaveOccurred())
	entry := entryOfBefore(ctx, status, true)
	Expect(shoot.HideFromWebhooks(ctx)).To(Succeed())
	Expect(shoot.UpdateNode(ctx)).Error().NotTo(HaveOccurred())
	Expect(hostsTOML(upstreamHost)).NotTo(BeAnExistingFile())
	applyAsBefore(ctx, upstreamHost, entry)
	expectWarm(pullImage(ctx, registry, upstreamHost, "app", "warm, by node-agent's hosts.toml"))

	By("switching, with the entry of the old webhook")
	stop := observe(ctx, registry, upstreamHost)
	Expect(shoot.ApplyCaches(ctx, caches...)).Error().NotTo(HaveOccurred())
	Expect(shoot.UpdateNode(ctx, entry)).To(HaveField("Spec.CRIConfig.Containerd.Registries", BeEmpty()))
	expectOurHostsTOML(ctx, upstreamHost)
	stop("the switch, with the entry").expectSwitch()
	expectForgotten(upstreamHost)
	expectWarm(pullImage(ctx, registry, upstreamHost, "app", "warm, switched"))

	By("switching back")
	entry = entryOfBefore(ctx, status, false)
	stop = observe(ctx, registry, upstreamHost)
	applyAsBefore(ctx, upstreamHost, entry)
	stop("the way back").expectNoFailure()
	expectWarm(pullImage(ctx, registry, upstreamHost, "app", "warm, switched back"))

	By("switching again, without the entry of the old webhook, while another registry is waited for")
	stop = observe(ctx, registry, upstreamHost)
	Expect(shoot.ApplyCaches(ctx, caches...)).Error().NotTo(HaveOccurred())
	expectTakenOverTwice(ctx, upstreamHost)
	stop("the switch, without the entry, twice").expectSwitch()
	expectForgotten(upstreamHost)
	expectWarm(pullImage(ctx, registry, upstreamHost, "app", "warm, switched again"))
}

// entryOfBefore returns what the existing extension v0.24 adds to an
// OperatingSystemConfig for the first cache of a status.
func entryOfBefore(ctx context.Context, status *v1alpha3.RegistryStatus, readinessProbe bool) func(*extensionsv1alpha1.OperatingSystemConfig) {
	GinkgoHelper()
	const bundleFile = "/etc/containerd/certs.d/ca-bundle.pem"
	secret := &corev1.Secret{}
	Expect(land.SeedClient.Get(ctx, client.ObjectKey{Namespace: shoot.Namespace, Name: *status.CASecretName}, secret)).To(Succeed())
	cache := status.Caches[0]
	return func(osc *extensionsv1alpha1.OperatingSystemConfig) {
		osc.Spec.Files = append(osc.Spec.Files, extensionsv1alpha1.File{
			Path: bundleFile, Permissions: ptr.To[uint32](0o644),
			Content: extensionsv1alpha1.FileContent{Inline: &extensionsv1alpha1.FileContentInline{Data: string(secret.Data["bundle.crt"])}},
		})
		osc.Spec.CRIConfig.Containerd.Registries = append(osc.Spec.CRIConfig.Containerd.Registries, extensionsv1alpha1.RegistryConfig{
			Upstream: cache.Upstream, Server: ptr.To(cache.RemoteURL), ReadinessProbe: ptr.To(readinessProbe),
			Hosts: []extensionsv1alpha1.RegistryHost{{
				URL: cache.Endpoint, CACerts: []string{bundleFile},
				Capabilities: []extensionsv1alpha1.RegistryCapability{extensionsv1alpha1.PullCapability, extensionsv1alpha1.ResolveCapability},
			}},
		})
	}
}

// applyAsBefore has gardener-node-agent configure containerd for a cache.
func applyAsBefore(ctx context.Context, upstreamHost string, entry func(*extensionsv1alpha1.OperatingSystemConfig)) {
	GinkgoHelper()
	Expect(shoot.HideFromWebhooks(ctx)).To(Succeed())
	osc, err := shoot.UpdateNode(ctx, entry)
	Expect(err).NotTo(HaveOccurred())
	Expect(osc.Spec.Units).NotTo(ContainElement(HaveField("Name", hostsUnit)))
	Expect(writerOf(hostsTOML(upstreamHost))).To(Equal("node-agent"))
	Expect(land.AppliedOperatingSystemConfig()).To(HaveField("Spec.CRIConfig.Containerd.Registries", ContainElement(HaveField("Upstream", upstreamHost))))
}

// expectOurHostsTOML expects that soon after hosts.toml was removed, our unit has
// written its own.
func expectOurHostsTOML(ctx context.Context, upstreamHost string) {
	GinkgoHelper()
	Expect(expectHostsTOML(ctx, upstreamHost, true, withdrawnWithin, "that of another was removed")).To(HavePrefix(writtenByUs))
}

// expectForgotten expects that gardener-node-agent knows nothing of an upstream
// any more, so that it will not touch its hosts.toml.
func expectForgotten(upstreamHost string) {
	GinkgoHelper()
	Expect(land.AppliedOperatingSystemConfig()).To(HaveField("Spec.CRIConfig.Containerd.Registries", Not(ContainElement(HaveField("Upstream", upstreamHost)))))
}

// expectTakenOverTwice has gardener-node-agent wait in the middle of the switch,
// for a registry of somebody else that does not answer yet. Until then its
// hosts.toml stands, though our unit runs already. When it is removed by hand, ours
// comes, and goes with its directory when gardener-node-agent goes on.
func expectTakenOverTwice(ctx context.Context, upstreamHost string) {
	GinkgoHelper()
	applied := make(chan error, 1)
	go func() {
		_, err := shoot.UpdateNode(ctx, func(osc *extensionsv1alpha1.OperatingSystemConfig) {
			osc.Spec.CRIConfig.Containerd.Registries = append(osc.Spec.CRIConfig.Containerd.Registries, extensionsv1alpha1.RegistryConfig{
				Upstream: "foreign.test", ReadinessProbe: ptr.To(true),
				Hosts: []extensionsv1alpha1.RegistryHost{{URL: "https://mirror-of-foreign.test"}},
			})
		})
		applied <- err
	}()
	Eventually(land.Node.Run).WithArguments(ctx, "systemctl", "is-active", hostsUnit).Should(Equal("active\n"))
	Consistently(writerOf).WithArguments(hostsTOML(upstreamHost)).WithTimeout(time.Second).Should(Equal("node-agent"))

	Expect(land.Node.Run(ctx, "rm", "/etc/containerd/certs.d/"+upstreamHost+"/hosts.toml")).Error().NotTo(HaveOccurred())
	Expect(land.Node.Run(ctx, "systemctl", "restart", hostsUnit)).Error().NotTo(HaveOccurred())
	expectOurHostsTOML(ctx, upstreamHost)
	Expect(applied).NotTo(Receive())

	startUpstream(ctx, upstream.Speed{}, "", "", "mirror-of-foreign.test")
	Eventually(applied).Should(Receive(Not(HaveOccurred())))
	expectOurHostsTOML(ctx, upstreamHost)
}
