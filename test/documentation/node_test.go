// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package documentation_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/gardener/gardener-extension-registry-cache/test/landscape"
)

// popularHostsTOML is what the unit writes on the node for popularHost.
const popularHostsTOML = "/etc/containerd/certs.d/" + popularHost + "/hosts.toml"

// The page's blocks of bash are for the node, which each spec leaves as it found it.
func nodeSpecs() {
	const (
		page = "operations/nodes.md"
		look = "See what is configured and why"
	)

	It("shows what is configured on a node, and why", func(ctx SpecContext) {
		commands := docs.commands(page, look, 2, 3, 4, 5)
		Expect(onNode(ctx, commands[0])).To(And(
			ContainSubstring("==> "+popularHostsTOML+" <=="), ContainSubstring("/"+upstreamHost+"/hosts.toml <=="), ContainSubstring("[host.'https://10.96.")))
		Expect(onNode(ctx, commands[1])).To(And(
			ContainSubstring("/"+popularHost+"/00-server.toml <=="), ContainSubstring("/"+popularHost+"/10-cache.toml <=="), ContainSubstring("# probe: 200 https://10.96.")))
		Expect(onNode(ctx, commands[2])).To(And(
			ContainSubstring("Active: active (running)"), MatchRegexp(`https://10\.96\.[0-9.]+:5000/v2/: answers`), ContainSubstring("docker.io: wrote hosts.toml")))
		Expect(onNode(ctx, commands[3])).To(Equal("200, is to be 200\n"))
	}, SpecTimeout(time.Minute))

	It("gives a shell on the node", func(ctx SpecContext) {
		image, err := landscape.NewProgramImage(ctx, "/usr/sbin/chroot")
		Expect(err).NotTo(HaveOccurred())
		Expect(landscape.Push(ctx, registry, "tools", "v1", image)).To(Succeed())
		shell := strings.Replace(docs.block(page, look, 1), "registry.example.com/tools", upstreamHost+"/tools", 1)
		Expect(os.WriteFile(filepath.Join(docs.dir, "debug.sh"), []byte(shell), 0o600)).To(Succeed())
		// With a terminal, as a person has.
		output := docs.run(ctx, fmt.Sprintf("script --quiet --return --command 'bash -eu debug.sh' /dev/null <<'END'\nsystemctl is-active registry-hosts.service\nhead -n 1 %s\nexit\nEND", popularHostsTOML))
		Expect(output).To(And(MatchRegexp(`(?m)^active\s*$`), ContainSubstring("# Written by registry-hosts.service")))
	}, SpecTimeout(2*time.Minute))

	It("can be switched off on one node, and on again", func(ctx SpecContext) {
		commands := docs.commands(page, "Switch it off on one node")
		Expect(commands).To(HaveLen(4))
		onNode(ctx, commands[0])
		awaitHostsTOML(ctx, false)
		expectPull(ctx, true)
		onNode(ctx, commands[1])
		awaitHostsTOML(ctx, true)
		expectPull(ctx, false)

		By("stopping the unit")
		onNode(ctx, commands[2])
		Expect(land.Node.Path(popularHostsTOML)).NotTo(BeAnExistingFile())
		expectPull(ctx, true)
		onNode(ctx, "systemctl start registry-hosts.service")
		awaitHostsTOML(ctx, true)

		By("replacing one hosts.toml")
		onNode(ctx, commands[3])
		Eventually(onNode).WithArguments(ctx, "journalctl --lines 1 --unit registry-hosts.service").
			Should(ContainSubstring("docker.io: left alone, as somebody else has written " + popularHostsTOML))
		Expect(onNode(ctx, "cat "+popularHostsTOML)).To(Equal("server = \"https://registry-1.docker.io\"\n"))
		expectPull(ctx, true)
		onNode(ctx, "rm "+popularHostsTOML)
		awaitHostsTOML(ctx, true)
		expectPull(ctx, false)
	}, SpecTimeout(6*time.Minute))

	It("tells what it costs", func(ctx SpecContext) {
		// A minute is not needed to see that it tells.
		output := onNode(ctx, strings.Replace(docs.command(page, "What it costs"), "sleep 60", "sleep 1", 1))
		figure := `[0-9]+`
		if _, err := os.Stat(land.Node.Path("/sys/fs/cgroup/cgroup.controllers")); err != nil {
			figure = `\[not set\]` // cgroup v1
		}
		Expect(output).To(MatchRegexp(`^(CPUUsageNSec=` + figure + `\n){2}$`))
	}, SpecTimeout(time.Minute))
}

// onNode runs commands in a shell on the node, which stops at the first that fails,
// and returns what they print.
func onNode(ctx context.Context, commands string) string {
	GinkgoHelper()
	GinkgoWriter.Println(commands)
	output, err := land.Node.Run(ctx, "bash", "-euc", commands)
	GinkgoWriter.Println(output)
	Expect(err).NotTo(HaveOccurred())
	return output
}

// awaitHostsTOML waits until the hosts.toml of popularHost is there, or is gone: that
// takes a round of 10 seconds, and what a busy machine adds.
func awaitHostsTOML(ctx context.Context, there bool) {
	GinkgoHelper()
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	_, err := land.AwaitHostsTOML(ctx, popularHost, there)
	Expect(err).NotTo(HaveOccurred())
}
