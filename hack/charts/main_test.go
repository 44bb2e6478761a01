// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"
	"testing"

	gardencorev1 "github.com/gardener/gardener/pkg/apis/core/v1"
	"github.com/gardener/gardener/pkg/utils/oci"
	. "github.com/onsi/gomega"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"github.com/gardener/gardener-extension-registry-cache/charts"
	"github.com/gardener/gardener-extension-registry-cache/test/upstream"
)

// Gardener pulls what is pushed.
func TestChartsArePackedAndPushed(t *testing.T) {
	g := NewWithT(t)
	registry, err := upstream.Start(t.TempDir(), "", "")
	g.Expect(err).NotTo(HaveOccurred())
	t.Cleanup(func() { _ = registry.Close() })
	output := t.TempDir()

	g.Expect(run([]string{"-output", output, "-registry", registry.Host() + "/some/path", "-insecure"})).To(Succeed())

	for name, folder := range map[string]string{
		"gardener-extension-registry-cache":                       charts.Controller,
		"gardener-extension-registry-cache-admission-runtime":     charts.AdmissionRuntime,
		"gardener-extension-registry-cache-admission-application": charts.AdmissionApplication,
	} {
		archive, err := charts.Archive(folder)
		g.Expect(err).NotTo(HaveOccurred())
		_, version, err := describe(archive)
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(os.ReadFile(filepath.Join(output, name+"-"+version+".tgz"))).To(Equal(archive))

		reference := registry.Host() + "/some/path/charts/" + name + ":" + version
		g.Expect(oci.NewHelmRegistry(fake.NewFakeClient()).Pull(t.Context(), &gardencorev1.OCIRepository{Ref: &reference})).To(Equal(archive))
	}
}

func TestWrongArguments(t *testing.T) {
	g := NewWithT(t)
	g.Expect(run([]string{"now"})).To(MatchError(ContainSubstring("usage: charts")))
	g.Expect(run([]string{"-registration", filepath.Join(t.TempDir(), "missing", "file")})).To(MatchError(os.ErrNotExist))
	g.Expect(run([]string{"-output", t.TempDir(), "-registry", "127.0.0.1:1"})).To(MatchError(ContainSubstring("push chart 127.0.0.1:1/charts/gardener-extension-registry-cache:")))
}
