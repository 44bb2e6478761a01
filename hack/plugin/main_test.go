// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"

	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"
)

func TestThePluginIsPackedAlikeEachTime(t *testing.T) {
	g := NewWithT(t)
	first, second := t.TempDir(), t.TempDir()
	t.Chdir("../..") // as make runs it
	arguments := []string{"-version", "v1.2.3-rc.1", "-platforms", runtime.GOOS + "/" + runtime.GOARCH}
	g.Expect(run(t.Context(), append(arguments, "-output", first))).To(Succeed())
	// Settings of the caller's shell are not in it.
	t.Setenv("GOFLAGS", "-tags=something")
	t.Setenv("GOAMD64", "v2")
	g.Expect(run(t.Context(), append(arguments, "-output", second, "-url", "https://mirror.example.com/plugin/"))).To(Succeed())

	name := fmt.Sprintf("kubectl-registry_cache-%s-%s.tar.gz", runtime.GOOS, runtime.GOARCH)
	content := readFile(t, first, name)
	sum := fmt.Sprintf("%x", sha256.Sum256(content))
	g.Expect(fmt.Sprintf("%x", sha256.Sum256(readFile(t, second, name)))).To(Equal(sum))
	g.Expect(string(readFile(t, first, "SHA256SUMS"))).To(Equal(sum + "  " + name + "\n"))

	manifest := &plugin{}
	g.Expect(yaml.UnmarshalStrict(readFile(t, first, "registry-cache.yaml"), manifest)).To(Succeed())
	g.Expect(manifest.Metadata.Name).To(Equal("registry-cache"))
	g.Expect(manifest.Spec.Version).To(Equal("v1.2.3-rc.1"))
	g.Expect(manifest.Spec.Platforms).To(Equal([]platform{{
		Selector: metav1.LabelSelector{MatchLabels: map[string]string{"os": runtime.GOOS, "arch": runtime.GOARCH}},
		URI:      "https://github.com/gardener/gardener-extension-registry-cache/releases/download/v1.2.3-rc.1/" + name,
		SHA256:   sum, Bin: "kubectl-registry_cache",
	}}))
	g.Expect(yaml.UnmarshalStrict(readFile(t, second, "registry-cache.yaml"), manifest)).To(Succeed())
	g.Expect(manifest.Spec.Platforms[0].URI).To(Equal("https://mirror.example.com/plugin/" + name))

	// As somebody does who installs it by hand.
	installed := t.TempDir()
	output, err := exec.CommandContext(t.Context(), "tar", "-xzf", filepath.Join(first, name), "-C", installed).CombinedOutput()
	g.Expect(err).NotTo(HaveOccurred(), string(output))
	g.Expect(filepath.Join(installed, "LICENSE")).To(BeARegularFile())
	for argument, expected := range map[string]string{"--help": "kubectl registry-cache lint shoot.yaml", "--version": "v1.2.3-rc.1"} {
		output, err = exec.CommandContext(t.Context(), filepath.Join(installed, "kubectl-registry_cache"), argument).CombinedOutput()
		g.Expect(err).NotTo(HaveOccurred(), string(output))
		g.Expect(string(output)).To(ContainSubstring(expected))
	}
}

func TestWrongUsage(t *testing.T) {
	g := NewWithT(t)
	t.Chdir("../..")
	g.Expect(run(t.Context(), []string{"-version", "1.2.3"})).To(MatchError(ContainSubstring("begin with a v")))
	g.Expect(run(t.Context(), []string{"-version", "v1.2"})).To(MatchError(ContainSubstring("semantic versions")))
	g.Expect(run(t.Context(), []string{"-version", "v1.2.3", "more"})).To(MatchError(ContainSubstring("usage:")))
	g.Expect(run(t.Context(), []string{"-version", "v1.2.3", "-platforms", "linux", "-output", t.TempDir()})).To(MatchError(ContainSubstring("platform linux: must be")))
	g.Expect(run(t.Context(), []string{"-version", "v1.2.3", "-platforms", "plan9/sparc", "-output", t.TempDir()})).To(MatchError(ContainSubstring("build kubectl-registry_cache")))
}

func readFile(t *testing.T, folder, name string) []byte {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(folder, name))
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	return content
}
