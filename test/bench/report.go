// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"math"
	"slices"
	"strings"
)

// cell is a figure of the table, and how far its samples are apart. The zero
// value stands for nothing measured.
type cell struct {
	value, low, high float64
	samples          int
	// cut tells that the figure would be larger, had the bench waited longer.
	cut bool
}

// median returns the median of samples.
func median(values []float64) cell {
	if len(values) == 0 {
		return cell{}
	}
	sorted := slices.Sorted(slices.Values(values))
	middle := len(sorted) / 2
	c := cell{value: sorted[middle], low: sorted[0], high: sorted[len(sorted)-1], samples: len(sorted)}
	if len(sorted)%2 == 0 {
		c.value = (sorted[middle-1] + sorted[middle]) / 2
	}
	return c
}

// largest returns the largest sample: the statistic of peaks.
func largest(values []float64) cell {
	c := median(values)
	c.value = c.high
	return c
}

// cutCell returns a cell of one sample, which is a bound if cut is set.
func cutCell(cut bool, bound, value float64) cell {
	if cut {
		value = bound
	}
	return cell{value: value, low: value, high: value, samples: 1, cut: cut}
}

func (c cell) text(format string) string {
	if c.samples == 0 {
		return "–"
	}
	text := fmt.Sprintf(format, c.value)
	low, high := fmt.Sprintf(format, c.low), fmt.Sprintf(format, c.high)
	switch {
	case c.cut:
		return fmt.Sprintf("> %.0f", c.value)
	case low == high:
		return text
	default:
		return fmt.Sprintf("%s (%s–%s)", text, low, high)
	}
}

// limit is what our figure is held to.
type limit struct {
	text        string
	value, most float64
}

func atMost(text string, value, most float64) *limit {
	return &limit{text: "≤ " + text, value: value, most: most}
}

// tolerance is for the rounding of floating point numbers.
const tolerance = 1e-9

func (l *limit) met() string {
	if l == nil {
		return ""
	}
	if l.value <= l.most+tolerance {
		return fmt.Sprintf("yes (%.2f)", l.value)
	}
	return fmt.Sprintf("**no** (%.2f)", l.value)
}

// row is a row of the table.
type row struct {
	what, unit string
	// format prints the figures.
	format string
	// reference names what referenceCell is about.
	reference     string
	referenceCell cell
	stock, ours   cell
	limit         *limit
}

func (r row) markdown() string {
	reference, referenceRatio, ratio, limit := "", "", "", ""
	if r.reference != "" {
		reference = r.reference + ": " + r.referenceCell.text(r.format)
	}
	if r.referenceCell.value > 0 && r.ours.samples > 0 {
		referenceRatio = fmt.Sprintf("%.2f", r.ours.value/r.referenceCell.value)
	}
	if r.stock.samples > 0 && r.ours.samples > 0 && r.stock.value > 0 {
		ratio = fmt.Sprintf("%.2f", r.ours.value/r.stock.value)
		if r.stock.cut {
			ratio = fmt.Sprintf("< %.2f", math.Ceil(100*r.ours.value/r.stock.value)/100)
		}
	}
	if r.limit != nil {
		limit = r.limit.text
	}
	columns := []string{r.what, r.unit, reference, r.stock.text(r.format), r.ours.text(r.format), ratio, referenceRatio, limit, r.limit.met()}
	return "| " + strings.Join(columns, " | ") + " |\n"
}

// legend explains the table.
const legend = `The image has 4 layers of 32 MiB. The upstream answers after 20 ms, and sends
50 MiB/s on each connection. Clients verify digests, and fetch three blobs at a
time. Upstream and clients share the machine with the cache. Figures are medians,
and the peaks of memory maxima; in parentheses are the lowest and the highest.
`

// markdown returns the whole report.
func markdown(head []string, rows []row) string {
	var text strings.Builder
	text.WriteString("# Our cache and a stock registry\n\n`make bench` writes this file.\n\n")
	for _, line := range head {
		text.WriteString("- " + line + "\n")
	}
	text.WriteString("\n" + legend + "\n")
	text.WriteString("| what | unit | to compare | stock | ours | ours : stock | ours : to compare | target | met |\n|---|---|---|--:|--:|--:|--:|---|---|\n")
	for _, r := range rows {
		text.WriteString(r.markdown())
	}
	return text.String()
}
