// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package pages

import (
	"net/url"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"testing"

	. "github.com/onsi/gomega"
)

const root = "../.."

func TestLinks(t *testing.T) {
	g := NewWithT(t)
	pages, err := Read(root)
	g.Expect(err).NotTo(HaveOccurred())
	for _, problem := range brokenLinks(root, pages) {
		t.Error(problem)
	}
}

func TestBrokenLinksAreFound(t *testing.T) {
	g := NewWithT(t)
	folder := t.TempDir()
	for name, content := range map[string]string{
		"README.md": "# One\n\n[a](docs/a.md#two--three) [b](docs/b.md) [c](#one)\n\n- [d](#none)\n",
		"docs/a.md": "# `Two` & *three*\n\n# One\n\n# One\n\n[up](../README.md#one) [f](#one-1) [s](../a.sh)\n\n| t |\n|---|\n| ![p](p.svg) [folder](../docs) |\n\n<http://example.com> [m](mailto:a@b) [out](../../x)\n\n```md\n[not](a link)\n```\n",
	} {
		g.Expect(os.MkdirAll(filepath.Dir(filepath.Join(folder, name)), 0o700)).To(Succeed())
		g.Expect(os.WriteFile(filepath.Join(folder, name), []byte(content), 0o600)).To(Succeed())
	}
	g.Expect(os.WriteFile(filepath.Join(folder, "a.sh"), nil, 0o600)).To(Succeed())
	g.Expect(os.MkdirAll(filepath.Join(folder, "test"), 0o700)).To(Succeed())
	g.Expect(os.MkdirAll(filepath.Join(folder, "example"), 0o700)).To(Succeed())
	pages, err := Read(folder)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(pages[1].Anchors).To(Equal([]string{"two--three", "one", "one-1"}))
	g.Expect(brokenLinks(folder, pages)).To(ConsistOf(
		`README.md:3: "docs/b.md": there is no such file`,
		`README.md:5: "#none": there is no such heading`,
		`docs/a.md:11: "p.svg": there is no such file`,
		`docs/a.md:13: "http://example.com": must be https`,
		`docs/a.md:13: "mailto:a@b": must be https`,
		`docs/a.md:13: "../../x": leaves the repository`,
	))
}

// brokenLinks are links to files or headings that are not there. What is on the
// internet is not asked.
func brokenLinks(root string, pages []Page) []string {
	var problems []string
	for _, page := range pages {
		for _, link := range page.Links {
			if problem := whyBroken(root, pages, page, link.Target); problem != "" {
				problems = append(problems, page.Name+":"+strconv.Itoa(link.Line)+": "+strconv.Quote(link.Target)+": "+problem)
			}
		}
	}
	return problems
}

func whyBroken(root string, pages []Page, page Page, target string) string {
	parsed, err := url.Parse(target)
	switch {
	case err != nil:
		return err.Error()
	case parsed.Scheme == "https" && parsed.Host != "":
		return ""
	case parsed.Scheme != "" || parsed.Host != "":
		return "must be https"
	}
	name := page.Name
	if parsed.Path != "" {
		name = path.Join(path.Dir(page.Name), parsed.Path)
	}
	if !filepath.IsLocal(name) {
		return "leaves the repository"
	}
	if _, err := os.Stat(filepath.Join(root, name)); err != nil {
		return "there is no such file"
	}
	if parsed.Fragment == "" {
		return ""
	}
	i := slices.IndexFunc(pages, func(p Page) bool { return p.Name == name })
	if i < 0 || !slices.Contains(pages[i].Anchors, parsed.Fragment) {
		return "there is no such heading"
	}
	return ""
}

// languages are those of all blocks. A block of another one could be of commands that
// nobody runs.
var languages = []string{"sh", "bash", "console", "text", "yaml", "toml", "mermaid"}

// suites have a [Suite], and fail if they leave out a block.
var suites = []string{"test/documentation"}

func TestBlocks(t *testing.T) {
	g := NewWithT(t)
	pages, err := Read(root)
	g.Expect(err).NotTo(HaveOccurred())
	for _, page := range pages {
		g.Expect(page.Problems).To(BeEmpty())
		sections := map[string]bool{}
		for i, block := range page.Blocks {
			g.Expect(block.Language).To(BeElementOf(languages), "%s", block)
			if i > 0 && block.Section != page.Blocks[i-1].Section {
				g.Expect(sections[block.Section]).To(BeFalse(), "%s: there is another section of that name", block)
			}
			sections[block.Section] = true
		}
	}
}

// Each block of commands is run by a suite, or it is said why not.
func TestCommands(t *testing.T) {
	g := NewWithT(t)
	pages, err := Read(root)
	g.Expect(err).NotTo(HaveOccurred())
	all, err := entries()
	g.Expect(err).NotTo(HaveOccurred())
	used := map[int]map[int]bool{}
	for _, page := range pages {
		for _, block := range page.Blocks {
			if !block.HasCommands() {
				continue
			}
			covered := 0
			for i, entry := range all {
				if entry.covers(block) {
					covered++
					if used[i] == nil {
						used[i] = map[int]bool{}
					}
					used[i][block.Number] = true
				}
			}
			if covered != 1 {
				t.Errorf("%s: %d entries of commands.yaml are about it, it has to be one", block, covered)
			}
			g.Expect(block.Commands()).NotTo(BeEmpty(), "%s", block)
		}
	}
	for i, entry := range all {
		g.Expect(used[i]).NotTo(BeEmpty(), "there is no block for %+v", entry)
		for _, number := range entry.Blocks {
			g.Expect(used[i]).To(HaveKey(number), "there is no such block for %+v", entry)
		}
		isRun, isExplained := entry.Run != "", entry.Not != ""
		g.Expect(isRun).NotTo(Equal(isExplained), "%+v: either a suite or a reason", entry)
		g.Expect(entry.Not).NotTo(ContainSubstring("to be done"), "%+v", entry)
		if entry.Run != "" {
			g.Expect(entry.Run).To(BeElementOf(suites), "%+v", entry)
		}
	}
}
