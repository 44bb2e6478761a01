// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"bufio"
	"fmt"
	"os"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/gardener/gardener-extension-registry-cache/test/landscape"
	"github.com/gardener/gardener-extension-registry-cache/test/upstream"
)

var _ = Describe("The pod of a cache", func() {
	It("meets the restricted Pod Security Standard, and is confined as it asks for", func(ctx SpecContext) {
		startUpstream(ctx, upstream.Speed{}, "", "", "confined.test")
		// The API server enforces the standard in kube-system, see landscape.
		applyCaches(ctx, cache("confined.test"))
		pod, err := land.Pod(ctx, "confined.test")
		Expect(err).NotTo(HaveOccurred())

		By("trying a pod that does not meet it")
		unconfined := &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: pod.Namespace, Name: "unconfined"},
			Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Image: "example.test/app"}}},
		}
		Expect(land.ShootClient.Create(ctx, unconfined)).To(And(
			MatchError(apierrors.IsForbidden, "IsForbidden"), MatchError(ContainSubstring(`violates PodSecurity "restricted`))))

		By("looking at the process")
		pid, err := land.CacheProcess(ctx, "confined.test")
		Expect(err).NotTo(HaveOccurred())
		status := fieldsOf(pid, "status")
		Expect(status).To(And(
			HaveKeyWithValue("Uid", "65532 65532 65532 65532"),
			HaveKeyWithValue("Gid", "65532 65532 65532 65532"),
			HaveKeyWithValue("CapEff", "0000000000000000"),
			HaveKeyWithValue("CapBnd", "0000000000000000"),
			HaveKeyWithValue("NoNewPrivs", "1"),
			HaveKeyWithValue("Seccomp", "2"),
		))
		mounts := mountsOf(pid)
		Expect(mounts["/"]).To(HavePrefix("ro,"), "the root file system is read-only")
		Expect(mounts).To(HaveKeyWithValue("/var/lib/registry", HavePrefix("rw,")))
		Expect(mounts).To(HaveKeyWithValue("/etc/registry-cache-report", HavePrefix("ro,")), "the token by which it reports its status")
		for mount := range mounts {
			Expect(mount).NotTo(ContainSubstring("serviceaccount"), "no other token")
		}
		Expect(os.ReadDir(fmt.Sprintf("/proc/%d/root/bin", pid))).Error().To(MatchError(os.ErrNotExist), "no shell")
		Expect(pod.Spec.Containers[0].Image).To(HaveSuffix(":"+version()), "the image of this version")

		By("measuring memory")
		var memory landscape.Memory
		Eventually(func() (err error) {
			memory, err = land.CacheMemory(ctx, "confined.test")
			return err
		}).Should(Succeed())
		AddReportEntry("Memory: pod of an idle cache", ReportEntryVisibilityAlways, memory.String())
		Expect(memory.WorkingSet).To(BeNumerically("<", 20<<20))
		memory, err = land.ControllerMemory()
		Expect(err).NotTo(HaveOccurred())
		AddReportEntry("Memory: controller", ReportEntryVisibilityAlways, memory.String())
		// What is read of files counts too, as long as nobody else needs the memory.
		Expect(memory.Anonymous).To(BeNumerically("<", 64<<20))
	}, SpecTimeout(3*time.Minute))
})

// fieldsOf returns the fields of a file of a process in /proc, with single spaces.
func fieldsOf(pid int, file string) map[string]string {
	GinkgoHelper()
	content, err := os.Open(fmt.Sprintf("/proc/%d/%s", pid, file))
	Expect(err).NotTo(HaveOccurred())
	defer func() { _ = content.Close() }()
	fields := map[string]string{}
	for scanner := bufio.NewScanner(content); scanner.Scan(); {
		name, value, _ := strings.Cut(scanner.Text(), ":")
		fields[name] = strings.Join(strings.Fields(value), " ")
	}
	return fields
}

// mountsOf returns the options of the mounts that a process sees.
func mountsOf(pid int) map[string]string {
	GinkgoHelper()
	content, err := os.ReadFile(fmt.Sprintf("/proc/%d/mounts", pid))
	Expect(err).NotTo(HaveOccurred())
	mounts := map[string]string{}
	for _, line := range strings.Split(strings.TrimSpace(string(content)), "\n") {
		words := strings.Fields(line)
		mounts[words[1]] = words[3]
	}
	return mounts
}

func version() string {
	GinkgoHelper()
	content, err := os.ReadFile("../../VERSION")
	Expect(err).NotTo(HaveOccurred())
	return strings.TrimSpace(string(content))
}
