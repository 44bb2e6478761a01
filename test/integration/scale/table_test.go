// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package scale_test

import (
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strings"
	"time"
)

// render writes the figures as a Markdown page, a column for each number of
// Extensions, and in the last one how the last differs from the first.
func render(all []figures) string {
	t := &table{all: all}
	t.line("# One controller with many Shoots\n")
	t.line("%d caches in each Extension, %d CPUs of which API servers, etcd and gardener-resource-manager have their part,\n"+
		"the controller with its defaults (5 workers). Measured with\n", cachesPerShoot, runtime.NumCPU())
	t.line("`env $(hack/test.sh env integration) SCALE=\"100,1000\" SCALE_RESULTS=RESULTS.md go test -timeout 2h ./test/integration/scale`\n")

	header, rule := "| |", "| --- |"
	for _, f := range all {
		header += fmt.Sprintf(" %d Extensions |", f.count)
		rule += " ---: |"
	}
	t.line("%s ratio |\n%s ---: |", header, rule)
	t.numbers("first reconcile of all, s", "%.1f", func(f figures) float64 { return f.first.took.Seconds() })
	t.numbers("CPU of the controller for each, s", "%.3f", func(f figures) float64 { return f.each(f.first.cpu) })
	t.numbers("most memory meanwhile, MiB", "%.0f", func(f figures) float64 { return f.first.peak.mebibytes() })
	t.numbers("reconcile of all that has nothing to do, s", "%.1f", func(f figures) float64 { return f.again.took.Seconds() })
	t.numbers("CPU of the controller for each, s", "%.3f", func(f figures) float64 { return f.each(f.again.cpu) })
	t.numbers("most memory meanwhile, MiB", "%.0f", func(f figures) float64 { return f.again.peak.mebibytes() })
	t.numbers("open files after it", "%.0f", func(f figures) float64 { return float64(f.again.files) })
	t.numbers("memory before there were Extensions, MiB", "%.0f", func(f figures) float64 { return f.ready.mebibytes() })
	t.numbers("memory in the end, MiB", "%.0f", func(f figures) float64 { return f.settled.mebibytes() })
	t.numbers("idle: CPU in a minute, s", "%.2f", func(f figures) float64 { return f.idle.cpu.Seconds() / f.idle.took.Minutes() })
	t.numbers("idle: requests in a minute, none for a Shoot", "%.0f", func(f figures) float64 { return float64(f.idle.seed.total()) / f.idle.took.Minutes() })
	t.numbers("idle with health checks: CPU in a minute, s", "%.2f", func(f figures) float64 { return f.checked.cpu.Seconds() / f.checked.took.Minutes() })
	t.numbers("most memory meanwhile, MiB", "%.0f", func(f figures) float64 { return f.checked.peak.mebibytes() })

	t.line("\n## Requests for each Extension\n\n%s\n%s", header, rule)
	t.requests("first, Seed", func(f figures) requests { return f.first.seed })
	t.requests("first, Shoot", func(f figures) requests { return f.first.shoot })
	t.requests("again, Seed", func(f figures) requests { return f.again.seed })
	t.requests("again, Shoot", func(f figures) requests { return f.again.shoot })
	t.requests("a minute of health checks, Seed", func(f figures) requests { return f.checked.seed.forExtensions() })
	t.requests("a minute of health checks, Shoot", func(f figures) requests { return f.checked.shoot })
	t.line("\nAgain, the three writes are those of Gardener's reconciler: it takes off the annotation that asks for a reconcile, and\n" +
		"notes its begin and its end. The controller's own are 0. The first time, the number of reads depends on how long\n" +
		"gardener-resource-manager takes, which it waits for. With each health check Gardener's library updates the Extension's\n" +
		"status, also with what is there already, which the API server does not store again.")
	return t.text.String()
}

type table struct {
	all  []figures
	text strings.Builder
}

func (t *table) line(format string, arguments ...any) {
	fmt.Fprintf(&t.text, format+"\n", arguments...)
}

func (t *table) numbers(name, format string, number func(figures) float64) {
	row := "| " + name + " |"
	for _, f := range t.all {
		row += fmt.Sprintf(" "+format+" |", number(f))
	}
	ratio := "–"
	if first := number(t.all[0]); first > 0 {
		ratio = fmt.Sprintf("%.2f", number(t.all[len(t.all)-1])/first)
	}
	t.line("%s %s |", row, ratio)
}

func (t *table) requests(name string, of func(figures) requests) {
	names := map[string]bool{}
	for _, f := range t.all {
		for request := range of(f).per(f.count) {
			names[request] = true
		}
	}
	for _, request := range slices.Sorted(maps.Keys(names)) {
		row := "| " + name + ": " + request + " |"
		for _, f := range t.all {
			row += fmt.Sprintf(" %.2f |", float64(of(f)[request])/float64(f.count))
		}
		t.line("%s", row)
	}
}

// each is the part of one Extension in seconds.
func (f figures) each(duration time.Duration) float64 { return duration.Seconds() / float64(f.count) }

func (m memory) mebibytes() float64 { return float64(m) / (1 << 20) }
