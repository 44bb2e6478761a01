// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package plugin

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/util/duration"
	"k8s.io/cli-runtime/pkg/genericclioptions"

	shootv1alpha3 "github.com/gardener/gardener-extension-registry-cache/pkg/apis/shoot/v1alpha3"
)

func newStatusCommand(flags *genericclioptions.ConfigFlags, streams Streams) *cobra.Command {
	output := &output{}
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show the caches: pods, hit ratio, volume, and how the upstream is",
		Long: `Show the caches: how many pods are ready, which share of requests did not need the
upstream, how full the volume is, and how the upstream is. Pods are as Kubernetes sees
them; the rest is what the caches reported, at most 30 seconds ago if something changed.

Needs the rights to list services, statefulsets.apps and
registrycaches.registry.extensions.gardener.cloud in the namespace kube-system.`,
		Example: `  kubectl registry-cache status

  # The upstreams of all caches that are not ready
  kubectl registry-cache status -o json | jq -r '.caches[] | select(.pods.ready == 0).upstream'`,
		Args:              cobra.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cluster, err := newCluster(flags)
			if err != nil {
				return err
			}
			return showStatus(cmd.Context(), cluster, output, streams)
		},
	}
	output.addTo(cmd)
	return cmd
}

// statusOutput is what status prints as JSON or YAML.
type statusOutput struct {
	Caches []cacheOutput `json:"caches"`
}

type cacheOutput struct {
	Name      string     `json:"name"`
	Upstream  string     `json:"upstream"`
	RemoteURL string     `json:"remoteURL"`
	Service   string     `json:"service"`
	Endpoint  string     `json:"endpoint"`
	Pods      podsOutput `json:"pods"`
	// Status is what the cache has reported; unset, nothing.
	Status *shootv1alpha3.RegistryCacheStatus `json:"status,omitempty"`
}

type podsOutput struct {
	Ready  int32 `json:"ready"`
	Wanted int32 `json:"wanted"`
}

func showStatus(ctx context.Context, cluster *cluster, output *output, streams Streams) error {
	caches, err := cluster.caches(ctx)
	if err != nil {
		return err
	}
	reports, found, err := cluster.reports(ctx)
	if err != nil {
		return err
	}
	if !found && len(caches) > 0 {
		_, _ = fmt.Fprintln(streams.Err, "This cluster has no RegistryCaches: the extension has not been updated yet, or is about to be. Only pods are known.")
	}
	switch {
	case output.format != "":
		return output.print(streams.Out, newStatusOutput(caches, reports))
	case len(caches) == 0:
		_, _ = fmt.Fprintln(streams.Err, "No registry caches in this cluster.")
		return nil
	}
	return printTable(streams.Out, terminalWidth(streams.Out), statusHeader, statusRows(caches, reports, styleFor(streams.Out), time.Now()))
}

func newStatusOutput(caches []cache, reports map[string]*shootv1alpha3.RegistryCacheStatus) statusOutput {
	all := statusOutput{Caches: make([]cacheOutput, 0, len(caches))}
	for _, c := range caches {
		all.Caches = append(all.Caches, cacheOutput{
			Name: c.name, Upstream: c.upstream, RemoteURL: c.remoteURL, Service: c.service, Endpoint: c.endpoint,
			Pods: podsOutput{Ready: c.ready, Wanted: c.replicas}, Status: reports[c.name],
		})
	}
	return all
}

// staleAfter is how old a report becomes at most while a cache runs and reaches the API
// server, with some patience.
const staleAfter = 15 * time.Minute

// statusHeader has the columns in the order of their weight: a narrow terminal shows the
// first of them.
var statusHeader = []string{"UPSTREAM", "PODS", "HITS", "USED", "FAILURES", "BLOBS", "REPORTED", "ENDPOINT", "LAST FAILURE"}

func statusRows(caches []cache, reports map[string]*shootv1alpha3.RegistryCacheStatus, style style, now time.Time) [][]cell {
	rows := make([][]cell, 0, len(caches))
	for _, c := range caches {
		row := []cell{{text: c.upstream}, podsCell(c, style)}
		if report := reports[c.name]; report != nil {
			row = append(row,
				cell{text: orDash(report.HitRatio)}, usedCell(report.UsedBytes, report.TotalBytes, style), failuresCell(report, style, now),
				cell{text: fmt.Sprint(report.Blobs)}, reportedCell(report, style, now), cell{text: c.endpoint}, cell{text: lastFailure(report)})
		} else {
			row = append(row, cell{text: "-"}, cell{text: "-"}, cell{text: "unknown", colour: style.doubtful}, cell{text: "-"}, cell{text: "-"}, cell{text: c.endpoint}, cell{text: "-"})
		}
		rows = append(rows, row)
	}
	return rows
}

func podsCell(c cache, style style) cell {
	shown := cell{text: fmt.Sprintf("%d/%d", c.ready, c.replicas), colour: style.good}
	switch {
	case c.ready == 0:
		shown.colour = style.bad
	case c.ready < c.replicas:
		shown.colour = style.doubtful
	}
	return shown
}

func usedCell(used, total int64, style style) cell {
	if total <= 0 {
		return cell{text: "-"}
	}
	percent := used * 100 / total
	shown := cell{text: fmt.Sprintf("%s of %s (%d%%)", formatBytes(used), formatBytes(total), percent)}
	// Eviction begins at 90 %.
	if percent > 95 {
		shown.colour = style.doubtful
	}
	return shown
}

// failuresCell says how the upstream is.
func failuresCell(report *shootv1alpha3.RegistryCacheStatus, style style, now time.Time) cell {
	switch {
	case report.UpstreamLeftAlone:
		return cell{text: "now", colour: style.bad}
	case report.LastUpstreamError != nil:
		return cell{text: duration.HumanDuration(now.Sub(report.LastUpstreamError.Time.Time)) + " ago", colour: style.doubtful}
	}
	return cell{text: "none", colour: style.good}
}

// reportedCell says how old all is that a cache reported.
func reportedCell(report *shootv1alpha3.RegistryCacheStatus, style style, now time.Time) cell {
	if report.LastReportTime == nil {
		return cell{text: "-"}
	}
	age := max(now.Sub(report.LastReportTime.Time), 0)
	shown := cell{text: duration.HumanDuration(age) + " ago"}
	if age > staleAfter {
		shown.colour = style.doubtful
	}
	return shown
}

func lastFailure(report *shootv1alpha3.RegistryCacheStatus) string {
	if report.LastUpstreamError == nil {
		return "-"
	}
	return printable(report.LastUpstreamError.Message)
}

func orDash(text string) string {
	if text == "" {
		return "-"
	}
	return printable(text)
}

// formatBytes returns a number of bytes as people read it.
func formatBytes(bytes int64) string {
	const units = "KMGTPE"
	if bytes < 1<<10 {
		return fmt.Sprintf("%dB", bytes)
	}
	value, unit := float64(bytes)/(1<<10), 0
	for value >= 999.5 && unit < len(units)-1 {
		value /= 1 << 10
		unit++
	}
	if value < 9.95 {
		return fmt.Sprintf("%.1f%ciB", value, units[unit])
	}
	return fmt.Sprintf("%.0f%ciB", value, units[unit])
}
