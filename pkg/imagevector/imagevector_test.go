// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package imagevector_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	. "github.com/onsi/gomega"

	gardenerimagevector "github.com/gardener/gardener/pkg/utils/imagevector"

	"github.com/gardener/gardener-extension-registry-cache/pkg/imagevector"
)

func TestImageIsOfThisVersion(t *testing.T) {
	g := NewWithT(t)
	version, err := os.ReadFile("../../VERSION")
	g.Expect(err).NotTo(HaveOccurred())

	vector, err := imagevector.Read()
	g.Expect(err).NotTo(HaveOccurred())
	image, err := imagevector.RegistryCache(vector)

	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(image).To(HaveSuffix(":" + strings.TrimSpace(string(version))))
}

func TestOverwrite(t *testing.T) {
	g := NewWithT(t)
	file := filepath.Join(t.TempDir(), "images.yaml")
	g.Expect(os.WriteFile(file, []byte("images: [{name: registry-cache, repository: registry.test/cache, tag: v9}]"), 0o600)).To(Succeed())
	t.Setenv(gardenerimagevector.OverrideEnv, file)

	vector, err := imagevector.Read()
	g.Expect(err).NotTo(HaveOccurred())

	g.Expect(imagevector.RegistryCache(vector)).To(Equal("registry.test/cache:v9"))
}

func TestErrors(t *testing.T) {
	g := NewWithT(t)

	_, err := imagevector.RegistryCache(gardenerimagevector.ImageVector{})
	g.Expect(err).To(MatchError(ContainSubstring(`find image "registry-cache" in the image vector`)))

	t.Setenv(gardenerimagevector.OverrideEnv, filepath.Join(t.TempDir(), "missing.yaml"))
	_, err = imagevector.Read()
	g.Expect(err).To(MatchError(And(ContainSubstring("IMAGEVECTOR_OVERWRITE"), ContainSubstring("missing.yaml"))))
}
