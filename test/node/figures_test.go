// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package node_test

import (
	"cmp"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/gardener/gardener-extension-registry-cache/test/upstream"
)

// figures are those of all specs.
var figures table

type table struct {
	pulls  []pullRow
	events []eventRow
}

// pullRow is what a pull took, and what the upstream saw of it.
type pullRow struct {
	trial, containerd, what, wanted string
	took, direct                    time.Duration
	upstream                        upstream.Counts
}

func (r pullRow) cells() []string {
	return []string{
		r.trial, r.what, r.containerd,
		seconds(r.took), seconds(r.direct), fmt.Sprintf("%.2f", r.took.Seconds()/r.direct.Seconds()), r.wanted,
		fmt.Sprint(r.upstream.Heads + r.upstream.Manifests), fmt.Sprint(r.upstream.Blobs), fmt.Sprintf("%.1f", float64(r.upstream.BlobBytes)/(1<<20)),
	}
}

func (r pullRow) String() string {
	c := r.cells()
	return fmt.Sprintf("%s s, direct %s s, ratio %s (wanted: %s); upstream: %s manifest requests, %s blobs of %s MiB", c[3], c[4], c[5], c[6], c[7], c[8], c[9])
}

// eventRow is how long hosts.toml took to follow.
type eventRow struct {
	trial, what string
	took, limit time.Duration
}

func (r eventRow) cells() []string {
	return []string{r.trial, r.what, fmt.Sprintf("%.1f", r.took.Seconds()), fmt.Sprintf("≤ %.0f", r.limit.Seconds())}
}

func (r eventRow) String() string {
	c := r.cells()
	return fmt.Sprintf("after %s s (wanted: %s)", c[2], c[3])
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.2f", d.Seconds()) }

// markdown is two tables.
func (t table) markdown() string {
	var pulls, events [][]string
	for _, row := range t.pulls {
		pulls = append(pulls, row.cells())
	}
	for _, row := range t.events {
		events = append(events, row.cells())
	}
	return markdownTable([]string{
		"case", "pull", "containerd", "s", "direct, s", "ratio", "wanted", "manifest requests", "blob requests", "MiB",
	}, 3, pulls) + "\n" + markdownTable([]string{"case", "hosts.toml", "s", "wanted"}, 2, events)
}

// markdownTable aligns columns to the right from one on. Rows are sorted by their
// first cell, as specs run in any order.
func markdownTable(header []string, right int, rows [][]string) string {
	slices.SortStableFunc(rows, func(a, b []string) int { return cmp.Compare(a[0], b[0]) })
	rule := make([]string, len(header))
	for i := range rule {
		rule[i] = "---"
		if i >= right {
			rule[i] = "--:"
		}
	}
	var text strings.Builder
	for _, row := range append([][]string{header, rule}, rows...) {
		fmt.Fprintln(&text, "| "+strings.Join(row, " | ")+" |")
	}
	return text.String()
}

// document is the content of RESULTS.md.
func (t table) document() string {
	kernel, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	return fmt.Sprintf(`# What pulls cost on a node

The tests in this folder write this file if NODE_RESULTS names it.

- Date: %s
- Machine: %d cores, Linux %s
- Image: %d layers of %d MiB
- Upstream: answers after %s, and sends %d MiB/s on each connection

A direct pull is one of the same image on the same node at the same time. Where a
ratio of 1.05 is wanted, both times are the shortest of %d; at once after a fault
there is one pull only. The last three columns are what the upstream saw of the
pull. containerd gives up a pull without progress after %s instead of its default of
5 minutes.

%s`, time.Now().UTC().Format("2006-01-02 15:04 UTC"), runtime.NumCPU(), strings.TrimSpace(string(kernel)),
		layers, layerSize>>20, upstreamSpeed.Delay, upstreamSpeed.BytesPerSecond>>20, repeats, progressTimeout, t.markdown())
}
