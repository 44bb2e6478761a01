// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package plugin

import (
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
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

// printTable prints rows under their header. If width is not 0, no line is longer:
// the last columns that do not fit are left out, and said so below.
func printTable(out io.Writer, width int, header []string, rows [][]cell) error {
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
