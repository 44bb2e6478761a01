// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

// Package admission_test runs our admission between a real garden, which is a
// kube-apiserver and a gardener-apiserver, and a runtime cluster: what users of
// kubectl see, and what becomes of them when something fails.
package admission_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"github.com/onsi/gomega/gexec"
	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
	logf "sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"

	"github.com/gardener/gardener/pkg/client/kubernetes"

	"github.com/gardener/gardener-extension-registry-cache/test/gardener"
	"github.com/gardener/gardener-extension-registry-cache/test/process"
)

var (
	// garden and runtimeCluster are clients of their administrators.
	garden, runtimeCluster client.Client
	// gardenPlane and runtimePlane are those clusters.
	gardenPlane, runtimePlane *controlPlane
	// user and operator run kubectl in the garden and in the runtime cluster.
	user, operator *kubectl
	proxy          *gardenProxy
	admission      *admissionProcess
	admissionLog   string
	// startAdmissionAnew starts the admission as the suite did, at the same address.
	startAdmissionAnew func(context.Context)
)

func TestAdmission(t *testing.T) {
	RegisterFailHandler(Fail)
	RunSpecs(t, "Admission Integration Suite")
}

var _ = BeforeSuite(func(ctx SpecContext) {
	logf.SetLogger(zap.New(zap.WriteTo(GinkgoWriter), zap.UseDevMode(true)))
	SetDefaultEventuallyTimeout(30 * time.Second)
	SetDefaultEventuallyPollingInterval(100 * time.Millisecond)
	binary, err := gexec.Build("github.com/gardener/gardener-extension-registry-cache/cmd/gardener-extension-registry-cache")
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(gexec.CleanupBuildArtifacts)
	dir := GinkgoT().TempDir()
	binary, err = endingWithTheTest(binary, dir)
	Expect(err).NotTo(HaveOccurred())

	aggregation, err := gardener.AggregationArguments(dir)
	Expect(err).NotTo(HaveOccurred())
	gardenPlane, err = newControlPlane("garden", dir, aggregation)
	Expect(err).NotTo(HaveOccurred())
	runtimePlane, err = newControlPlane("runtime", dir, nil)
	Expect(err).NotTo(HaveOccurred())
	// It is a Seed, too.
	for _, kind := range []string{"seed", "runtime"} {
		files, err := gardener.DefinitionFiles(ctx, kind)
		Expect(err).NotTo(HaveOccurred())
		runtimePlane.CRDInstallOptions.Paths = append(runtimePlane.CRDInstallOptions.Paths, files...)
	}
	startPlanes(gardenPlane, runtimePlane)

	garden, err = client.New(gardenPlane.Config, client.Options{Scheme: kubernetes.GardenScheme})
	Expect(err).NotTo(HaveOccurred())
	runtimeCluster, err = client.New(runtimePlane.Config, client.Options{Scheme: kubernetes.SeedScheme})
	Expect(err).NotTo(HaveOccurred())
	startGardener(ctx, dir, gardenPlane)
	user, err = newKubectl("garden", dir, gardenPlane.KubeConfig)
	Expect(err).NotTo(HaveOccurred())
	operator, err = newKubectl("runtime", dir, runtimePlane.KubeConfig)
	Expect(err).NotTo(HaveOccurred())
	apply(ctx, user, "testdata/garden.yaml")
	apply(ctx, user, filepath.Join(examples, "controller-registration.yaml"))
	installCharts(ctx)

	proxy, err = newGardenProxy(newUser(gardenPlane, gardenUser).Config())
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(proxy.Close)
	gardenKubeconfig, err := proxy.kubeconfig()
	Expect(err).NotTo(HaveOccurred())
	runtimeKubeconfig, err := newUser(runtimePlane, runtimeUser).KubeConfig()
	Expect(err).NotTo(HaveOccurred())
	for name, content := range map[string][]byte{"garden.admission": gardenKubeconfig, "runtime.admission": runtimeKubeconfig} {
		Expect(os.WriteFile(filepath.Join(dir, name), content, 0o600)).To(Succeed())
	}
	ports, err := process.FreePorts(1)
	Expect(err).NotTo(HaveOccurred())
	startAdmissionAnew = func(ctx context.Context) {
		GinkgoHelper()
		var err error
		admission, err = startAdmission(ctx, binary, dir, filepath.Join(dir, "garden.admission"), filepath.Join(dir, "runtime.admission"), ports[0])
		Expect(err).NotTo(HaveOccurred())
	}
	startAdmissionAnew(ctx)
	DeferCleanup(func() error { return admission.Stop() })
	admissionLog = filepath.Join(dir, "admission.log")
}, NodeTimeout(10*time.Minute))

var _ = JustAfterEach(func() {
	if CurrentSpecReport().Failed() {
		AddReportEntry("end of the admission's log", process.Tail(admissionLog), ReportEntryVisibilityFailureOrVerbose)
	}
})

func startPlanes(planes ...*controlPlane) {
	GinkgoHelper()
	var group errgroup.Group
	for _, plane := range planes {
		group.Go(plane.start)
		DeferCleanup(plane.stop)
	}
	Expect(group.Wait()).To(Succeed())
}

// startGardener makes a garden of a control plane.
func startGardener(ctx context.Context, dir string, plane *controlPlane) {
	GinkgoHelper()
	binary, err := process.FindBinary("gardener-apiserver")
	Expect(err).NotTo(HaveOccurred())
	binary, err = endingWithTheTest(binary, dir)
	Expect(err).NotTo(HaveOccurred())
	server, err := gardener.NewAPIServer(binary, dir, dir, plane.KubeConfig, plane.ControlPlane.Etcd.URL.String())
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(server.Stop)
	Expect(server.Start(ctx)).To(Succeed())
	Expect(server.Register(ctx, garden)).To(Succeed())
}

// newUser returns a user of a cluster who may do what RBAC says.
func newUser(plane *controlPlane, user envtest.User) *envtest.AuthenticatedUser {
	GinkgoHelper()
	added, err := plane.AddUser(user, &rest.Config{QPS: -1})
	Expect(err).NotTo(HaveOccurred())
	return added
}

// apply has kubectl apply a file. A garden needs a moment until it knows what was
// created just before.
func apply(ctx context.Context, k *kubectl, file string) {
	GinkgoHelper()
	Eventually(func() error {
		stderr, err := k.run(ctx, "", "apply", "-f", file)
		if err != nil {
			GinkgoWriter.Println(stderr)
		}
		return err
	}).WithTimeout(time.Minute).Should(Succeed())
}
