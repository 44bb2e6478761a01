// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package pages

import "strings"

// Printed returns the lines that a manifest of example/admission says, in a comment, that
// kubectl prints when it is applied, without their indentation. If it says nothing there
// are none.
func Printed(manifest string) []string {
	_, after, _ := strings.Cut(manifest, "# kubectl apply prints:\n#\n")
	var lines []string
	for line := range strings.Lines(after) {
		text, isQuoted := strings.CutPrefix(line, "#   ")
		if !isQuoted {
			break
		}
		lines = append(lines, strings.TrimSpace(text))
	}
	return lines
}

// TrimLines returns the lines of a text, such as what kubectl has printed, without the
// white space around them.
func TrimLines(text string) []string {
	var lines []string
	for line := range strings.Lines(text) {
		lines = append(lines, strings.TrimSpace(line))
	}
	return lines
}
