// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package plugin_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	. "github.com/onsi/gomega"

	"github.com/gardener/gardener-extension-registry-cache/pkg/plugin"
)

func TestWrongUsage(t *testing.T) {
	t.Setenv("KUBECONFIG", filepath.Join(t.TempDir(), "none"))
	t.Setenv("KUBERNETES_SERVICE_HOST", "")
	for args, expected := range map[string]string{
		"statu":                 `unknown command "statu" for "kubectl registry-cache"`,
		"status x":              `unknown command "x" for "kubectl registry-cache status"`,
		"status -n dev":         "unknown shorthand flag: 'n' in -n: caches are in the namespace kube-system only",
		"top --namespace=dev":   "unknown flag: --namespace: caches are in the namespace kube-system only",
		"status --watch":        "unknown flag: --watch: see kubectl registry-cache status --help",
		"images -o wide":        `invalid argument "wide" for "-o, --output" flag: must be json or yaml`,
		"images a b":            "kubectl registry-cache images takes at most one upstream: see kubectl registry-cache images --help",
		"explain-pull":          "kubectl registry-cache explain-pull takes one image, such as nginx:1.29: see",
		"lint":                  "kubectl registry-cache lint takes files of Shoots, or - for the standard input: see",
		"status":                "there is no kubeconfig, or it is empty: target the Shoot with gardenctl, or set KUBECONFIG or --kubeconfig",
		"--context dev status":  `kubeconfig: context "dev" does not exist`,
		"status --kubeconfig x": "kubeconfig: stat x: no such file or directory",
	} {
		t.Run(args, func(t *testing.T) {
			g := NewWithT(t)
			code, out, err := run("", strings.Fields(args)...)
			g.Expect(code).To(Equal(plugin.ExitFailed))
			g.Expect(out).To(BeEmpty())
			g.Expect(err).To(HavePrefix("Error: " + expected))
		})
	}
}

func TestHelp(t *testing.T) {
	for _, command := range []string{"status", "top", "images", "explain-pull", "lint"} {
		t.Run(command, func(t *testing.T) {
			g := NewWithT(t)
			code, out, _ := run("", command, "--help")
			g.Expect(code).To(Equal(plugin.ExitOK))
			g.Expect(out).To(ContainSubstring("Examples:\n  "))
			own, _, _ := strings.Cut(out, "\nGlobal Flags:\n")
			for line := range strings.Lines(own) {
				g.Expect(len([]rune(line))).To(BeNumerically("<=", 140), line)
			}
			g.Expect(own).NotTo(ContainSubstring("--certificate-authority"), "flags of its own do not hide among those of kubectl")
			if command == "lint" {
				g.Expect(out).NotTo(ContainSubstring("--kubeconfig"), "it asks no cluster")
			} else {
				g.Expect(out).To(And(ContainSubstring("--kubeconfig string"), ContainSubstring(`(default "20s")`)))
			}
		})
	}
}

func TestAnInterruptedCommandIsNoSuccess(t *testing.T) {
	g := NewWithT(t)
	kubeconfig := filepath.Join(t.TempDir(), "kubeconfig")
	g.Expect(os.WriteFile(kubeconfig, []byte(`{apiVersion: v1, kind: Config, current-context: a,
		contexts: [{name: a, context: {cluster: a}}], clusters: [{name: a, cluster: {server: "https://192.0.2.1"}}]}`), 0o600)).To(Succeed())
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for command, expected := range map[string]int{"status": plugin.ExitFailed, "top --once": plugin.ExitFailed, "top": plugin.ExitOK} {
		var out, err strings.Builder
		code := plugin.Run(ctx, "v1", append(strings.Fields(command), "--kubeconfig", kubeconfig), plugin.Streams{Out: &out, Err: &err})
		g.Expect(code).To(Equal(expected), command)
		if expected == plugin.ExitFailed {
			g.Expect(err.String()).To(Equal("Error: interrupted\n"))
		}
	}
}
