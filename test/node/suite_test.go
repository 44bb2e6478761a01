// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

// Package node_test shows what the files that land on a node do to its pulls,
// without a cluster: real containerd daemons, of the version that nodes run and
// of the oldest one, the real script, real caches at the cluster IPs of Services,
// and everything that can happen to these. Each pull is compared with a direct
// one of the same image.
//
// How the files reach a node, and what systemd, node-agent and kube-proxy make of
// them, is shown in package e2e.
package node_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"github.com/sirupsen/logrus"

	"github.com/gardener/gardener-extension-registry-cache/test/process"
	"github.com/gardener/gardener-extension-registry-cache/test/sandbox"
	"github.com/gardener/gardener-extension-registry-cache/test/upstream"
)

var (
	// box is where the tests run, or unsupported says why they cannot.
	box         *sandbox.Sandbox
	unsupported error

	// containerds read the same hosts.toml files.
	containerds []*containerd
	// registry is the upstream of all specs; internet has signed its certificate.
	registry *upstream.Registry
	internet *authority
)

func TestMain(m *testing.M) {
	os.Exit(sandbox.Run(
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

func TestNode(t *testing.T) {
	RegisterFailHandler(Fail)
	_, reporter := GinkgoConfiguration()
	// So that each spec that is skipped is named.
	reporter.Verbose = reporter.Verbose || unsupported != nil
	RunSpecs(t, "Node Suite", reporter)
}

var _ = BeforeSuite(func(ctx SpecContext) {
	if unsupported != nil {
		return // each spec tells
	}
	// The upstream logs each request.
	logrus.SetOutput(GinkgoWriter)
	SetDefaultEventuallyPollingInterval(20 * time.Millisecond)
	prepareMachine(ctx)
	internet = newAuthority("Internet")
	trust(internet)
	registry = startRegistry(ctx, upstreamAddress, internet, upstreamSpeed)
	containerds = []*containerd{
		startContainerd(ctx, "containerd", configVersion2x),
		startContainerd(ctx, "containerd-1.7", configVersion17),
	}
}, NodeTimeout(time.Minute))

var _ = BeforeEach(func() {
	if unsupported == nil {
		return
	}
	if os.Getenv("REQUIRE_CLUSTER") != "" {
		Fail("REQUIRE_CLUSTER is set, but there can be no node here: " + unsupported.Error())
	}
	Skip("there can be no node here: " + unsupported.Error())
})

// What went wrong is seldom seen from outside.
var _ = JustAfterEach(func() {
	if unsupported != nil || !CurrentSpecReport().Failed() {
		return
	}
	logs, err := filepath.Glob(filepath.Join(logDir(), "*.log"))
	Expect(err).NotTo(HaveOccurred())
	for _, log := range logs {
		AddReportEntry(filepath.Base(log), ReportEntryVisibilityAlways, process.Tail(log))
	}
})

var _ = ReportAfterSuite("figures", func(Report) {
	if len(figures.pulls) == 0 {
		return
	}
	fmt.Println("\n" + figures.markdown())
	if file := os.Getenv("NODE_RESULTS"); file != "" {
		Expect(os.WriteFile(file, []byte(figures.document()), 0o644)).To(Succeed())
	}
})
