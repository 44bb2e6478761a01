// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

// Package pages reads the documentation of this repository: its headings, links and
// code blocks. commands.yaml says for each block of commands which suite runs it, or
// why none does; the tests of this package hold the pages and that file together, and
// a [Suite] fails where a block that it should run was left out.
package pages

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/yuin/goldmark"
	"github.com/yuin/goldmark/ast"
	"github.com/yuin/goldmark/extension"
	"github.com/yuin/goldmark/text"
)

// Page is a Markdown file.
type Page struct {
	// Name is its path from the root of the repository, with slashes.
	Name string
	// Anchors are the fragments by which its headings can be linked, as GitHub makes
	// them, and Sections the text of its headings. Both are in the order of the page.
	Anchors, Sections []string
	Links             []Link
	Blocks            []Block
	// Spans are code that stands in the text.
	Spans []Span
	// Problems are what these tests cannot see through: HTML, and code without fences.
	Problems []string
}

// Link is a link or an image of a page.
type Link struct {
	Target string
	Line   int
}

// Span is code within a line, as a part of the text.
type Span struct {
	// Page is the name of its page, and Line where the paragraph begins.
	Page string
	Line int
	Text string
}

// String names the span for messages.
func (s Span) String() string {
	return fmt.Sprintf("%s:%d", s.Page, s.Line)
}

// Block is a fenced code block.
type Block struct {
	// Page is the name of its page, and Section the text of the heading before it:
	// empty before the first heading.
	Page, Section string
	// Number counts the blocks of commands of the section from 1. It is 0 for all
	// other blocks.
	Number int
	// Language is what follows the fence, empty if nothing does.
	Language string
	// Text is what stands between the fences, without the block's indentation.
	Text string
	Line int
}

// String names the block for messages.
func (b Block) String() string {
	return fmt.Sprintf("%s:%d (%s, block %d)", b.Page, b.Line, b.Section, b.Number)
}

// HasCommands tells whether the block is for a shell.
func (b Block) HasCommands() bool {
	return b.Language == "sh" || b.Language == "bash" || b.Language == "console"
}

// Commands are the text of a block for a shell. Of a console they are the lines
// behind the prompt "$ ", without what is printed.
func (b Block) Commands() string {
	if b.Language != "console" {
		return b.Text
	}
	var commands strings.Builder
	for line := range strings.Lines(b.Text) {
		if command, found := strings.CutPrefix(line, "$ "); found {
			commands.WriteString(command)
		}
	}
	return commands.String()
}

// Read reads README.md and all pages below docs, test and example of the repository
// in a folder.
func Read(root string) ([]Page, error) {
	names := []string{"README.md"}
	for _, folder := range []string{"docs", "example", "test"} {
		err := filepath.WalkDir(filepath.Join(root, folder), func(path string, entry fs.DirEntry, err error) error {
			if err != nil || entry.IsDir() || filepath.Ext(path) != ".md" {
				return err
			}
			name, err := filepath.Rel(root, path)
			names = append(names, filepath.ToSlash(name))
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("list pages of %s: %w", folder, err)
		}
	}
	pages := make([]Page, 0, len(names))
	for _, name := range names {
		content, err := os.ReadFile(filepath.Join(root, name)) //nolint:gosec // it is in the repository
		if err != nil {
			return nil, fmt.Errorf("read page: %w", err)
		}
		page, err := parse(name, content)
		if err != nil {
			return nil, fmt.Errorf("parse %s: %w", name, err)
		}
		pages = append(pages, page)
	}
	return pages, nil
}

func parse(name string, content []byte) (Page, error) {
	page := Page{Name: name}
	section, number := "", 0
	line := 1
	document := goldmark.New(goldmark.WithExtensions(extension.Table)).Parser().Parse(text.NewReader(content))
	err := ast.Walk(document, func(node ast.Node, entering bool) (ast.WalkStatus, error) {
		if !entering {
			return ast.WalkContinue, nil
		}
		// What stands in a line knows only the block that it is in.
		if node.Type() == ast.TypeBlock && node.Lines().Len() > 0 {
			line = 1 + strings.Count(string(content[:node.Lines().At(0).Start]), "\n")
		}
		switch node := node.(type) {
		case *ast.Heading:
			section, number = plain(node, content), 0
			page.Sections = append(page.Sections, section)
			page.Anchors = append(page.Anchors, anchor(section, page.Anchors))
		case *ast.Link:
			page.Links = append(page.Links, Link{string(node.Destination), line})
		case *ast.Image:
			page.Links = append(page.Links, Link{string(node.Destination), line})
		case *ast.AutoLink:
			page.Links = append(page.Links, Link{string(node.URL(content)), line})
		case *ast.CodeSpan:
			page.Spans = append(page.Spans, Span{Page: name, Line: line, Text: strings.ReplaceAll(plain(node, content), "\n", " ")})
		case *ast.CodeBlock:
			page.Problems = append(page.Problems, fmt.Sprintf("%s:%d: code without fences", name, line))
		case *ast.HTMLBlock:
			page.Problems = append(page.Problems, fmt.Sprintf("%s:%d: HTML", name, line))
		case *ast.FencedCodeBlock:
			block := Block{
				Page: name, Section: section, Line: line,
				Language: string(node.Language(content)), Text: string(node.Lines().Value(content)),
			}
			if block.HasCommands() {
				number++
				block.Number = number
			}
			page.Blocks = append(page.Blocks, block)
		}
		return ast.WalkContinue, nil
	})
	return page, err
}

// plain is the text of a node without its marks.
func plain(node ast.Node, content []byte) string {
	var b strings.Builder
	// The function returns no error.
	_ = ast.Walk(node, func(node ast.Node, entering bool) (ast.WalkStatus, error) {
		if t, ok := node.(*ast.Text); ok && entering {
			b.Write(t.Value(content))
		}
		return ast.WalkContinue, nil
	})
	return b.String()
}

// anchor is how GitHub links a heading: in lower case, a hyphen for each space, no
// punctuation, and a number if an earlier heading of the page is the same.
func anchor(heading string, earlier []string) string {
	slug := strings.Map(func(r rune) rune {
		switch {
		case r == ' ':
			return '-'
		case r == '-' || r == '_' || r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r > 127:
			return r
		default:
			return -1
		}
	}, strings.ToLower(heading))
	unique := slug
	for i := 1; slices.Contains(earlier, unique); i++ {
		unique = fmt.Sprintf("%s-%d", slug, i)
	}
	return unique
}
