// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package sandbox_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"github.com/gardener/gardener-extension-registry-cache/test/sandbox"
)

// modeVariable makes the test binary run a sandbox instead of the tests; its value
// says what is done inside.
const modeVariable = "SANDBOX_TEST_MODE"

func TestMain(m *testing.M) {
	mode := os.Getenv(modeVariable)
	if mode == "" {
		os.Exit(m.Run())
	}
	os.Exit(sandbox.Run(func(box *sandbox.Sandbox) int { return inside(box, mode) }, func(err error) int {
		fmt.Fprintln(os.Stderr, "unsupported:", err)
		return 9
	}))
}

func inside(box *sandbox.Sandbox, mode string) int {
	if mode == "return" {
		return 7
	}
	// A process that left its parents, in a control group of its own, and a mount.
	orphan := exec.Command("sh", "-c", `
for group in "$@"; do
  mkdir "$group/child"
  case "$group" in */cpuset*) ;; *) echo $$ >"$group/child/cgroup.procs" ;; esac # a new one has no CPUs
done
mount -t tmpfs none "$0" && touch "$0/file"
setsid sleep 1000 &
echo ready`, box.Dir)
	for _, group := range box.Cgroups {
		orphan.Args = append(orphan.Args, group.Dir)
	}
	orphan.Stdout, orphan.Stderr = os.Stdout, os.Stderr
	if err := orphan.Run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	select {}
}

// needSandbox skips a test, or fails it if REQUIRE_CLUSTER is set, where no
// sandbox can run.
func needSandbox(t *testing.T) {
	t.Helper()
	output, err := command(t, tempDir(t), "return").CombinedOutput()
	if err == nil || !bytes.HasPrefix(output, []byte("unsupported: ")) {
		return
	}
	if os.Getenv("REQUIRE_CLUSTER") != "" {
		t.Fatalf("REQUIRE_CLUSTER is set: %s", output)
	}
	t.Skip(string(output))
}

// command runs a sandbox whose folder is below dir.
func command(t *testing.T, dir, mode string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), modeVariable+"="+mode, "TMPDIR="+dir)
	return cmd
}

// tempDir is a folder where sandboxes' folders may be, as t.TempDir may not.
func tempDir(t *testing.T) string {
	t.Helper()
	g := NewWithT(t)
	dir, err := os.MkdirTemp(sandbox.Base(), "sandbox-test-")
	g.Expect(err).NotTo(HaveOccurred())
	t.Cleanup(func() { g.Expect(os.RemoveAll(dir)).To(Succeed()) })
	return dir
}

// running is a sandbox in which something runs.
type running struct {
	cmd    *exec.Cmd
	stderr bytes.Buffer
}

func start(t *testing.T, dir string) *running {
	t.Helper()
	g := NewWithT(t)
	r := &running{cmd: command(t, dir, "wait")}
	r.cmd.Stderr = &r.stderr
	output, err := r.cmd.StdoutPipe()
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(r.cmd.Start()).To(Succeed())
	g.Expect(bufio.NewReader(output).ReadString('\n')).To(Equal("ready\n"), r.stderr.String)
	go func() { _, _ = io.Copy(io.Discard, output) }()
	return r
}

// cgroups are the control groups of the sandboxes whose folders are below dir.
func cgroups(t *testing.T, dir string) []string {
	t.Helper()
	g := NewWithT(t)
	folders, err := filepath.Glob(filepath.Join(dir, "*"))
	g.Expect(err).NotTo(HaveOccurred())
	var groups []string
	for _, folder := range folders {
		for _, pattern := range []string{"/sys/fs/cgroup/*/", "/sys/fs/cgroup/"} {
			found, err := filepath.Glob(pattern + filepath.Base(folder))
			g.Expect(err).NotTo(HaveOccurred())
			groups = append(groups, found...)
		}
	}
	g.Expect(groups).NotTo(BeEmpty())
	return groups
}

// remains are processes, mounts and folders of sandboxes whose folder is below
// dir, and those of the control groups and of their processes' records that exist.
func remains(t *testing.T, dir string, groups ...string) []string {
	t.Helper()
	g := NewWithT(t)
	found, err := filepath.Glob(filepath.Join(dir, "*"))
	g.Expect(err).NotTo(HaveOccurred())
	for _, group := range groups {
		for _, path := range []string{group, "/run/registry-cache-sandbox/" + filepath.Base(group)} {
			if _, err := os.Stat(path); err == nil {
				found = append(found, path)
			}
		}
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	g.Expect(err).NotTo(HaveOccurred())
	if strings.Contains(string(mounts), dir) {
		found = append(found, "mounts")
	}
	return append(found, processes(t, dir)...)
}

func processes(t *testing.T, dir string) []string {
	t.Helper()
	g := NewWithT(t)
	var found []string
	files, err := filepath.Glob("/proc/[0-9]*/environ")
	g.Expect(err).NotTo(HaveOccurred())
	for _, file := range files {
		// An error means that it has ended.
		if content, err := os.ReadFile(file); err == nil && bytes.Contains(content, []byte("TMPDIR="+dir+"\x00")) {
			found = append(found, file)
		}
	}
	return found
}

func TestExitCode(t *testing.T) {
	needSandbox(t)
	g := NewWithT(t)
	dir := tempDir(t)
	cmd := command(t, dir, "return")
	g.Expect(cmd.Run()).To(HaveOccurred())
	g.Expect(cmd.ProcessState.ExitCode()).To(Equal(7))
	g.Expect(remains(t, dir)).To(BeEmpty())
}

func TestSignalsRemoveEverything(t *testing.T) {
	needSandbox(t)
	for _, signal := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
		t.Run(signal.String(), func(t *testing.T) {
			g := NewWithT(t)
			dir := tempDir(t)
			r := start(t, dir)
			groups := cgroups(t, dir)
			g.Expect(remains(t, dir, groups...)).To(ContainElements(groups))
			g.Expect(processes(t, dir)).NotTo(BeEmpty())

			g.Expect(r.cmd.Process.Signal(signal)).To(Succeed())
			g.Expect(r.cmd.Wait()).To(HaveOccurred())
			g.Expect(r.cmd.ProcessState.ExitCode()).To(Equal(128 + int(signal)))
			g.Expect(strings.TrimSpace(r.stderr.String())).To(Equal(signal.String() + ": ending everything and removing it"))
			g.Expect(remains(t, dir, groups...)).To(BeEmpty())
		})
	}
}

func TestTheNextRunRemovesWhatAKilledOneLeft(t *testing.T) {
	needSandbox(t)
	g := NewWithT(t)
	dir := tempDir(t)
	r := start(t, dir)
	killed := cgroups(t, dir)
	other := start(t, dir)
	all := cgroups(t, dir)

	g.Expect(r.cmd.Process.Kill()).To(Succeed())
	g.Expect(r.cmd.Wait()).To(HaveOccurred())
	left, err := os.ReadDir(dir)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(left).To(HaveLen(2), "the folder of a sandbox that was killed stays, and that of one that runs")

	next := command(t, dir, "return")
	output, err := next.CombinedOutput()
	g.Expect(err).To(HaveOccurred())
	g.Expect(next.ProcessState.ExitCode()).To(Equal(7))
	g.Expect(string(output)).To(And(HavePrefix("removing what an earlier run left in "+dir), HaveSuffix("\n")))
	g.Expect(strings.Count(string(output), "\n")).To(Equal(1))
	left, err = os.ReadDir(dir)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(left).To(HaveLen(1), "the sandbox that runs is left alone")
	g.Expect(processes(t, dir)).NotTo(BeEmpty())
	for _, group := range killed {
		g.Expect(group).NotTo(BeADirectory())
	}
	g.Expect(cgroups(t, dir)).To(HaveLen(len(all) - len(killed)))

	g.Expect(other.cmd.Process.Signal(syscall.SIGINT)).To(Succeed())
	g.Expect(other.cmd.Wait()).To(HaveOccurred())
	g.Expect(remains(t, dir, all...)).To(BeEmpty())
}

func TestKilledProcessTakesItsSandboxAlong(t *testing.T) {
	needSandbox(t)
	g := NewWithT(t)
	dir := tempDir(t)
	r := start(t, dir)
	groups := cgroups(t, dir)
	g.Expect(r.cmd.Process.Kill()).To(Succeed())
	g.Expect(r.cmd.Wait()).To(HaveOccurred())
	g.Eventually(func() []string { return processes(t, dir) }, 10*time.Second).Should(BeEmpty())

	// The next run finds the remains wherever its own folder is.
	g.Expect(command(t, tempDir(t), "return").Run()).To(HaveOccurred())
	g.Expect(remains(t, dir, groups...)).To(BeEmpty())
}

func TestSandboxesThatStartAtOnce(t *testing.T) {
	needSandbox(t)
	g := NewWithT(t)
	dir := tempDir(t)
	var all []*exec.Cmd
	for range 8 {
		cmd := command(t, dir, "return")
		g.Expect(cmd.Start()).To(Succeed())
		all = append(all, cmd)
	}
	for _, cmd := range all {
		g.Expect(cmd.Wait()).To(HaveOccurred())
		g.Expect(cmd.ProcessState.ExitCode()).To(Equal(7))
	}
	g.Expect(remains(t, dir)).To(BeEmpty())
}

func TestUnsupported(t *testing.T) {
	needSandbox(t)
	for name, test := range map[string]struct {
		script string
		want   string
	}{
		"not root": {
			`exec setpriv --reuid 65534 --regid 65534 --clear-groups "$0"`, "it needs to be root",
		},
		"no right to make namespaces": {
			`exec setpriv --bounding-set -sys_admin "$0"`, "operation not permitted",
		},
		"no control groups": {
			`umount --recursive --lazy /sys/fs/cgroup && exec "$0"`, "no control groups are mounted",
		},
		"control groups are read-only": {
			`for d in $(awk '$9 ~ /cgroup/ || $0 ~ / - cgroup/ {print $5}' /proc/self/mountinfo); do mount -o remount,ro,bind "$d"; done; exec "$0"`, "no control group can be made",
		},
		"no space": {
			`mount -t tmpfs -o size=10m none "$TMPDIR" && exec "$0"`, "10 MiB free",
		},
		"folder on an overlay": {
			`mount -t tmpfs none "$TMPDIR" && cd "$TMPDIR" && mkdir u w m && mount -t overlay -o lowerdir=/,upperdir=u,workdir=w none m && TMPDIR="$TMPDIR/m" exec "$0"`, "not on an overlay",
		},
		"no such folder": {
			`TMPDIR="$TMPDIR/missing" exec "$0"`, "no such file or directory",
		},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			dir := tempDir(t)
			binary := filepath.Join(dir, "test")
			content, err := os.ReadFile("/proc/self/exe")
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(os.WriteFile(binary, content, 0o755)).To(Succeed())
			g.Expect(os.Chmod(dir, 0o755)).To(Succeed())
			folder := filepath.Join(dir, "folder")
			g.Expect(os.Mkdir(folder, 0o755)).To(Succeed())

			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			cmd := exec.CommandContext(ctx, "unshare", "--mount", "--propagation", "private", "sh", "-ec", test.script, binary)
			cmd.Env = append(os.Environ(), modeVariable+"=return", "TMPDIR="+folder)
			output, err := cmd.CombinedOutput()

			g.Expect(err).To(HaveOccurred())
			g.Expect(string(output)).To(And(HavePrefix("unsupported: "), ContainSubstring(test.want)))
			g.Expect(strings.Count(strings.TrimSpace(string(output)), "\n")).To(BeZero(), "one line")
			g.Expect(cmd.ProcessState.ExitCode()).To(Equal(9))
			g.Expect(remains(t, folder)).To(BeEmpty())
		})
	}
}
