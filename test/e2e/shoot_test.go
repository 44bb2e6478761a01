// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	resourcesv1alpha1 "github.com/gardener/gardener/pkg/apis/resources/v1alpha1"

	"github.com/gardener/gardener-extension-registry-cache/pkg/apis/registry/v1alpha3"
	"github.com/gardener/gardener-extension-registry-cache/test/upstream"
)

var _ = Describe("A running Shoot", func() {
	It("gets and loses a cache while the others go on", func(ctx SpecContext) {
		staying := startUpstream(ctx, upstream.Speed{}, "", "", "staying.test")
		leaving := startUpstream(ctx, upstream.Speed{}, "", "", "leaving.test")
		pushImage(ctx, staying, "app")
		pushImage(ctx, leaving, "app")
		pullDirect(ctx, staying, "staying.test", "app", "direct, no cache yet")
		applyCaches(ctx, cache("staying.test"))
		before, err := land.Pod(ctx, "staying.test")
		Expect(err).NotTo(HaveOccurred())
		expectCold(pull(ctx, staying, "staying.test", "app", "cold, the first cache"))
		pullDirect(ctx, leaving, "leaving.test", "app", "direct, no cache yet")

		By("adding a cache")
		applyCaches(ctx, cache("staying.test"), cache("leaving.test"))
		expectCold(pull(ctx, leaving, "leaving.test", "app", "cold, the added cache"))
		expectWarm(pull(ctx, leaving, "leaving.test", "app", "warm, the added cache"))
		Expect(objectsOf(ctx, "leaving.test")).NotTo(BeEmpty())
		volumes, err := volumesOf(ctx, "leaving-test")
		Expect(err).NotTo(HaveOccurred())
		Expect(volumes).To(HaveLen(1))
		Expect(land.Node.Path("/var/lib/volumes/" + volumes[0])).To(BeADirectory())

		By("removing it")
		address, err := land.Address(ctx, "leaving.test")
		Expect(err).NotTo(HaveOccurred())
		asked, pulls := askWhileUsed(ctx, "leaving.test", address), observe(ctx, leaving, "leaving.test")
		_, err = shoot.ApplyCaches(ctx, cache("staying.test"))
		Expect(err).NotTo(HaveOccurred())
		Expect(hostsTOML("leaving.test")).NotTo(BeAnExistingFile(), "nodes know before the address goes")
		Expect(pulls("removal").failures).To(BeEmpty())
		Expect(asked()).To(And(HaveKey("refuses"), Not(HaveKey("waits"))),
			"who asked the cache was refused at once, and never waited for an address that nobody has")
		Eventually(objectsOf).WithArguments(ctx, "leaving.test").Should(BeEmpty())
		Eventually(volumesOf).WithArguments(ctx, "leaving-test").Should(BeEmpty())
		Eventually(land.Node.Path).WithArguments("/var/lib/volumes/" + volumes[0]).ShouldNot(BeADirectory())
		expectDirect(pull(ctx, leaving, "leaving.test", "app", "direct, cache removed"))

		expectWarm(pull(ctx, staying, "staying.test", "app", "warm, the first cache"))
		after, err := land.Pod(ctx, "staying.test")
		Expect(err).NotTo(HaveOccurred())
		Expect(after.UID).To(Equal(before.UID), "the pod of the first cache was left alone")
		Expect(after.Status.ContainerStatuses).To(ConsistOf(HaveField("RestartCount", BeZero())))
	}, SpecTimeout(5*time.Minute))

	It("goes on with a highly available cache while one of its pods is replaced", func(ctx SpecContext) {
		registry := startUpstream(ctx, upstream.Speed{}, "", "", "twice.test")
		pushImage(ctx, registry, "app")
		twice := cache("twice.test")
		twice.HighAvailability = &v1alpha3.HighAvailability{Enabled: ptr.To(true)}
		applyCaches(ctx, twice)
		Expect(land.AwaitReplicas(ctx, "twice.test", 2)).To(Succeed())

		// Each pod has a volume of its own, and a node asks now the one and now the other.
		asked := recordClients(registry)
		Eventually(func(g Gomega) {
			g.Expect(land.PullAndForget(ctx, "twice.test/app:v1")).To(Succeed())
			g.Expect(asked.others.Load()).To(BeNumerically(">=", 2*(layers+1)), "both pods have fetched all blobs")
		}).WithTimeout(3 * time.Minute).Should(Succeed())
		fetched := asked.others.Load()
		pulls := observe(ctx, registry, "twice.test")
		for i := range 4 {
			replaced, err := land.Pod(ctx, "twice.test")
			Expect(err).NotTo(HaveOccurred())
			Expect(land.DeletePod(ctx, "twice.test")).To(Succeed())
			if i == 0 {
				expectToServeOn(ctx, replaced.Status.PodIP)
			}
			Eventually(func(g Gomega) {
				pod, err := land.Pod(ctx, "twice.test")
				g.Expect(err).NotTo(HaveOccurred())
				g.Expect(pod.UID).NotTo(Equal(replaced.UID))
			}).Should(Succeed())
			Expect(land.AwaitReplicas(ctx, "twice.test", 2)).To(Succeed())
		}
		during := pulls("four replacements of one of two pods")
		Expect(during.failures).To(BeEmpty())
		Expect(during.cached).To(BeNumerically(">", during.direct))
		// Two probes in a row may be too slow on a busy machine.
		Expect(during.writers).To(HaveEach(Or(HavePrefix("us"), HavePrefix("nobody"))))
		Expect(len(during.writers)).To(BeNumerically("<=", 3), "the cache is not withdrawn, or once at most")
		AddReportEntry("Blobs: asked for by the node itself meanwhile", ReportEntryVisibilityAlways, asked.containerd.Load())
		for range 3 {
			Expect(pull(ctx, registry, "twice.test", "app", "two pods again").Upstream.Blobs).To(BeZero())
		}
		Expect(asked.others.Load()).To(Equal(fetched), "both pods have kept what they fetched")
	}, SpecTimeout(10*time.Minute))

	It("is as before when the extension is disabled", func(ctx SpecContext) {
		registry := startUpstream(ctx, upstream.Speed{}, "", "", "disabled.test")
		pushImage(ctx, registry, "app")
		pullDirect(ctx, registry, "disabled.test", "app", "direct")
		applyCaches(ctx, cache("disabled.test"))
		expectCold(pull(ctx, registry, "disabled.test", "app", "cold"))

		// What has to go is there: each look finds something.
		looks := map[string]func() ([]string, error){
			"objects of the cache in the Shoot": func() ([]string, error) { return objectsOf(ctx, "disabled.test") },
			"volumes":                           func() ([]string, error) { return volumesOf(ctx, "disabled-test") },
			"network policies": func() ([]string, error) {
				return namesOf(ctx, land.ShootClient, &networkingv1.NetworkPolicyList{}, client.InNamespace(metav1.NamespaceSystem))
			},
			"ManagedResources": func() ([]string, error) {
				return namesOf(ctx, land.SeedClient, &resourcesv1alpha1.ManagedResourceList{}, client.InNamespace(shoot.Namespace))
			},
			"certificate authorities in the Seed": func() ([]string, error) {
				return namesOf(ctx, land.SeedClient, &corev1.SecretList{}, client.InNamespace(shoot.Namespace), client.MatchingLabels{"manager-identity": "extension-registry-cache"})
			},
			"files on the node": func() ([]string, error) {
				return filesBelow(land.Node.Path("/var/lib/registry-hosts"), land.Node.Path("/etc/containerd/certs.d"), land.Node.Path("/etc/systemd/system/registry-hosts.service"))
			},
			"unit on the node": func() ([]string, error) {
				units, err := land.Node.Run(ctx, "systemctl", "list-units", "--all", "--plain", "--no-legend", "registry-hosts.service")
				// systemd may remember the name for some time when the file is gone.
				return slices.DeleteFunc(strings.Split(units, "\n"), func(unit string) bool {
					return unit == "" || slices.Contains(strings.Fields(unit), "not-found")
				}), err
			},
			"processes of the unit": func() ([]string, error) {
				// The brackets, so that this does not find itself.
				files, err := land.Node.Run(ctx, "sh", "-c", "grep -ls 'registry-hosts[.]sh' /proc/[0-9]*/cmdline || :")
				return strings.Fields(files), err
			},
		}
		for what, look := range looks {
			Expect(look()).NotTo(BeEmpty(), what)
		}

		Expect(shoot.DisableExtension(ctx)).To(Succeed())
		osc, err := shoot.UpdateNode(ctx)
		Expect(err).NotTo(HaveOccurred())
		Expect(osc.Spec.Units).NotTo(ContainElement(HaveField("Name", "registry-hosts.service")))
		for what, look := range looks {
			Eventually(look).Should(BeEmpty(), what)
		}
		expectDirect(pull(ctx, registry, "disabled.test", "app", "direct, extension disabled"))
	}, SpecTimeout(5*time.Minute))

	It("pulls through the cache again after a reboot of its node", func(ctx SpecContext) {
		registry := startUpstream(ctx, upstream.Speed{}, "", "", "reboot.test")
		pushImage(ctx, registry, "app")
		pullDirect(ctx, registry, "reboot.test", "app", "direct")
		applyCaches(ctx, cache("reboot.test"))
		expectCold(pull(ctx, registry, "reboot.test", "app", "cold"))
		Expect(land.Node.DiskPath("/etc/containerd/certs.d/reboot.test/hosts.toml")).To(BeAnExistingFile())

		By("shutting down")
		before := time.Now()
		Expect(land.Node.Shutdown(ctx)).To(Succeed())
		Expect(land.Node.DiskPath("/etc/containerd/certs.d/reboot.test/hosts.toml")).NotTo(BeAnExistingFile(),
			"the node boots with direct pulls, for there are no caches before there are pods")

		By("booting")
		Expect(land.Node.Boot(ctx)).To(Succeed())
		Expect(land.Node.Run(ctx, "systemctl", "is-enabled", "registry-hosts.service")).To(Equal("enabled\n"))
		_, err := land.AwaitCache(ctx, "reboot.test")
		Expect(err).NotTo(HaveOccurred())
		_, err = land.AwaitHostsTOML(ctx, "reboot.test", true)
		Expect(err).NotTo(HaveOccurred())
		AddReportEntry("Reboot: from shutdown to hosts.toml", ReportEntryVisibilityAlways, time.Since(before).String())
		expectWarm(pull(ctx, registry, "reboot.test", "app", "warm, after the reboot"))
	}, SpecTimeout(5*time.Minute))
})

// expectToServeOn expects that a pod that was told to end says so, and answers a node that
// does not know of it yet.
func expectToServeOn(ctx context.Context, podIP string) {
	GinkgoHelper()
	Eventually(land.Node.Run).WithArguments(ctx, "curl", "--silent", "--max-time", "2", "--output", "/dev/null", "--write-out", "%{http_code}", "http://"+podIP+":5001/debug/health").
		Should(Equal("503"))
	Expect(land.Node.Run(ctx, "curl", "--silent", "--show-error", "--fail", "--insecure", "--max-time", "2", "https://"+podIP+":5000/v2/")).Error().NotTo(HaveOccurred())
}

// askWhileUsed has the node ask the address of a cache until its hosts.toml is gone. The
// returned function waits for that, and returns how often it answered, refused, let the
// node wait, or did something else.
func askWhileUsed(ctx context.Context, upstreamHost, address string) (wait func() map[string]int) {
	var (
		outcomes = make(map[string]int)
		group    sync.WaitGroup
		file     = hostsTOML(upstreamHost)
		// The server answers that too, and a TLS handshake takes time of its own.
		plain = "http" + strings.TrimPrefix(address, "https")
	)
	group.Go(func() {
		for ctx.Err() == nil {
			outcome := "answers"
			_, err := land.Node.Run(ctx, "curl", "--silent", "--show-error", "--output", "/dev/null", "--connect-timeout", "1", plain)
			var exit *exec.ExitError
			if errors.As(err, &exit) {
				// https://curl.se/docs/manpage.html#EXIT
				outcome = cmp.Or(map[int]string{7: "refuses", 28: "waits"}[exit.ExitCode()], err.Error())
			}
			if _, err := os.Stat(file); err != nil {
				return
			}
			outcomes[outcome]++
			time.Sleep(50 * time.Millisecond)
		}
	})
	DeferCleanup(group.Wait)
	return func() map[string]int {
		group.Wait()
		return outcomes
	}
}

// objectsOf returns the names of what a cache has in the Shoot.
func objectsOf(ctx context.Context, upstreamHost string) ([]string, error) {
	var all []string
	for _, list := range []client.ObjectList{
		&appsv1.StatefulSetList{}, &corev1.PodList{}, &corev1.ServiceList{}, &corev1.SecretList{}, &corev1.PersistentVolumeClaimList{},
	} {
		names, err := namesOf(ctx, land.ShootClient, list, client.InNamespace(metav1.NamespaceSystem), client.MatchingLabels{"upstream-host": upstreamHost})
		if err != nil {
			return nil, err
		}
		all = append(all, names...)
	}
	return all, nil
}

// namesOf returns the names of the objects of a kind.
func namesOf(ctx context.Context, c client.Client, list client.ObjectList, options ...client.ListOption) ([]string, error) {
	if err := c.List(ctx, list, options...); err != nil {
		return nil, err
	}
	var names []string
	err := meta.EachListItem(list, func(object runtime.Object) error {
		names = append(names, object.(client.Object).GetName())
		return nil
	})
	return names, err
}

// filesBelow returns the paths of files in folders; a folder that does not exist
// has none.
func filesBelow(roots ...string) ([]string, error) {
	var files []string
	for _, root := range roots {
		err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			if err == nil && !entry.IsDir() {
				files = append(files, path)
			}
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return files, nil
}

// volumesOf returns the names of the volumes whose claim is one of a cache, by the
// end of the cache's resource name.
func volumesOf(ctx context.Context, name string) ([]string, error) {
	list := &corev1.PersistentVolumeList{}
	if err := land.ShootClient.List(ctx, list); err != nil {
		return nil, err
	}
	var names []string
	for _, volume := range list.Items {
		if claim := volume.Spec.ClaimRef; claim != nil && claim.Name == "cache-volume-registry-"+name+"-0" {
			names = append(names, volume.Name)
		}
	}
	return names, nil
}
