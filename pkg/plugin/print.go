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
	"text/tabwriter"
	"unicode"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// style colours text, if it is for a terminal. The zero value does not.
type style struct{ coloured bool }

// styleFor returns the style for a writer. NO_COLOR, see https://no-color.org, turns
// colours off.
func styleFor(out io.Writer) style {
	return style{coloured: terminalWidth(out) > 0 && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"}
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
	file, ok := out.(*os.File)
	if !ok {
		return 0
	}
	size, err := unix.IoctlGetWinsize(int(file.Fd()), unix.TIOCGWINSZ)
	switch {
	case err != nil:
		return 0
	case size.Col == 0:
		return 80
	}
	return int(size.Col)
}

// cell is a text in a table, with how it is to be coloured; nil: not at all.
type cell struct {
	text   string
	colour func(string) string
}

// shortestCut is to how few characters the last column is cut to fit.
const shortestCut = 16

// printTable prints rows under their header. If width is not 0, no line is longer: the
// last column of all is cut, and those that do not fit are left out, and said so below.
func printTable(out io.Writer, width int, header []string, rows [][]cell) error {
	rows = cutLast(width, header, rows)
	columns := fitting(width, header, rows)
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
			padding := widths[i] - utf8.RuneCountInString(shown)
			if width > 0 && i == 0 && columns == 1 {
				shown = truncate(shown, width)
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
		fmt.Fprintln(&text, truncate("Hidden for want of room: "+strings.ToLower(strings.Join(header[columns:], ", ")), width))
	}
	_, err := io.WriteString(out, text.String())
	return err
}

const columnGap = 3

// fitting returns how many columns fit into the width; all do if that is 0.
func fitting(width int, header []string, rows [][]cell) int {
	if width <= 0 {
		return len(header)
	}
	total := 0
	for i, column := range columnWidths(len(header), header, rows) {
		if total += column; total > width && i > 0 {
			return i
		}
		total += columnGap
	}
	return len(header)
}

// cutLast returns the rows with the last column cut so that it fits, if that leaves
// something of it.
func cutLast(width int, header []string, rows [][]cell) [][]cell {
	last := len(header) - 1
	room := width
	for _, column := range columnWidths(last, header, rows) {
		room -= column + columnGap
	}
	if width <= 0 || room < shortestCut {
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
		widths[i] = utf8.RuneCountInString(header[i])
		for _, row := range rows {
			widths[i] = max(widths[i], utf8.RuneCountInString(row[i].text))
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

func truncate(text string, width int) string {
	if width <= 0 || utf8.RuneCountInString(text) <= width {
		return text
	}
	return string([]rune(text)[:max(width-1, 0)]) + "…"
}

// printFields prints names with their values, of one or more lines, beside them.
func printFields(out io.Writer, fields [][2]string) error {
	writer := tabwriter.NewWriter(out, 0, 0, columnGap, ' ', 0)
	for _, f := range fields {
		name := f[0]
		for line := range strings.Lines(f[1]) {
			if _, err := fmt.Fprintf(writer, "%s\t%s\n", name, strings.TrimSuffix(line, "\n")); err != nil {
				return err
			}
			name = ""
		}
	}
	return writer.Flush()
}
