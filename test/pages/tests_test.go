// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package pages

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	. "github.com/onsi/gomega"
)

// naming finds in a command of go test what it names: packages, and tests.
var (
	packagePattern = regexp.MustCompile(`\s(\./[a-z0-9/]+)`)
	testPattern    = regexp.MustCompile(`\s-(run|fuzz|list|bench|ginkgo\.focus) (?:'([^']+)'|(\S+))`)
	// definitions are what an option names, as it stands in a file of tests.
	definitions = map[string]string{
		"run": `func \w*`, "fuzz": `func \w*`, "list": `func \w*`, "bench": `func Benchmark\w*`,
		"ginkgo.focus": `(?:It|Describe|Entry)\("[^"]*`,
	}
)

// Commands that run tests are not run by a test, but what they name is there.
func TestTestsAreThere(t *testing.T) {
	named := 0
	for _, language := range []string{"sh", "console"} {
		for _, block := range blocksOf(t, language) {
			for line := range strings.Lines(block.Commands()) {
				if !strings.Contains(line, "go test ") && !strings.HasPrefix(line, "hack/test.sh unit ") {
					continue
				}
				g := NewWithT(t)
				line, _, _ = strings.Cut(line, "   #")
				line = strings.TrimSpace(line)
				folders := []string{""}
				if matches := packagePattern.FindAllStringSubmatch(line, -1); matches != nil {
					folders = nil
					for _, match := range matches {
						folders = append(folders, match[1])
						g.Expect(filepath.Glob(filepath.Join(root, match[1], "*_test.go"))).NotTo(BeEmpty(), "%s: %s", block, line)
					}
				}
				for _, match := range testPattern.FindAllStringSubmatch(line, -1) {
					if name := match[2] + match[3]; name != "NONE" {
						g.Expect(defines(g, folders, definitions[match[1]]+name)).To(BeTrue(), "%s: %s: %s", block, line, name)
					}
				}
				named++
			}
		}
	}
	NewWithT(t).Expect(named).To(BeNumerically(">=", 8), "the tests know commands of go test when they see them")
}

// defines tells whether a file of tests in the folders, or below, has what a pattern
// finds.
func defines(g *WithT, folders []string, pattern string) bool {
	wanted := regexp.MustCompile(pattern)
	found := false
	for _, folder := range folders {
		g.Expect(filepath.WalkDir(filepath.Join(root, folder), func(path string, entry os.DirEntry, err error) error {
			if err != nil || found || entry.IsDir() || !strings.HasSuffix(path, "_test.go") {
				return err
			}
			content, err := os.ReadFile(path)
			found = err == nil && wanted.Match(content)
			return err
		})).To(Succeed())
	}
	return found
}
