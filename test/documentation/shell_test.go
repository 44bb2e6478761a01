// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package documentation_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/gardener/gardener-extension-registry-cache/test/pages"
	"github.com/gardener/gardener-extension-registry-cache/test/process"
)

// documentation is what commands.yaml wants to be run here, and a shell that runs
// commands in a folder that looks like a clone of the repository.
type documentation struct {
	suite *pages.Suite
	dir   string
	env   []string
}

// newDocumentation is for the repository in a folder. The commands find helm and
// kubectl, and files with the kubeconfigs of administrators.
func newDocumentation(ctx context.Context, root string) *documentation {
	GinkgoHelper()
	root, err := filepath.Abs(root)
	Expect(err).NotTo(HaveOccurred())
	suite, err := pages.NewSuite(root, "test/documentation")
	Expect(err).NotTo(HaveOccurred())
	d := &documentation{suite: suite, dir: filepath.Join(land.Dir, "clone")}
	tools := filepath.Join(land.Dir, "tools")
	for _, dir := range []string{d.dir, d.home(), tools} {
		Expect(os.Mkdir(dir, 0o700)).To(Succeed())
	}
	// What is built goes to the folder bin, which is not the repository's.
	entries, err := os.ReadDir(root)
	Expect(err).NotTo(HaveOccurred())
	for _, entry := range entries {
		if entry.Name() != "bin" && entry.Name() != ".git" {
			Expect(os.Symlink(filepath.Join(root, entry.Name()), filepath.Join(d.dir, entry.Name()))).To(Succeed())
		}
	}
	for _, tool := range []string{"helm", "kubectl"} {
		binary, err := process.FindBinary(tool)
		Expect(err).NotTo(HaveOccurred())
		Expect(os.Symlink(binary, filepath.Join(tools, tool))).To(Succeed())
	}
	for name, kubeconfig := range map[string][]byte{
		"garden": land.Garden.Kubeconfig, "runtime": land.Seed.Kubeconfig, "seed": land.Seed.Kubeconfig, "shoot": land.Shoot.Kubeconfig,
	} {
		Expect(os.WriteFile(filepath.Join(d.dir, name+".kubeconfig"), kubeconfig, 0o600)).To(Succeed())
	}
	authority := filepath.Join(land.Dir, "internet.crt")
	Expect(os.WriteFile(authority, land.Internet.CA, 0o600)).To(Succeed())
	// The commands write to the user's folder, which is another here. Go's caches stay.
	folders, err := exec.CommandContext(ctx, "go", "env", "GOCACHE", "GOMODCACHE", "GOPATH").Output()
	Expect(err).NotTo(HaveOccurred())
	ofGo := strings.Split(strings.TrimSpace(string(folders)), "\n")
	Expect(ofGo).To(HaveLen(3))
	d.env = append(os.Environ(),
		"HOME="+d.home(), "GOCACHE="+ofGo[0], "GOMODCACHE="+ofGo[1], "GOPATH="+ofGo[2],
		"PATH="+filepath.Join(d.home(), ".local/bin")+":"+tools+":"+os.Getenv("PATH"),
		"SSL_CERT_FILE="+authority, "CURL_CA_BUNDLE="+authority,
		"DOCKER_CONFIG="+land.Dir, "HELM_CONFIG_HOME="+land.Dir+"/helm", "HELM_DATA_HOME="+land.Dir+"/helm", "HELM_CACHE_HOME="+land.Dir+"/helm",
		// The node is of one platform, and the modules are there.
		"PLATFORMS=linux/"+runtime.GOARCH, "GOPROXY=off", "GOFLAGS=",
	)
	return d
}

// home is the user's folder for the commands.
func (d *documentation) home() string {
	return filepath.Join(land.Dir, "home")
}

// command returns the only block of commands of a section that commands.yaml gives to
// this suite. It has to be run.
func (d *documentation) command(page, section string) string {
	GinkgoHelper()
	commands := d.commands(page, section)
	Expect(commands).To(HaveLen(1), "%s: blocks of %q", page, section)
	return commands[0]
}

// block returns the block of commands with a number in a section of several. It has to
// be run.
func (d *documentation) block(page, section string, number int) string {
	GinkgoHelper()
	commands := d.commands(page, section, number)
	Expect(commands).To(HaveLen(1), "%s: block %d of %q", page, number, section)
	return commands[0]
}

// commands returns the shell commands of a section of a page below docs, one text for
// each block, or those of the blocks with the given numbers. They have to be run.
func (d *documentation) commands(page, section string, numbers ...int) []string {
	GinkgoHelper()
	blocks, err := d.suite.Take("docs/"+page, section, numbers...)
	Expect(err).NotTo(HaveOccurred())
	commands := make([]string, len(blocks))
	for i, block := range blocks {
		commands[i] = block.Commands()
	}
	return commands
}

// console returns the commands of a block of a page below docs that shows a terminal,
// and the lines that the page says that they print. They have to be run.
func (d *documentation) console(page, section string, number int) (commands string, printed []string) {
	GinkgoHelper()
	blocks, err := d.suite.Take("docs/"+page, section, number)
	Expect(err).NotTo(HaveOccurred())
	for line := range strings.Lines(blocks[0].Text) {
		if !strings.HasPrefix(line, "$ ") {
			printed = append(printed, strings.TrimSuffix(line, "\n"))
		}
	}
	Expect(printed).NotTo(BeEmpty())
	return blocks[0].Commands(), printed
}

// yaml returns the blocks of YAML in a section of a page below docs.
func (d *documentation) yaml(page, section string) []string {
	GinkgoHelper()
	all, err := pages.Read("../..")
	Expect(err).NotTo(HaveOccurred())
	var texts []string
	for _, p := range all {
		for _, block := range p.Blocks {
			if block.Page == "docs/"+page && block.Section == section && block.Language == "yaml" {
				texts = append(texts, block.Text)
			}
		}
	}
	Expect(texts).NotTo(BeEmpty())
	return texts
}

// run runs commands in the shell, which stops at the first that fails, and returns
// what they print. What they set is there for the next ones; what they left in the
// background is ended.
func (d *documentation) run(ctx context.Context, commands string) string {
	GinkgoHelper()
	output, err := d.try(ctx, commands)
	Expect(err).NotTo(HaveOccurred(), "%s\n%s", commands, output)
	return output
}

// try is run for commands that may fail. When the time is over all that they started is
// ended with them, or who holds their output would be waited for.
func (d *documentation) try(ctx context.Context, commands string) (string, error) {
	GinkgoWriter.Println(commands)
	cmd := exec.CommandContext(ctx, "bash", "-c", fmt.Sprintf(
		"set -aeuo pipefail\ntrap 'kill $(jobs -p) 2>/dev/null || :' EXIT\nif [ -f exported ]; then . ./exported; fi\n%s\nexport -p >exported\n", commands))
	cmd.Dir, cmd.Env = d.dir, d.env
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
	output, err := cmd.CombinedOutput()
	GinkgoWriter.Println(string(output))
	return string(output), err
}
