// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package node_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"syscall"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/gardener/gardener-extension-registry-cache/pkg/hosts"
	"github.com/gardener/gardener-extension-registry-cache/test/process"
)

const (
	// withdrawn and back are how soon hosts.toml has to follow a host that fails or
	// answers.
	withdrawn = 15 * time.Second
	back      = 5 * time.Second
	// slack is for a machine that is busy with other things.
	slack = 3 * time.Second
)

// script is registry-hosts.service: the script with the times that it has on
// nodes, started and stopped as systemd does with the unit.
type script struct {
	log *os.File
	cmd *exec.Cmd
}

// startScript installs the files for these registries and runs the script until
// the spec ends. Then nothing of it may be left.
func startScript(registries ...hosts.Registry) *script {
	GinkgoHelper()
	log, err := process.CreateLog(logDir(), "registry-hosts")
	Expect(err).NotTo(HaveOccurred())
	s := &script{log: log}
	install(registries...)
	s.start()
	DeferCleanup(func() {
		s.stop()
		Expect(log.Close()).To(Succeed())
		Expect(os.ReadDir(certsDir)).To(BeEmpty())
	})
	return s
}

// command is one of the unit, with systemd's environment and no more.
func (s *script) command(arguments ...string) *exec.Cmd {
	cmd := exec.Command("/bin/sh", append([]string{filepath.Join(hosts.Directory, "registry-hosts.sh")}, arguments...)...)
	cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	cmd.Stdout, cmd.Stderr = s.log, s.log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return cmd
}

// startHealthy is startScript for registries all of whose hosts answer.
func startHealthy(registries ...hosts.Registry) *script {
	GinkgoHelper()
	s := startScript(registries...)
	for _, configured := range registries {
		var urls []string
		for _, host := range configured.Hosts {
			urls = append(urls, host.URL)
		}
		Eventually(func() []string { return hostsOf(configured.Upstream) }).WithTimeout(back + slack).Should(Equal(urls))
	}
	return s
}

func (s *script) start() {
	GinkgoHelper()
	s.cmd = s.command()
	Expect(s.cmd.Start()).To(Succeed())
}

// stop is systemctl stop.
func (s *script) stop() {
	GinkgoHelper()
	s.kill(syscall.SIGTERM)
	Expect(s.command("withdraw").Run()).To(Succeed())
}

// kill sends a signal to all processes of the script, and waits for its end.
func (s *script) kill(signal syscall.Signal) {
	GinkgoHelper()
	if s.cmd == nil {
		return
	}
	Expect(syscall.Kill(-s.cmd.Process.Pid, signal)).To(Succeed())
	// It tells how the script ended.
	_ = s.cmd.Wait()
	s.cmd = nil
}

// reconfigure is what node-agent does with a changed OperatingSystemConfig.
func (s *script) reconfigure(registries ...hosts.Registry) {
	GinkgoHelper()
	install(registries...)
	s.stop()
	s.start()
}

// install writes the files for these registries, and removes all others.
func install(registries ...hosts.Registry) {
	GinkgoHelper()
	files, err := hosts.Files(registries)
	Expect(err).NotTo(HaveOccurred())
	installed := map[string]bool{}
	for _, file := range files {
		installed[file.Path] = true
		Expect(os.MkdirAll(filepath.Dir(file.Path), 0o755)).To(Succeed())
		temporary := file.Path + ".tmp"
		Expect(os.WriteFile(temporary, file.Content, os.FileMode(file.Mode))).To(Succeed())
		Expect(os.Rename(temporary, file.Path)).To(Succeed())
	}
	Expect(filepath.WalkDir(hosts.Directory, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || installed[path] {
			return err
		}
		return os.Remove(path)
	})).To(Succeed())
}

var hostPattern = regexp.MustCompile(`(?m)^\[host\.['"](.+)['"]\]$`)

// hostsOf returns the hosts in the hosts.toml of an upstream, in order, or nil if
// there is none.
func hostsOf(upstream string) []string {
	GinkgoHelper()
	content, err := os.ReadFile(filepath.Join(certsDir, upstream, "hosts.toml"))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	Expect(err).NotTo(HaveOccurred())
	urls := []string{}
	for _, match := range hostPattern.FindAllStringSubmatch(string(content), -1) {
		urls = append(urls, match[1])
	}
	return urls
}

// awaitHosts waits until the hosts.toml of an upstream has these hosts, or is gone
// if there are none, within a time since something happened. How long it took
// becomes a row of the table.
func (t *trial) awaitHosts(ctx context.Context, upstream string, since time.Time, limit time.Duration, what string, urls ...string) {
	GinkgoHelper()
	Eventually(ctx, func() []string { return hostsOf(upstream) }).
		WithTimeout(time.Until(since.Add(limit+slack))).Should(Equal(urls), what)
	row := eventRow{trial: t.name, what: what, took: time.Since(since), limit: limit}
	figures.events = append(figures.events, row)
	AddReportEntry("hosts.toml "+what, ReportEntryVisibilityAlways, row.String())
}
