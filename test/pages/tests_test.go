// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package pages

import (
	"fmt"
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
				if runsTests(line) {
					expectTests(NewWithT(t), block.String(), line)
					named++
				}
			}
		}
	}
	NewWithT(t).Expect(named).To(BeNumerically(">=", 8), "the tests know commands of go test when they see them")
}

// Nor are those that stand in the text.
func TestTestsOfSpansAreThere(t *testing.T) {
	g := NewWithT(t)
	pages, err := Read(root)
	g.Expect(err).NotTo(HaveOccurred())
	named := 0
	for _, page := range pages {
		for _, span := range page.Spans {
			if runsTests(span.Text) {
				expectTests(g, span.String(), span.Text)
				named++
			}
		}
	}
	g.Expect(named).To(BeNumerically(">=", 7), "the tests know commands of go test when they see them")
}

func TestMissingTestsAreFound(t *testing.T) {
	for text, missing := range map[string]bool{
		"Run `go test ./test/pages -run\nTestMissingTestsAreFound` alone.":           false,
		"|a|\n|-|\n|`env $(hack/test.sh env e2e) go test ./test/none`|":              true,
		"- `go tool ginkgo -procs 3 ./test/none`":                                    true,
		"Run `go test ./test/pages -run TestThatIsNot`.":                             true,
		"- *`go test ./test/documentation -ginkgo.focus 'is removed, and nothing'`*": false,
	} {
		g := NewWithT(t)
		page, err := parse("a.md", []byte(text))
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(page.Spans).To(HaveLen(1), text)
		g.Expect(runsTests(page.Spans[0].Text)).To(BeTrue(), text)
		failed := false
		expectTests(NewGomega(func(string, ...int) { failed = true }), "a.md", page.Spans[0].Text)
		g.Expect(failed).To(Equal(missing), text)
	}
}

// runsTests tells whether a command runs tests that it may name.
func runsTests(command string) bool {
	return strings.Contains(command, "go test ") || strings.Contains(command, "go tool ginkgo ") || strings.HasPrefix(command, "hack/test.sh unit ")
}

// expectTests expects that the packages and tests that a command names are there.
func expectTests(g Gomega, where, command string) {
	command, _, _ = strings.Cut(command, "   #")
	command = strings.TrimSpace(command)
	folders := []string{""}
	if matches := packagePattern.FindAllStringSubmatch(command, -1); matches != nil {
		folders = nil
		for _, match := range matches {
			folders = append(folders, match[1])
			g.Expect(filepath.Glob(filepath.Join(root, match[1], "*_test.go"))).NotTo(BeEmpty(), "%s: %s", where, command)
		}
	}
	for _, match := range testPattern.FindAllStringSubmatch(command, -1) {
		if name := match[2] + match[3]; name != "NONE" {
			g.Expect(defines(folders, definitions[match[1]]+name)).To(BeTrue(), "%s: %s: %s", where, command, name)
		}
	}
}

// defines tells whether a file of tests in the folders, or below, has what a pattern
// finds.
func defines(folders []string, pattern string) (bool, error) {
	wanted, err := regexp.Compile(pattern)
	if err != nil {
		return false, fmt.Errorf("compile what a command names: %w", err)
	}
	found := false
	for _, folder := range folders {
		err := filepath.WalkDir(filepath.Join(root, folder), func(path string, entry os.DirEntry, err error) error {
			if err != nil || found || entry.IsDir() || !strings.HasSuffix(path, "_test.go") {
				return err
			}
			content, err := os.ReadFile(path)
			found = err == nil && wanted.Match(content)
			return err
		})
		if os.IsNotExist(err) {
			continue // the package was missed already
		}
		if err != nil {
			return false, fmt.Errorf("look for tests: %w", err)
		}
	}
	return found, nil
}
