// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

// Package documentation_test follows the documentation: it runs the commands that
// stand there, with the real programs, on a real cluster, and nothing else installs
// anything. What they install runs as pods on a real node. Which blocks are run here
// is in test/pages/commands.yaml.
//
// One cluster is runtime cluster, Seed and Shoot at once, as that of a garden with
// a managed or self-hosted Seed may be: there is one node. The garden cluster is
// another: a kube-apiserver with a gardener-apiserver behind it. There is neither
// gardener-operator nor gardenlet; helm does for them what the documentation says
// for that case, and package landscape writes what gardenlet writes for a Shoot.
package documentation_test

import (
	"os"
	"testing"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"github.com/sirupsen/logrus"
	corev1 "k8s.io/api/core/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	logf "sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"

	"github.com/gardener/gardener-extension-registry-cache/test/cluster"
	"github.com/gardener/gardener-extension-registry-cache/test/landscape"
	"github.com/gardener/gardener-extension-registry-cache/test/sandbox"
	"github.com/gardener/gardener-extension-registry-cache/test/upstream"
)

var (
	// box is where the tests run, or unsupported says why they cannot.
	box         *sandbox.Sandbox
	unsupported error

	land *landscape.Landscape
	docs *documentation
)

func TestMain(m *testing.M) {
	os.Exit(cluster.Run(
		func(b *sandbox.Sandbox) int {
			box = b
			return m.Run()
		},
		func(err error) int {
			unsupported = err
			return m.Run()
		},
	))
}

func TestDocumentation(t *testing.T) {
	RegisterFailHandler(Fail)
	_, reporter := GinkgoConfiguration()
	// So that each spec that is skipped is named.
	reporter.Verbose = reporter.Verbose || unsupported != nil
	RunSpecs(t, "Documentation Suite", reporter)
}

var _ = BeforeSuite(func(ctx SpecContext) {
	SetDefaultEventuallyTimeout(time.Minute)
	SetDefaultEventuallyPollingInterval(100 * time.Millisecond)
	if unsupported != nil {
		return // each spec tells
	}
	logrus.SetOutput(GinkgoWriter)
	logf.SetLogger(zap.New(zap.WriteTo(GinkgoWriter), zap.UseDevMode(true)))
	var err error
	land, err = landscape.Start(ctx, box, landscape.Options{
		Root:         "../..",
		NoController: true,
		Options:      cluster.Options{OwnSeed: true, Progress: func(step string) { GinkgoWriter.Println(step) }},
	})
	Expect(err).NotTo(HaveOccurred())
	Expect(land.StartGarden(ctx)).To(Succeed())

	By("making what every Seed and every runtime cluster has")
	Expect(land.SeedClient.Create(ctx, &schedulingv1.PriorityClass{ObjectMeta: metav1.ObjectMeta{Name: "gardener-system-900"}, Value: 999998900})).To(Succeed())
	Expect(land.SeedClient.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
		Name: "garden", Labels: map[string]string{"pod-security.kubernetes.io/enforce": "restricted"},
	}})).To(Succeed())

	By("running the registry that the documentation pushes to")
	registry, err := land.StartRegistry(ctx, upstream.Speed{}, "", "", "registry.example.com")
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(registry.Close)

	docs = newDocumentation(ctx, "../..")
}, NodeTimeout(5*time.Minute))

var _ = BeforeEach(func() {
	if unsupported == nil {
		return
	}
	if os.Getenv("REQUIRE_CLUSTER") != "" {
		Fail("REQUIRE_CLUSTER is set, but the test cluster cannot run: " + unsupported.Error())
	}
	Skip("the test cluster cannot run: " + unsupported.Error())
})

// Whoever adds commands to the documentation adds a spec that runs them.
var _ = AfterSuite(func() {
	config, _ := GinkgoConfiguration()
	if docs == nil || len(config.FocusStrings)+len(config.FocusFiles)+len(config.SkipStrings)+len(config.SkipFiles) > 0 {
		return
	}
	Expect(docs.suite.Left()).To(BeEmpty(), "all commands that commands.yaml wants to be run here are run")
})

// What went wrong is seldom seen from outside.
var _ = JustAfterEach(func(ctx SpecContext) {
	if land != nil && CurrentSpecReport().Failed() {
		AddReportEntry("Logs", ReportEntryVisibilityAlways, land.RecentLogs(ctx))
	}
})
