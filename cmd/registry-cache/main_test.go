// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	. "github.com/onsi/gomega"
)

// runMain makes the test binary the real program, so that signals and exit
// codes are real.
const runMain = "REGISTRY_CACHE_TEST_RUN_MAIN"

func TestMain(m *testing.M) {
	if os.Getenv(runMain) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

func command(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], args...)
	cmd.Env = append(os.Environ(), runMain+"=1")
	return cmd
}

func writeConfig(t *testing.T, content string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "config.yaml")
	NewWithT(t).Expect(os.WriteFile(file, []byte(content), 0o600)).To(Succeed())
	return file
}

const header = "apiVersion: config.registry.extensions.gardener.cloud/v1alpha1\nkind: CacheConfiguration\n"

func TestServesUntilSignalled(t *testing.T) {
	for _, signal := range []os.Signal{syscall.SIGTERM, syscall.SIGINT} {
		t.Run(signal.String(), func(t *testing.T) {
			g := NewWithT(t)
			cmd := command(t, "--config", writeConfig(t, header+`
upstream: registry.invalid
remoteURL: https://registry.invalid
storage: {rootDirectory: `+t.TempDir()+`}
server: {address: "127.0.0.1:0"}
debug: {address: "127.0.0.1:0"}
`))
			stderr, err := cmd.StderrPipe()
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(cmd.Start()).To(Succeed())

			scanner := bufio.NewScanner(stderr)
			var line struct{ Msg, Address, DebugAddress string }
			for line.Msg != "Serving" && scanner.Scan() {
				g.Expect(json.Unmarshal(scanner.Bytes(), &line)).To(Succeed(), scanner.Text())
			}
			for _, url := range []string{"http://" + line.Address + "/v2/", "http://" + line.DebugAddress + "/debug/health"} {
				response, err := http.Get(url)
				g.Expect(err).NotTo(HaveOccurred())
				g.Expect(response.Body.Close()).To(Succeed())
				g.Expect(response.StatusCode).To(Equal(http.StatusOK), url)
			}

			g.Expect(cmd.Process.Signal(signal)).To(Succeed())
			rest, err := io.ReadAll(stderr)
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(cmd.Wait()).To(Succeed(), string(rest))
		})
	}
}

func TestBadInput(t *testing.T) {
	for name, test := range map[string]struct {
		args []string
		want string
	}{
		"no flag":         {nil, "flag --config is required"},
		"unknown flag":    {[]string{"--nonsense"}, "-nonsense"},
		"argument":        {[]string{"--config", "x", "y"}, `unexpected argument "y"`},
		"no such file":    {[]string{"--config", "/none/config.yaml"}, "open /none/config.yaml: no such file"},
		"empty file":      {[]string{"--config", writeConfig(t, "")}, "configuration is empty"},
		"other kind":      {[]string{"--config", writeConfig(t, "apiVersion: v1\nkind: Secret\n")}, `got "v1" and "Secret"`},
		"unknown field":   {[]string{"--config", writeConfig(t, header+"mirror: x\n")}, `mirror: Forbidden: unknown field`},
		"missing values":  {[]string{"--config", writeConfig(t, header)}, "remoteURL"},
		"no credentials":  {[]string{"--config", writeConfig(t, header+"upstream: a.b\nremoteURL: https://a.b\ncredentialsDir: /none\nstorage: {rootDirectory: "+t.TempDir()+"}\n")}, "/none/username: no such file or directory; "},
		"bad certificate": {[]string{"--config", writeConfig(t, header+"upstream: a.b\nremoteURL: https://a.b\nserver: {tls: {certFile: /none/crt, keyFile: /none/key}}\n")}, "server.tls: open /none/crt"},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			cmd := command(t, test.args...)
			var stdout, stderr bytes.Buffer
			cmd.Stdout, cmd.Stderr = &stdout, &stderr
			g.Expect(cmd.Run()).NotTo(Succeed())
			g.Expect(cmd.ProcessState.ExitCode()).To(Equal(1))
			g.Expect(stderr.String()).To(HavePrefix("registry-cache: "))
			g.Expect(stderr.String()).To(ContainSubstring(test.want))
			g.Expect(strings.Count(stderr.String(), "\n")).To(Equal(1), "one line")
			g.Expect(stdout.String()).To(BeEmpty())
		})
	}
}

func TestVersionAndHelp(t *testing.T) {
	g := NewWithT(t)
	var stdout bytes.Buffer
	g.Expect(run(t.Context(), []string{"--version"}, &stdout, io.Discard)).To(Succeed())
	g.Expect(strings.TrimSpace(stdout.String())).NotTo(BeEmpty())
	stdout.Reset()
	g.Expect(run(t.Context(), []string{"--help"}, &stdout, io.Discard)).To(Succeed())
	g.Expect(stdout.String()).To(SatisfyAll(ContainSubstring("-config FILE"), ContainSubstring("-version")))
}
