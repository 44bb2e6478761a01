// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"context"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/gardener/gardener-extension-registry-cache/pkg/apis/registry/v1alpha3"
	"github.com/gardener/gardener-extension-registry-cache/test/upstream"
)

var _ = Describe("The unit on nodes", func() {
	It("costs next to nothing, and is switched off on a node for good", func(ctx SpecContext) {
		var caches []v1alpha3.RegistryCache
		for i := range 5 {
			host := fmt.Sprintf("unit%d.test", i)
			startUpstream(ctx, upstream.Speed{}, "", "", host)
			caches = append(caches, cache(host))
		}
		applyCaches(ctx, caches...)
		Expect(land.Node.Run(ctx, "systemctl", "show", "--property=NoNewPrivileges,ProtectSystem", hostsUnit)).To(
			And(ContainSubstring("NoNewPrivileges=yes"), ContainSubstring("ProtectSystem=strict")))

		By("measuring it, with rounds ten times as often, as the kernel counts in steps of 10 ms")
		const period = 30 * time.Second
		const dropIn = "/run/systemd/system/" + hostsUnit + ".d/interval.conf"
		writeOnNode(ctx, dropIn, "[Service]\nEnvironment=REGISTRY_HOSTS_INTERVAL=1\n")
		restartUnit(ctx)
		expectHostsTOML(ctx, "unit4.test", true, restoredWithin, "the restart of the unit")
		before := cpuTime(ctx)
		select {
		case <-time.After(period):
		case <-ctx.Done():
		}
		round := (cpuTime(ctx) - before) / time.Duration(period.Seconds())
		Expect(round).To(BeNumerically(">", 0))
		AddReportEntry("Unit: idle with five caches", ReportEntryVisibilityAlways, fmt.Sprintf(
			"%.1f ms of CPU time a round, so %.2f %% of a core at one each 10 s", 1000*round.Seconds(), 100*round.Seconds()/10))
		Expect(land.Node.Run(ctx, "rm", dropIn)).Error().NotTo(HaveOccurred())
		restartUnit(ctx)
		// Else that the unit was stopped would be taken for the effect of the switch.
		expectHostsTOML(ctx, "unit0.test", true, restoredWithin, "the restart of the unit")

		By("switching it off, and having gardener-node-agent change its files")
		Expect(land.Node.Run(ctx, "touch", "/etc/containerd/registry-hosts-off")).Error().NotTo(HaveOccurred())
		DeferCleanup(func(ctx SpecContext) {
			Expect(land.Node.Run(ctx, "rm", "-f", "/etc/containerd/registry-hosts-off")).Error().NotTo(HaveOccurred())
		})
		expectHostsTOML(ctx, "unit0.test", false, withdrawnWithin, "it was switched off")
		Expect(shoot.ApplyCaches(ctx, caches[:2]...)).Error().NotTo(HaveOccurred())
		Expect(shoot.UpdateNode(ctx)).Error().NotTo(HaveOccurred())
		Expect(land.Node.Path("/var/lib/registry-hosts/unit4.test/10-cache.toml")).NotTo(BeAnExistingFile())
		Expect(land.Node.Run(ctx, "systemctl", "is-active", hostsUnit)).To(Equal("active\n"))
		hostsTOMLs := func() ([]string, error) { return filepath.Glob(land.Node.Path("/etc/containerd/certs.d/unit*")) }
		Consistently(hostsTOMLs).WithTimeout(3 * time.Second).Should(BeEmpty())

		By("switching it on")
		Expect(land.Node.Run(ctx, "rm", "/etc/containerd/registry-hosts-off")).Error().NotTo(HaveOccurred())
		expectHostsTOML(ctx, "unit0.test", true, withdrawnWithin, "it was switched on")
		expectHostsTOML(ctx, "unit1.test", true, withdrawnWithin, "it was switched on")
	}, SpecTimeout(5*time.Minute))

	It("ends what containerd waits for at a cache that is lost in the middle of a pull", func(ctx SpecContext) {
		const upstreamHost = "lost.test"
		registry := startUpstream(ctx, upstream.Speed{Delay: 20 * time.Millisecond, BytesPerSecond: 1 << 20}, "", "", upstreamHost)
		pushImage(ctx, registry, "app")
		applyCaches(ctx, cache(upstreamHost))

		clients := recordClients(registry)
		pod, err := land.StartPod(ctx, upstreamHost+"/app:v1")
		Expect(err).NotTo(HaveOccurred())
		Eventually(func() int64 { return registry.Counts().BlobBytes }).Should(BeNumerically(">", 1<<20))
		DeferCleanup(land.CloseBlackHole)
		Expect(land.OpenBlackHole(ctx, upstreamHost)).To(Succeed())
		Expect(clients.containerd.Load()).To(BeZero(), "until now all came through the cache")

		opened := time.Now()
		Eventually(land.Node.Run).WithArguments(ctx, "journalctl", "--no-pager", "--output=cat", "--unit="+hostsUnit).
			Should(ContainSubstring("ended connections to it"))
		ended := time.Since(opened)
		_, err = land.AwaitPod(ctx, pod)
		Expect(err).NotTo(HaveOccurred())
		AddReportEntry("Lost cache: in the middle of a pull", ReportEntryVisibilityAlways, fmt.Sprintf(
			"connections ended after %.1f s, the pod runs after %.1f s", ended.Seconds(), time.Since(opened).Seconds()))
		events, err := land.Events(ctx, pod)
		Expect(err).NotTo(HaveOccurred())
		AddReportEntry("Lost cache: events of the pod", ReportEntryVisibilityAlways, strings.Join(events, "\n"))
		Expect(clients.containerd.Load()).NotTo(BeZero(), "containerd has gone to the upstream")
		Expect(land.RemovePod(ctx, pod)).To(Succeed())
	}, SpecTimeout(8*time.Minute))
})

// writeOnNode writes a file on the node, with the folder it is in.
func writeOnNode(ctx context.Context, path, content string) {
	GinkgoHelper()
	Expect(land.Node.Run(ctx, "sh", "-c", `mkdir -p "${1%/*}" && printf %s "$2" >"$1"`, "sh", path, content)).Error().NotTo(HaveOccurred())
}

// restartUnit restarts the unit with all that has been written for it.
func restartUnit(ctx context.Context) {
	GinkgoHelper()
	Expect(land.Node.Run(ctx, "systemctl", "daemon-reload")).Error().NotTo(HaveOccurred())
	Expect(land.Node.Run(ctx, "systemctl", "restart", hostsUnit)).Error().NotTo(HaveOccurred())
}

// cpuTime is the CPU time that the unit's script has used since it started, and
// all that it has run. systemd itself does not account for it without a
// controller of control groups that not every machine has.
func cpuTime(ctx context.Context) time.Duration {
	GinkgoHelper()
	pid, err := land.Node.Run(ctx, "systemctl", "show", "--property=MainPID", "--value", hostsUnit)
	Expect(err).NotTo(HaveOccurred())
	stat, err := land.Node.Run(ctx, "cat", "/proc/"+strings.TrimSpace(pid)+"/stat")
	Expect(err).NotTo(HaveOccurred())
	// The name, in parentheses, is the second field. Four times are from the 14th
	// on: of the process and of its children, in user mode and in the kernel.
	_, fields, found := strings.Cut(stat, ") ")
	Expect(found).To(BeTrue(), stat)
	var ticks int64
	for _, field := range strings.Fields(fields)[11:15] {
		value, err := strconv.ParseInt(field, 10, 64)
		Expect(err).NotTo(HaveOccurred())
		ticks += value
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}
