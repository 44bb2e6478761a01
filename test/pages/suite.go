// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package pages

import (
	_ "embed"
	"fmt"
	"slices"

	"sigs.k8s.io/yaml"
)

//go:embed commands.yaml
var commands []byte

// entry says what becomes of the commands in a section of a page.
type entry struct {
	Page    string `json:"page"`
	Section string `json:"section"`
	// Blocks are numbers of blocks; none are all of the section.
	Blocks []int `json:"blocks,omitempty"`
	// Run is the folder of the suite that runs them. Without, Not says why none does.
	Run string `json:"run,omitempty"`
	Not string `json:"not,omitempty"`
}

func (e entry) covers(block Block) bool {
	return e.Page == block.Page && e.Section == block.Section && (len(e.Blocks) == 0 || slices.Contains(e.Blocks, block.Number))
}

func entries() ([]entry, error) {
	var all []entry
	if err := yaml.UnmarshalStrict(commands, &all); err != nil {
		return nil, fmt.Errorf("decode commands.yaml: %w", err)
	}
	return all, nil
}

// Suite are the blocks of commands that a suite of tests has to run. Its methods are
// not for concurrent use.
type Suite struct {
	folder string
	// blocks are all that are given to it, and left those that nobody has taken yet.
	blocks, left []Block
}

// NewSuite returns what commands.yaml gives to the suite in a folder, such as
// "test/documentation", of the repository in root.
func NewSuite(root, folder string) (*Suite, error) {
	pages, err := Read(root)
	if err != nil {
		return nil, err
	}
	all, err := entries()
	if err != nil {
		return nil, err
	}
	s := &Suite{folder: folder}
	for _, page := range pages {
		for _, block := range page.Blocks {
			if block.HasCommands() && slices.ContainsFunc(all, func(e entry) bool { return e.Run == folder && e.covers(block) }) {
				s.blocks = append(s.blocks, block)
			}
		}
	}
	s.left = slices.Clone(s.blocks)
	return s, nil
}

// Take returns the blocks of commands in a section, to be run, or those with the
// given numbers. It is an error if there are none, or if commands.yaml does not give
// them to this suite. A block may be taken more than once.
func (s *Suite) Take(page, section string, numbers ...int) ([]Block, error) {
	var taken []Block
	for _, block := range s.blocks {
		if block.Page == page && block.Section == section && (len(numbers) == 0 || slices.Contains(numbers, block.Number)) {
			taken = append(taken, block)
		}
	}
	if len(taken) < max(1, len(numbers)) {
		return nil, fmt.Errorf("%s: section %q does not have the blocks %v for %s, but %v", page, section, numbers, s.folder, taken)
	}
	s.left = slices.DeleteFunc(s.left, func(block Block) bool { return slices.Contains(taken, block) })
	return taken, nil
}

// Left are the blocks that nobody has taken.
func (s *Suite) Left() []Block {
	return s.left
}
