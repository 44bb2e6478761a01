// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	gardencorev1beta1 "github.com/gardener/gardener/pkg/apis/core/v1beta1"
	extensionsv1alpha1 "github.com/gardener/gardener/pkg/apis/extensions/v1alpha1"
	"k8s.io/client-go/util/cert"

	"github.com/gardener/gardener-extension-registry-cache/pkg/apis/registry/v1alpha3"
	"github.com/gardener/gardener-extension-registry-cache/test/upstream"
)

const (
	// slack is for a machine that is busy with another suite: a probe that gets no answer
	// in time counts as failed, and is repeated. How long it took is in the report.
	slack = 10 * time.Second
	// withdrawnWithin is how long a hosts.toml may stay that names a host which is
	// not reached. restoredWithin is how long it may be missing when the host is reached.
	withdrawnWithin = 15*time.Second + slack
	restoredWithin  = 5*time.Second + slack

	hostsUnit     = "registry-hosts.service"
	kubeProxyUnit = "kube-proxy.service"
)

// far is how fast a registry is at the other end of the internet: a pull from it
// takes long enough for figures to mean something.
var far = upstream.Speed{Delay: 20 * time.Millisecond, BytesPerSecond: 4 << 20}

// Each spec finds the caches running and the node pulling through them, and
// leaves them so.
var _ = Describe("A node", Ordered, ContinueOnFailure, func() {
	const upstreamHost, otherHost = "node.test", "other-node.test"
	var registry *upstream.Registry

	BeforeAll(func(ctx SpecContext) {
		registry = startUpstream(ctx, far, "", "", upstreamHost)
		pushImage(ctx, registry, "app")
		pullDirect(ctx, registry, upstreamHost, "app", "direct")
		startUpstream(ctx, upstream.Speed{}, "", "", otherHost)
		applyCaches(ctx, cache(upstreamHost), cache(otherHost))
		expectCold(pullImage(ctx, registry, upstreamHost, "app", "cold"))
		expectWarm(pull(ctx, registry, upstreamHost, "app", "warm, for a pod"))
	}, NodeTimeout(3*time.Minute))

	It("pulls directly while packets to the cache get lost", func(ctx SpecContext) {
		DeferCleanup(land.CloseBlackHole)
		Expect(land.OpenBlackHole(ctx, upstreamHost)).To(Succeed())
		opened := time.Now()
		Expect(hostsTOML(upstreamHost)).To(BeAnExistingFile())
		expectDirect(pullImage(ctx, registry, upstreamHost, "app", "black hole, at once"))
		expectHostsTOML(ctx, upstreamHost, false, withdrawnWithin-time.Since(opened), "the pull")
		AddReportEntry("Black hole: withdrawn", ReportEntryVisibilityAlways, fmt.Sprintf("%.1f s after it opened", time.Since(opened).Seconds()))
		expectDirect(pullImage(ctx, registry, upstreamHost, "app", "black hole, withdrawn"))

		By("closing the black hole")
		Expect(land.CloseBlackHole(ctx)).To(Succeed())
		expectHostsTOML(ctx, upstreamHost, true, restoredWithin, "the black hole closed")
		expectWarm(pullImage(ctx, registry, upstreamHost, "app", "warm, packets get through again"))
	}, SpecTimeout(2*time.Minute))

	It("pulls on whatever of it is restarted or stopped", func(ctx SpecContext) {
		restarts := func(ctx context.Context) (string, error) {
			return land.Node.Run(ctx, "systemctl", "show", "--property=NRestarts", "--value", hostsUnit)
		}
		Expect(land.Node.Run(ctx, "systemctl", "restart", "containerd.service")).Error().NotTo(HaveOccurred())
		Expect(hostsTOML(upstreamHost)).To(BeAnExistingFile())
		expectWarm(pullImage(ctx, registry, upstreamHost, "app", "warm, containerd restarted"))

		By("killing the unit")
		restarted, err := restarts(ctx)
		Expect(err).NotTo(HaveOccurred())
		before := hostsTOMLContent(ctx, upstreamHost)
		Expect(land.KillUnit(ctx, hostsUnit)).To(Succeed())
		Eventually(restarts).WithArguments(ctx).ShouldNot(Equal(restarted))
		Expect(expectHostsTOML(ctx, upstreamHost, true, restoredWithin, "systemd restarted the killed unit")).To(Equal(before))
		expectWarm(pullImage(ctx, registry, upstreamHost, "app", "warm, the unit was killed"))

		By("stopping the unit")
		Expect(land.Node.Run(ctx, "systemctl", "stop", hostsUnit)).Error().NotTo(HaveOccurred())
		Expect(filepath.Dir(hostsTOML(upstreamHost))).NotTo(BeADirectory())
		expectDirect(pullImage(ctx, registry, upstreamHost, "app", "direct, the unit is stopped"))
		// gardener-node-agent leaves it so when it applies something else.
		changeOSC(ctx)
		Expect(land.Node.Run(ctx, "systemctl", "show", "--property=ActiveState,UnitFileState", hostsUnit)).To(Equal("ActiveState=inactive\nUnitFileState=enabled\n"))
		Expect(hostsTOML(upstreamHost)).NotTo(BeAnExistingFile())

		By("starting the unit")
		Expect(land.Node.Run(ctx, "systemctl", "start", hostsUnit)).Error().NotTo(HaveOccurred())
		expectHostsTOML(ctx, upstreamHost, true, restoredWithin, "the unit was started")
		expectWarm(pullImage(ctx, registry, upstreamHost, "app", "warm, the unit is started"))
	}, SpecTimeout(3*time.Minute))

	It("boots without kube-proxy and caches, and pulls through them as soon as they answer", func(ctx SpecContext) {
		DeferCleanup(func(ctx SpecContext) { Expect(shoot.ScaleCache(ctx, upstreamHost, 1)).To(Succeed()) })
		Expect(shoot.ScaleCache(ctx, upstreamHost, 0)).To(Succeed())
		DeferCleanup(startKubeProxy)
		Expect(land.Node.Run(ctx, "systemctl", "mask", kubeProxyUnit)).Error().NotTo(HaveOccurred())
		Expect(land.Node.Shutdown(ctx)).To(Succeed())
		before := time.Now()
		Expect(land.Node.Boot(ctx)).To(Succeed())
		Expect(land.Node.Run(ctx, "nft", "list", "tables")).NotTo(ContainSubstring("kube-proxy"))
		Eventually(land.Node.Run).WithArguments(ctx, "systemctl", "is-active", "containerd", "kubelet", "gardener-node-agent", hostsUnit).
			Should(Equal("active\nactive\nactive\nactive\n"))
		AddReportEntry("Boot: Ready without kube-proxy and caches", ReportEntryVisibilityAlways, fmt.Sprintf("after %.1f s", time.Since(before).Seconds()))
		before = time.Now()
		changeOSC(ctx)
		AddReportEntry("Boot: an OperatingSystemConfig is applied", ReportEntryVisibilityAlways, fmt.Sprintf("after %.1f s", time.Since(before).Seconds()))
		Expect(hostsTOML(upstreamHost)).NotTo(BeAnExistingFile())
		expectDirect(pullImage(ctx, registry, upstreamHost, "app", "booted, no kube-proxy, no cache"))

		By("starting kube-proxy")
		startKubeProxy(ctx)
		expectDirect(pullImage(ctx, registry, upstreamHost, "app", "booted, no cache"))
		Expect(hostsTOML(upstreamHost)).NotTo(BeAnExistingFile())

		By("starting the cache")
		Expect(shoot.ScaleCache(ctx, upstreamHost, 1)).To(Succeed())
		_, err := land.AwaitCache(ctx, upstreamHost)
		Expect(err).NotTo(HaveOccurred())
		expectHostsTOML(ctx, upstreamHost, true, restoredWithin, "the first answer of the cache")
		expectWarm(pullImage(ctx, registry, upstreamHost, "app", "warm, booted, with kube-proxy and cache"))
	}, SpecTimeout(5*time.Minute))

	It("follows a cache whose Service gets another address", func(ctx SpecContext) {
		_, err := land.AwaitCache(ctx, otherHost)
		Expect(err).NotTo(HaveOccurred())
		otherPod, err := land.Pod(ctx, otherHost)
		Expect(err).NotTo(HaveOccurred())
		other := hostsTOMLContent(ctx, otherHost)
		address, err := land.AwaitService(ctx, upstreamHost)
		Expect(err).NotTo(HaveOccurred())

		By("deleting the Service, whose address another one takes")
		deleted := time.Now()
		free, err := land.LoseService(ctx, upstreamHost)
		Expect(err).NotTo(HaveOccurred())
		DeferCleanup(free)
		expectDirect(pullImage(ctx, registry, upstreamHost, "app", "the Service is just gone"))
		expectHostsTOML(ctx, upstreamHost, false, withdrawnWithin-time.Since(deleted), "the pull")
		AddReportEntry("Service: withdrawn", ReportEntryVisibilityAlways, fmt.Sprintf("%.1f s after the Service was deleted", time.Since(deleted).Seconds()))
		newAddress, err := land.AwaitService(ctx, upstreamHost)
		Expect(err).NotTo(HaveOccurred())
		Expect(newAddress).NotTo(Equal(address))
		expectDirect(pullImage(ctx, registry, upstreamHost, "app", "the Service has another address"))

		By("reconciling the Shoot")
		before := time.Now()
		applyCaches(ctx, cache(upstreamHost), cache(otherHost))
		AddReportEntry("Service: hosts.toml has the new address", ReportEntryVisibilityAlways, fmt.Sprintf("%.1f s after the reconciliation began", time.Since(before).Seconds()))
		Expect(hostsTOMLContent(ctx, upstreamHost)).To(And(ContainSubstring(newAddress), Not(ContainSubstring(address))))
		expectWarm(pullImage(ctx, registry, upstreamHost, "app", "warm, through the new address"))
		Expect(hostsTOMLContent(ctx, otherHost)).To(Equal(other))
		Expect(land.Pod(ctx, otherHost)).To(HaveField("UID", otherPod.UID), "the pod of the other cache was left alone")
	}, SpecTimeout(4*time.Minute))

	It("trusts the caches throughout a rotation of the certificate authorities", func(ctx SpecContext) {
		old := trustedAuthorities()
		Expect(old).To(HaveLen(1))

		caches := []v1alpha3.RegistryCache{cache(upstreamHost), cache(otherHost)}
		caSecret := func() (string, error) {
			status, err := shoot.ApplyCaches(ctx, caches...)
			if err != nil {
				return "", err
			}
			return *status.CASecretName, nil
		}
		rotate := func(phase gardencorev1beta1.CredentialsRotationPhase, changes bool) []string {
			GinkgoHelper()
			By(string(phase))
			before, err := caSecret()
			Expect(err).NotTo(HaveOccurred())
			stop, began := observe(ctx, registry, upstreamHost), time.Now()
			Expect(shoot.SetCARotation(ctx, phase)).To(Succeed())
			if changes {
				// More than once: the controller may know of the phase a moment later, which
				// is long before gardenlet has it reconcile the Extension.
				Eventually(caSecret).ShouldNot(Equal(before))
			}
			applyCaches(ctx, caches...)
			stop(string(phase)).expectNoFailure()
			AddReportEntry("Rotation: hosts.toml when "+string(phase), ReportEntryVisibilityAlways, fmt.Sprintf("%.1f s after the reconciliation began", time.Since(began).Seconds()))
			expectWarm(pullImage(ctx, registry, upstreamHost, "app", "warm, "+string(phase)))
			return trustedAuthorities()
		}
		both := rotate(gardencorev1beta1.RotationPreparing, true)
		Expect(both).To(And(HaveLen(2), ContainElement(old[0])))
		Expect(rotate(gardencorev1beta1.RotationPrepared, false)).To(Equal(both))
		renewed := rotate(gardencorev1beta1.RotationCompleting, true)
		Expect(renewed).To(And(HaveLen(1), Not(ContainElement(old[0]))))
		Expect(both).To(ContainElement(renewed[0]))
		Expect(rotate(gardencorev1beta1.RotationCompleted, false)).To(Equal(renewed))
	}, SpecTimeout(3*time.Minute))

	It("is taken over from the existing extension while it pulls, and handed back", func(ctx SpecContext) {
		switchOver(ctx, registry, upstreamHost, cache(upstreamHost), cache(otherHost))
	}, SpecTimeout(5*time.Minute))
})

// startKubeProxy starts kube-proxy, also if it was to be never started.
func startKubeProxy(ctx context.Context) {
	GinkgoHelper()
	Expect(land.Node.Run(ctx, "systemctl", "unmask", kubeProxyUnit)).Error().NotTo(HaveOccurred())
	Expect(land.Node.Run(ctx, "systemctl", "start", kubeProxyUnit)).Error().NotTo(HaveOccurred())
}

// changeOSC has gardener-node-agent apply an OperatingSystemConfig with a change
// that has nothing to do with caches.
func changeOSC(ctx context.Context) {
	GinkgoHelper()
	_, err := shoot.UpdateNode(ctx, func(osc *extensionsv1alpha1.OperatingSystemConfig) {
		osc.Spec.Files[0].Content.Inline.Data += fmt.Sprintln("Changed at", time.Now())
	})
	Expect(err).NotTo(HaveOccurred())
}

// hostsTOML is where an upstream's hosts.toml is on the node.
func hostsTOML(upstreamHost string) string {
	return land.Node.Path("/etc/containerd/certs.d/" + upstreamHost + "/hosts.toml")
}

// hostsTOMLContent returns the content of an upstream's hosts.toml, which is
// there or comes soon.
func hostsTOMLContent(ctx context.Context, upstreamHost string) string {
	GinkgoHelper()
	content, err := land.AwaitHostsTOML(ctx, upstreamHost, true)
	Expect(err).NotTo(HaveOccurred())
	return content
}

// trustedAuthorities returns the serial numbers of the certificate authorities by
// which the node knows caches.
func trustedAuthorities() []string {
	GinkgoHelper()
	files, err := filepath.Glob(land.Node.Path("/var/lib/registry-hosts/ca/*"))
	Expect(err).NotTo(HaveOccurred())
	Expect(files).To(HaveLen(1))
	certificates, err := cert.CertsFromFile(files[0])
	Expect(err).NotTo(HaveOccurred())
	var numbers []string
	for _, certificate := range certificates {
		numbers = append(numbers, certificate.SerialNumber.String())
	}
	return numbers
}
