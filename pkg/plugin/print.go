// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package plugin

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"unicode"

	"golang.org/x/term"
	"golang.org/x/text/width"
)

// style colours text, if it is for a terminal. The zero value does not.
type style struct{ coloured bool }

// styleFor returns the style for a writer. NO_COLOR, see https://no-color.org, turns
// colours off.
func styleFor(out io.Writer) style {
	return style{coloured: isCapable(out) && os.Getenv("NO_COLOR") == ""}
}

// isCapable says whether a writer writes to a terminal that knows more than text.
func isCapable(out io.Writer) bool {
	return terminalWidth(out) > 0 && os.Getenv("TERM") != "dumb" && enableEscapes(out.(*os.File))
}

func (s style) good(text string) string     { return s.paint("32", text) }
func (s style) doubtful(text string) string { return s.paint("33", text) }
func (s style) bad(text string) string      { return s.paint("31", text) }

func (s style) paint(colour, text string) string {
	if !s.coloured || text == "" {
		return text
	}
	return "\x1b[" + colour + "m" + text + "\x1b[0m"
}

// terminalWidth returns how many columns the terminal has that a writer writes to. It
// is 0 if that is no terminal.
func terminalWidth(out io.Writer) int {
	columns, _ := terminalSize(out)
	return columns
}

// terminalSize returns how many columns and lines the terminal has that a writer writes
// to. They are 0 if that is no terminal.
func terminalSize(out io.Writer) (columns, lines int) {
	file, ok := out.(*os.File)
	if !ok {
		return 0, 0
	}
	columns, lines, err := term.GetSize(int(file.Fd()))
	switch {
	case err != nil:
		return 0, 0
	case columns == 0:
		return 80, 24
	}
	return columns, lines
}

// cell is a text in a table, with how it is to be coloured; nil: not at all.
type cell struct {
	text   string
	colour func(string) string
}

// shortestCut is to how few characters the last column is cut to fit.
const shortestCut = 16

// printTable prints rows under their header. If room is not 0, no line is wider: the
// last column of all is cut, and those that do not fit are left out, and said so below.
func printTable(out io.Writer, room int, header []string, rows [][]cell) error {
	rows = cutLast(room, header, rows)
	columns := fitting(room, header, rows)
	table := [][]cell{make([]cell, 0, columns)}
	for _, title := range header[:columns] {
		table[0] = append(table[0], cell{text: title})
	}
	for _, row := range rows {
		table = append(table, row[:columns])
	}
	widths := columnWidths(columns, header, rows)
	var text strings.Builder
	for _, row := range table {
		var line strings.Builder
		for i, c := range row {
			shown := c.text
			padding := widths[i] - textWidth(shown)
			if room > 0 && i == 0 && columns == 1 {
				shown = truncate(shown, room)
				padding = 0
			}
			if c.colour != nil {
				shown = c.colour(shown)
			}
			line.WriteString(shown)
			if i < len(row)-1 {
				line.WriteString(strings.Repeat(" ", padding+columnGap))
			}
		}
		text.WriteString(strings.TrimRight(line.String(), " ") + "\n")
	}
	if columns < len(header) {
		fmt.Fprintln(&text, truncate("Hidden for want of room: "+strings.ToLower(strings.Join(header[columns:], ", ")), room))
	}
	_, err := io.WriteString(out, text.String())
	return err
}

const columnGap = 3

// fitting returns how many columns fit into the room; all do if that is 0.
func fitting(room int, header []string, rows [][]cell) int {
	if room <= 0 {
		return len(header)
	}
	total := 0
	for i, column := range columnWidths(len(header), header, rows) {
		if total += column; total > room && i > 0 {
			return i
		}
		total += columnGap
	}
	return len(header)
}

// cutLast returns the rows with the last column cut so that it fits, if that leaves
// something of it.
func cutLast(columns int, header []string, rows [][]cell) [][]cell {
	last := len(header) - 1
	room := columns
	for _, column := range columnWidths(last, header, rows) {
		room -= column + columnGap
	}
	if columns <= 0 || room < shortestCut {
		return rows
	}
	cut := make([][]cell, 0, len(rows))
	for _, row := range rows {
		row = slices.Clone(row)
		row[last].text = truncate(row[last].text, room)
		cut = append(cut, row)
	}
	return cut
}

func columnWidths(columns int, header []string, rows [][]cell) []int {
	widths := make([]int, columns)
	for i := range columns {
		widths[i] = textWidth(header[i])
		for _, row := range rows {
			widths[i] = max(widths[i], textWidth(row[i].text))
		}
	}
	return widths
}

// printable takes out what could do more to a terminal than be shown: some texts come
// from an upstream.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, text)
}

// truncate cuts a text to a number of columns; 0: not at all.
func truncate(text string, columns int) string {
	if columns <= 0 || textWidth(text) <= columns {
		return text
	}
	used := 0
	for i, r := range text {
		if used += runeWidth(r); used > columns-1 {
			return text[:i] + "…"
		}
	}
	return text
}

// textWidth returns how many columns of a terminal a text takes.
func textWidth(text string) (columns int) {
	for _, r := range text {
		columns += runeWidth(r)
	}
	return columns
}

func runeWidth(r rune) int {
	switch kind := width.LookupRune(r).Kind(); {
	case unicode.In(r, unicode.Mn, unicode.Me):
		return 0
	case kind == width.EastAsianWide, kind == width.EastAsianFullwidth:
		return 2
	}
	return 1
}

// printFields prints names with their values, of one or more lines, beside them.
func printFields(out io.Writer, fields [][2]string) error {
	indent := 0
	for _, f := range fields {
		indent = max(indent, textWidth(f[0])+columnGap)
	}
	var text strings.Builder
	for _, f := range fields {
		name := f[0]
		for line := range strings.Lines(f[1]) {
			line = name + strings.Repeat(" ", indent-textWidth(name)) + line
			text.WriteString(strings.TrimRight(line, " \n") + "\n")
			name = ""
		}
	}
	_, err := io.WriteString(out, text.String())
	return err
}
