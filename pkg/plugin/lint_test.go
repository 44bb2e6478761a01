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

const goodShoot = `apiVersion: core.gardener.cloud/v1beta1
kind: Shoot
metadata: {name: good, namespace: garden-dev}
spec:
  extensions:
  - type: registry-cache
    providerConfig:
      apiVersion: registry.extensions.gardener.cloud/v1alpha3
      kind: RegistryConfig
      caches: [{upstream: docker.io}]
`

const privateShoot = `apiVersion: core.gardener.cloud/v1beta1
kind: Shoot
metadata: {name: private, namespace: garden-dev}
spec:
  resources: [{name: robot, resourceRef: {apiVersion: v1, kind: Secret, name: robot-v1}}]
  extensions:
  - type: registry-cache
    providerConfig:
      apiVersion: registry.extensions.gardener.cloud/v1alpha3
      kind: RegistryConfig
      caches: [{upstream: docker.io, secretReferenceName: robot}]
`

const goodSecret = `apiVersion: v1
kind: Secret
metadata: {name: robot-v1, namespace: garden-dev}
immutable: true
stringData: {username: robot, password: xyzzy}
`

func TestLint(t *testing.T) {
	bad := strings.NewReplacer("docker.io", "https://docker.io", "good", "bad").Replace(goodShoot)
	tests := map[string]struct {
		in   string
		code int
		out  []string
		err  []string
	}{
		"good":                 {in: goodShoot, code: 0, out: []string{"-: Shoot garden-dev/good: ok\n"}},
		"empty documents":      {in: "---\n# nothing\n---\n" + goodShoot + "---\n", code: 0, out: []string{"Shoot garden-dev/good: ok"}},
		"JSON":                 {in: `{"apiVersion":"core.gardener.cloud/v1beta1","kind":"Shoot","metadata":{"name":"json"}}`, code: 0, out: []string{"Shoot json: ok"}},
		"bad value":            {in: bad, code: 1, out: []string{"-: Shoot garden-dev/bad: spec.extensions[0].providerConfig.caches[0].upstream: Invalid value: \"https://docker.io\""}},
		"all Shoots are shown": {in: goodShoot + "---\n" + bad, code: 1, out: []string{"Shoot garden-dev/good: ok", "Shoot garden-dev/bad: spec.extensions[0]"}},
		"unknown field":        {in: strings.Replace(goodShoot, "upstream:", "registryy:", 1), code: 1, out: []string{"caches[0].registryy"}},
		"no configuration":     {in: goodShoot[:strings.Index(goodShoot, "    providerConfig")], code: 1, out: []string{"spec.extensions[0].providerConfig: Required value"}},
		"list":                 {in: "apiVersion: v1\nkind: List\nitems:\n- " + strings.ReplaceAll(strings.TrimSpace(bad), "\n", "\n  "), code: 1, out: []string{"Shoot garden-dev/bad: spec.extensions[0]"}},
		"another kind of Shoot": {
			in: strings.Replace(bad, "core.gardener.cloud", "example.com", 1), code: 2, err: []string{"no Shoot of group core.gardener.cloud in -: nothing was validated"},
		},
		"Secret that is not there": {in: privateShoot, code: 0, out: []string{`Secret "robot-v1" is in none of the files`, "Shoot garden-dev/private: ok"}},
		"good Secret":              {in: privateShoot + "---\n" + goodSecret, code: 0, out: []string{"-: Shoot garden-dev/private: ok\n"}},
		"bad Secret": {
			in: privateShoot + "---\n" + strings.Replace(goodSecret, "immutable: true\n", "", 1), code: 1,
			out: []string{"spec.extensions[0].providerConfig.caches[0].secretReferenceName"},
		},
		"Secret of another namespace": {
			in: privateShoot + "---\n" + strings.Replace(goodSecret, "garden-dev", "garden-other", 1), code: 0, out: []string{`Secret "robot-v1" is in none of the files`},
		},
		"broken Secret": {
			in: goodShoot + "---\n" + strings.Replace(goodSecret, "stringData", "data", 1), code: 2, err: []string{"-: document 2: decode Secret"},
		},
		"no Shoot":          {in: goodSecret, code: 2, err: []string{"nothing was validated"}},
		"nothing":           {in: "", code: 2, err: []string{"nothing was validated"}},
		"no YAML":           {in: goodShoot + "---\n\tx", code: 2, err: []string{"-: document 2: "}},
		"duplicate key":     {in: goodShoot + "spec: {}\n", code: 2, err: []string{"-: document 1: ", `"spec" already set`}},
		"no object":         {in: "just text", code: 2, err: []string{"not a Kubernetes object"}},
		"kind of no object": {in: "apiVersion: v1", code: 2, err: []string{"it has no kind"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			code, out, err := run(test.in, "lint", "-")
			g.Expect(code).To(Equal(test.code), "%s%s", out, err)
			for _, want := range test.out {
				g.Expect(out).To(ContainSubstring(want))
			}
			for _, want := range test.err {
				g.Expect(err).To(ContainSubstring(want))
			}
			g.Expect(out+err).NotTo(Or(ContainSubstring("\x1b"), ContainSubstring("xyzzy")), "no colours, for it is no terminal, and no content of Secrets")
		})
	}
}

// TestLintAgreesWithAdmission validates the manifests whose answers of a real garden
// test/integration/admission checks.
func TestLintAgreesWithAdmission(t *testing.T) {
	g := NewWithT(t)
	files, err := filepath.Glob("../../example/shoot*.yaml")
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(files).NotTo(BeEmpty())
	code, out, stderr := run("", append([]string{"lint"}, files...)...)
	g.Expect(code).To(Equal(plugin.ExitOK), "%s%s", out, stderr)

	for _, name := range []string{"bad-fields", "bad-values", "bad-secrets"} {
		file := "../../example/admission/" + name + ".yaml"
		code, out, stderr := run("", "lint", file)
		g.Expect(code).To(Equal(plugin.ExitProblems), "%s: %s%s", file, out, stderr)
		g.Expect(out).To(ContainSubstring(file + ": Shoot "))
	}
}

func TestLintFiles(t *testing.T) {
	g := NewWithT(t)
	code, _, err := run("", "lint")
	g.Expect(code).To(Equal(plugin.ExitFailed))
	g.Expect(err).To(ContainSubstring("takes files of Shoots"))

	missing := filepath.Join(t.TempDir(), "missing.yaml")
	code, _, err = run("", "lint", missing)
	g.Expect(code).To(Equal(plugin.ExitFailed))
	g.Expect(err).To(Equal("Error: " + missing + ": no such file or directory\n"))

	large := filepath.Join(t.TempDir(), "large.yaml")
	file, openErr := os.Create(large)
	g.Expect(openErr).NotTo(HaveOccurred())
	g.Expect(file.Truncate(33 << 20)).To(Succeed())
	g.Expect(file.Close()).To(Succeed())
	code, _, err = run("", "lint", large)
	g.Expect(code).To(Equal(plugin.ExitFailed))
	g.Expect(err).To(ContainSubstring("more than 32 MiB"))
}

func TestHelpAndCompletion(t *testing.T) {
	g := NewWithT(t)
	code, out, _ := run("", "--help")
	g.Expect(code).To(Equal(plugin.ExitOK))
	for _, command := range []string{"status", "top", "lint", "explain-pull", "completion"} {
		g.Expect(out).To(MatchRegexp(`(?m)^  ` + command + ` `))
		_, help, _ := run("", command, "--help")
		if command != "completion" {
			g.Expect(help).To(ContainSubstring("Examples:\n  kubectl registry-cache " + command))
			g.Expect(help).To(ContainSubstring("Usage:\n  kubectl registry-cache " + command))
		}
	}
	code, out, _ = run("", "completion", "bash")
	g.Expect(code).To(Equal(plugin.ExitOK))
	g.Expect(out).To(ContainSubstring("bash completion"))
	_, out, _ = run("", "__complete", "exp")
	g.Expect(out).To(HavePrefix("explain-pull\t"))
	code, _, err := run("", "lnt", "x")
	g.Expect(code).To(Equal(plugin.ExitFailed))
	g.Expect(err).To(ContainSubstring(`unknown command "lnt"`))
}

func run(in string, args ...string) (code int, out, err string) {
	var stdout, stderr strings.Builder
	code = plugin.Run(context.Background(), "v1.2.3", args, plugin.Streams{In: strings.NewReader(in), Out: &stdout, Err: &stderr})
	return code, stdout.String(), stderr.String()
}

func TestLintOfMoreThanOneDocumentMayHave(t *testing.T) {
	g := NewWithT(t)
	content, err := os.ReadFile("../../example/admission/good.yaml")
	g.Expect(err).NotTo(HaveOccurred())
	document := "---\n# " + strings.Repeat("x", 1<<20) + "\n" + string(content)
	code, out, message := run(strings.Repeat(document, 40), "lint", "-")
	g.Expect(code).To(Equal(plugin.ExitOK), message)
	g.Expect(strings.Count(out, "ok\n")).To(BeNumerically(">=", 40))
}
