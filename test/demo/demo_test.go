// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"github.com/gardener/gardener-extension-registry-cache/test/cluster"
	"github.com/gardener/gardener-extension-registry-cache/test/sandbox"
)

// Set in the environment of the demo under test, which is the test binary itself.
const demoVariable = "DEMO_TEST_RUN"

func TestMain(m *testing.M) {
	if os.Getenv(demoVariable) == "" {
		os.Exit(m.Run())
	}
	os.Exit(cluster.Run(inside, unsupported))
}

// demo is a running demo, whose files are below dir.
type demo struct {
	cmd *exec.Cmd
	dir string
	// sandbox is the name of the demo's sandbox, once it has printed something.
	sandbox string
	lines   *bufio.Scanner
	stderr  bytes.Buffer
}

// tempDir is a folder where sandboxes' folders may be, as t.TempDir may not.
func tempDir(t *testing.T) string {
	t.Helper()
	g := NewWithT(t)
	dir, err := os.MkdirTemp(sandbox.Base(), "demo-test-")
	g.Expect(err).NotTo(HaveOccurred())
	t.Cleanup(func() { g.Expect(os.RemoveAll(dir)).To(Succeed()) })
	return dir
}

// startDemo skips the test, or fails it if REQUIRE_CLUSTER is set, where the demo
// cannot run.
func startDemo(t *testing.T, dir string, variables ...string) *demo {
	t.Helper()
	g := NewWithT(t)
	if err := sandboxSupported(t); err != "" {
		if os.Getenv("REQUIRE_CLUSTER") != "" {
			t.Fatal("REQUIRE_CLUSTER is set: ", err)
		}
		t.Skip(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	t.Cleanup(cancel)
	d := &demo{cmd: exec.CommandContext(ctx, os.Args[0]), dir: dir}
	d.cmd.Dir = "../.." // as make runs it
	d.cmd.Env = append(append(os.Environ(), demoVariable+"=true", "TMPDIR="+dir), variables...)
	d.cmd.Stderr = &d.stderr
	output, err := d.cmd.StdoutPipe()
	g.Expect(err).NotTo(HaveOccurred())
	d.lines = bufio.NewScanner(output)
	g.Expect(d.cmd.Start()).To(Succeed())
	return d
}

// sandboxSupported returns the line that says why the machine cannot run the demo,
// or an empty one.
func sandboxSupported(t *testing.T) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "run", "../sandbox/check")
	cmd.Env = append(os.Environ(), "TMPDIR="+tempDir(t))
	output, err := cmd.CombinedOutput()
	if err == nil {
		return ""
	}
	NewWithT(t).Expect(string(output)).To(HavePrefix("This machine cannot run the test cluster"))
	return string(output)
}

// readUntil reads what the demo prints to the line that contains text, and
// returns all of it.
func (d *demo) readUntil(t *testing.T, text string) string {
	t.Helper()
	var read strings.Builder
	for d.lines.Scan() {
		fmt.Fprintln(&read, d.lines.Text())
		if strings.Contains(d.lines.Text(), text) {
			if folders, err := filepath.Glob(filepath.Join(d.dir, "*")); err == nil && len(folders) == 1 {
				d.sandbox = filepath.Base(folders[0])
			}
			return read.String()
		}
	}
	t.Fatalf("the demo ended before it printed %q\n%s\n%s", text, read.String(), d.stderr.String())
	return ""
}

// readRest reads what the demo still prints, to its end.
func (d *demo) readRest() {
	for d.lines.Scan() {
		continue
	}
}

// remains tells what of the demo is left on the machine.
func (d *demo) remains(t *testing.T) []string {
	t.Helper()
	g := NewWithT(t)
	left, err := filepath.Glob(filepath.Join(d.dir, "*"))
	g.Expect(err).NotTo(HaveOccurred())
	environments, err := filepath.Glob("/proc/[0-9]*/environ")
	g.Expect(err).NotTo(HaveOccurred())
	for _, file := range environments {
		// An error means that it has ended.
		if content, err := os.ReadFile(file); err == nil && bytes.Contains(content, []byte("TMPDIR="+d.dir+"\x00")) {
			left = append(left, file)
		}
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	g.Expect(err).NotTo(HaveOccurred())
	if strings.Contains(string(mounts), d.dir) {
		left = append(left, "mounts")
	}
	for _, pattern := range []string{"/sys/fs/cgroup/*/", "/sys/fs/cgroup/", "/run/registry-cache-sandbox/"} {
		if d.sandbox == "" {
			break // it ended before its name was known
		}
		groups, err := filepath.Glob(pattern + d.sandbox)
		g.Expect(err).NotTo(HaveOccurred())
		left = append(left, groups...)
	}
	return left
}

// machine is what must be the same after a demo as before.
func machine(t *testing.T) map[string]string {
	t.Helper()
	g := NewWithT(t)
	state := map[string]string{}
	for _, file := range []string{
		"/proc/net/route", "/etc/resolv.conf", "/etc/hostname", "/proc/sys/kernel/hostname",
		"/proc/sys/vm/overcommit_memory", "/proc/sys/vm/panic_on_oom", "/proc/sys/kernel/panic", "/proc/sys/kernel/panic_on_oops",
		"/proc/sys/kernel/keys/root_maxkeys", "/proc/sys/kernel/keys/root_maxbytes", "/proc/sys/kernel/core_pattern",
		"/proc/sys/fs/nr_open", "/proc/sys/fs/file-max", "/proc/sys/net/ipv4/ip_forward",
	} {
		content, err := os.ReadFile(file)
		if !os.IsNotExist(err) {
			g.Expect(err).NotTo(HaveOccurred())
		}
		state[file] = string(content)
	}
	// Others may come and go on the machine.
	for _, name := range []string{"network", "node", "eth0", "cni0"} {
		if link, err := net.InterfaceByName(name); err == nil {
			state["interface "+name] = strconv.Itoa(link.Index)
		}
	}
	return state
}

var row = regexp.MustCompile(`^ +([0-9.]+) +([0-9.]+) MiB +([0-9]+) +([0-9.]+) MiB +(.+)$`)

func TestStory(t *testing.T) {
	g := NewWithT(t)
	before := machine(t)
	d := startDemo(t, tempDir(t))
	story := d.readUntil(t, "requests upstream")
	table := d.readUntil(t, "The demo took")
	g.Expect(d.cmd.Wait()).To(Succeed(), d.stderr.String)
	t.Log(story + table)

	g.Expect(story).To(And(
		ContainSubstring("the node is Ready"),
		ContainSubstring("pod kube-system/registry-docker-io-0 is ready"),
		ContainSubstring("registry-hosts.service runs"),
		ContainSubstring("server = 'https://registry-1.docker.io'"),
	))
	var titles []string
	figures := map[string][]float64{}
	for _, line := range strings.Split(table, "\n") {
		if match := row.FindStringSubmatch(line); match != nil {
			titles = append(titles, match[5])
			for _, figure := range match[1:5] {
				value, err := strconv.ParseFloat(figure, 64)
				g.Expect(err).NotTo(HaveOccurred())
				figures[match[5]] = append(figures[match[5]], value)
			}
		}
	}
	g.Expect(titles).To(HaveExactElements(HavePrefix("direct"), HavePrefix("cold"), HavePrefix("warm"), HavePrefix("cache scaled to zero")))
	const fromCache, fromUpstream = 1, 3
	content := float64(layers * layerSize >> 20)
	for i, want := range []struct{ fromCache, fromUpstream bool }{{false, true}, {true, true}, {true, false}, {false, true}} {
		for column, served := range map[int]bool{fromCache: want.fromCache, fromUpstream: want.fromUpstream} {
			if served {
				g.Expect(figures[titles[i]][column]).To(BeNumerically("~", content, 1), titles[i])
			} else {
				g.Expect(figures[titles[i]][column]).To(BeZero(), titles[i])
			}
		}
	}
	g.Expect(figures[titles[2]][0]).To(BeNumerically(">", 0))
	g.Expect(d.remains(t)).To(BeEmpty())
	g.Expect(machine(t)).To(Equal(before))
}

func TestInterruption(t *testing.T) {
	for _, stage := range []string{
		"A Seed, a Shoot and its node", "etcd is ready", "API servers of Seed and Shoot are ready", "the node's systemd runs",
		"the node is Ready", "A pull without a cache", "the controller has reconciled", "registry-hosts.service runs",
	} {
		t.Run(stage, func(t *testing.T) {
			g := NewWithT(t)
			before := machine(t)
			d := startDemo(t, tempDir(t))
			d.readUntil(t, stage)
			g.Expect(d.sandbox).NotTo(BeEmpty())
			g.Expect(d.remains(t)).NotTo(BeEmpty())

			g.Expect(d.cmd.Process.Signal(os.Interrupt)).To(Succeed())
			d.readRest()
			g.Expect(d.cmd.Wait()).To(HaveOccurred())
			g.Expect(d.cmd.ProcessState.ExitCode()).To(Equal(128 + int(syscall.SIGINT)))
			g.Expect(d.stderr.String()).To(Equal("\ninterrupt: ending everything and removing it\n"))
			g.Expect(d.remains(t)).To(BeEmpty())
			g.Expect(machine(t)).To(Equal(before))
		})
	}
}

func TestFailureLeavesNothing(t *testing.T) {
	g := NewWithT(t)
	before := machine(t)
	d := startDemo(t, tempDir(t), "TEST_ASSET_RUNC=/proc/self/exe/missing")
	d.readUntil(t, "A Seed, a Shoot and its node")
	d.readRest()
	g.Expect(d.cmd.Wait()).To(HaveOccurred())
	g.Expect(d.cmd.ProcessState.ExitCode()).To(Equal(1))
	g.Expect(d.stderr.String()).To(And(HavePrefix("error: "), ContainSubstring("TEST_ASSET_RUNC")))
	g.Expect(strings.Count(d.stderr.String(), "\n")).To(Equal(1), "one line")
	g.Expect(d.remains(t)).To(BeEmpty())
	g.Expect(machine(t)).To(Equal(before))
}

func TestKeepExplainsHowToLookAround(t *testing.T) {
	g := NewWithT(t)
	before := machine(t)
	d := startDemo(t, tempDir(t), "KEEP=1")
	d.readUntil(t, "The demo took")
	explanation := d.readUntil(t, "Logs of all that is not on the node")

	// Every command that it names works, as it stands there.
	commands := regexp.MustCompile(`(?m)^    (/.+)$`).FindAllStringSubmatch(explanation, -1)
	g.Expect(commands).To(HaveLen(4))
	for _, command := range commands {
		// With -f it does not end.
		output, err := exec.CommandContext(t.Context(), "sh", "-c", strings.TrimSuffix(command[1], "-f")).CombinedOutput()
		g.Expect(err).NotTo(HaveOccurred(), "%s: %s", command[1], output)
		g.Expect(string(output)).To(ContainSubstring("registry"), command[1])
	}

	g.Expect(d.cmd.Process.Signal(os.Interrupt)).To(Succeed())
	d.readRest()
	g.Expect(d.cmd.Wait()).To(HaveOccurred())
	g.Expect(d.remains(t)).To(BeEmpty())
	g.Expect(machine(t)).To(Equal(before))
}
