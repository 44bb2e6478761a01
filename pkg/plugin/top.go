// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package plugin

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
	"k8s.io/cli-runtime/pkg/genericclioptions"
)

const (
	defaultInterval = 5 * time.Second
	shortestPause   = time.Second
	// clearScreen moves to the upper left corner and clears what is below.
	clearScreen = "\x1b[H\x1b[J"
)

func newTopCommand(flags *genericclioptions.ConfigFlags, streams Streams) *cobra.Command {
	once, interval := false, defaultInterval
	cmd := &cobra.Command{
		Use:   "top",
		Short: "Show what the caches do right now",
		Long: `Show what the caches do right now, from the metrics of their pods: requests, the share
of them that did not need the upstream, bytes to nodes and from the upstream, and blobs
being fetched, in the time since the last look. It goes on until Ctrl-C.

Needs the rights to list services, statefulsets.apps and pods, and to get pods/proxy, in
the namespace kube-system.`,
		Example: `  kubectl registry-cache top

  # One table, of what happens within 30 seconds
  kubectl registry-cache top --once --interval 30s`,
		Args:              cobra.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if interval < shortestPause {
				return fmt.Errorf("interval %s: must be at least %s", interval, shortestPause)
			}
			cluster, err := newCluster(flags)
			if err != nil {
				return err
			}
			err = top(cmd.Context(), cluster, once, interval, streams)
			if !once && cmd.Context().Err() != nil {
				return nil // that is how it ends
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&once, "once", false, "show one table, and end")
	cmd.Flags().DurationVar(&interval, "interval", interval, "the time between two looks")
	return cmd
}

// sample is what the metrics of the pods of a cache say.
type sample struct {
	// pods are their samples by name; err is why one is missing.
	pods map[string]counters
	err  error
}

// counters are metrics of a pod at a time.
type counters struct {
	at time.Time

	requests, hits, toNodes, fromUpstream, flights, used, total float64
}

// follow says whether they are of the same run of the pod as earlier ones: they only
// grow.
func (c counters) follow(earlier counters) bool {
	return c.requests >= earlier.requests && c.hits >= earlier.hits && c.toNodes >= earlier.toNodes && c.fromUpstream >= earlier.fromUpstream
}

func top(ctx context.Context, cluster *cluster, once bool, interval time.Duration, streams Streams) error {
	_, before, err := look(ctx, cluster)
	if err != nil {
		return err
	}
	live := isCapable(streams.Out) && !once
	if live {
		_, _ = fmt.Fprintf(streams.Err, "Measuring for %s ...\n", interval)
	}
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(interval):
		}
		caches, now, err := look(ctx, cluster)
		var silent *noAnswerError
		if live && ctx.Err() == nil && errors.As(err, &silent) {
			// It comes back, or the user ends this.
			_, _ = fmt.Fprintf(streams.Err, "%s, trying again ...\n", err)
			continue
		}
		if err != nil {
			return err
		}
		if err := showTop(live, caches, before, now, streams); err != nil {
			return err
		}
		if once {
			return nil
		}
		before = now
	}
}

// showTop shows what happened between two looks; live, in place of what is on the
// terminal, and no more than fits there.
func showTop(live bool, caches []cache, before, now map[string]sample, streams Streams) error {
	text, columns, lines := "", 0, 0
	if live {
		columns, lines = terminalSize(streams.Out)
		text = clearScreen
	} else {
		columns = terminalWidth(streams.Out)
	}
	if len(caches) == 0 {
		if _, err := io.WriteString(streams.Out, text); err != nil {
			return err
		}
		_, _ = fmt.Fprintln(streams.Err, "No registry caches in this cluster.")
		return nil
	}
	table, err := formatTop(columns, styleFor(streams.Out), caches, before, now)
	if err != nil {
		return err
	}
	_, err = io.WriteString(streams.Out, text+firstLines(table, lines))
	return err
}

// firstLines returns the lines of a text that fit on a terminal of so many lines, of
// which the cursor takes one, and says how many there are besides; 0: all.
func firstLines(text string, lines int) string {
	all := slices.Collect(strings.Lines(text))
	fit := lines - 2
	if fit < 1 || len(all) <= fit+1 {
		return text
	}
	return strings.Join(all[:fit], "") + fmt.Sprintf("%d more lines: enlarge the terminal, or use --once\n", len(all)-fit)
}

// formatTop returns what happened between two looks, and which pods did not answer.
func formatTop(columns int, style style, caches []cache, before, now map[string]sample) (string, error) {
	var text strings.Builder
	if err := printTable(&text, columns, topHeader, topRows(caches, before, now, style)); err != nil {
		return "", err
	}
	for _, c := range caches {
		if err := now[c.name].err; err != nil {
			text.WriteString(style.doubtful(truncate(c.upstream+": "+printable(err.Error()), columns)) + "\n")
		}
	}
	return text.String(), nil
}

func look(ctx context.Context, cluster *cluster) ([]cache, map[string]sample, error) {
	caches, err := cluster.caches(ctx)
	if err != nil {
		return nil, nil, err
	}
	samples, err := lookAt(ctx, cluster, caches)
	return caches, samples, err
}

// lookAt returns samples of caches by their names. A pod that does not answer is no
// error, but a right that is missing is.
func lookAt(ctx context.Context, cluster *cluster, caches []cache) (map[string]sample, error) {
	samples := make(map[string]sample, len(caches))
	if len(caches) == 0 {
		return samples, nil
	}
	pods, err := cluster.pods(ctx)
	if err != nil {
		return nil, err
	}
	var lock sync.Mutex
	group, groupCtx := errgroup.WithContext(ctx)
	group.SetLimit(askAtOnce)
	for _, c := range caches {
		for _, p := range pods[c.name] {
			group.Go(func() error {
				counted, err := askForCounters(groupCtx, cluster, p)
				if isClusterError(err) {
					return err
				}
				lock.Lock()
				defer lock.Unlock()
				taken := samples[c.name]
				if taken.pods == nil {
					taken.pods = make(map[string]counters)
				}
				if taken.err = errors.Join(taken.err, err); err == nil {
					taken.pods[p.name] = counted
				}
				samples[c.name] = taken
				return nil
			})
		}
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	return samples, ctx.Err()
}

func askForCounters(ctx context.Context, cluster *cluster, p pod) (counters, error) {
	raw, err := cluster.ask(ctx, p, "metrics")
	if err != nil {
		return counters{}, err
	}
	at := time.Now()
	counted, err := parseCounters(raw)
	counted.at = at
	return counted, err
}

func parseCounters(raw []byte) (counters, error) {
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(bytes.NewReader(raw))
	if err != nil {
		return counters{}, fmt.Errorf("parse metrics: %w", err)
	}
	return counters{
		requests: total(families["registry_proxy_requests_total"]), hits: total(families["registry_proxy_hits_total"]),
		toNodes: total(families["registry_proxy_pushed_bytes_total"]), fromUpstream: total(families["registry_proxy_pulled_bytes_total"]),
		flights: total(families["registry_cache_flights"]),
		used:    total(families["registry_cache_volume_used_bytes"]), total: total(families["registry_cache_volume_bytes"]),
	}, nil
}

// total returns the sum of the series of a metric; a metric that is missing has none.
func total(family *dto.MetricFamily) (sum float64) {
	for _, metric := range family.GetMetric() {
		sum += metric.GetCounter().GetValue() + metric.GetGauge().GetValue()
	}
	return sum
}

var topHeader = []string{"UPSTREAM", "PODS", "REQUESTS/S", "HITS", "TO NODES", "FROM UPSTREAM", "FETCHING", "USED"}

func topRows(caches []cache, before, now map[string]sample, style style) [][]cell {
	rows := make([][]cell, 0, len(caches))
	for _, c := range caches {
		row := []cell{{text: c.upstream}, podsCell(c, style)}
		sample := now[c.name]
		if len(sample.pods) == 0 {
			for range topHeader[2:] {
				row = append(row, cell{text: "-"})
			}
			rows = append(rows, row)
			continue
		}
		var rate, state counters
		for name, counted := range sample.pods {
			state.flights += counted.flights
			state.used += counted.used
			state.total += counted.total
			// A pod that was not there, or that began anew, tells the next time.
			if last, ok := before[c.name].pods[name]; ok && counted.follow(last) {
				seconds := max(counted.at.Sub(last.at).Seconds(), 1e-3)
				rate.requests += (counted.requests - last.requests) / seconds
				rate.hits += (counted.hits - last.hits) / seconds
				rate.toNodes += (counted.toNodes - last.toNodes) / seconds
				rate.fromUpstream += (counted.fromUpstream - last.fromUpstream) / seconds
			}
		}
		hits := "-"
		if rate.requests > 0 {
			hits = fmt.Sprintf("%.0f%%", 100*rate.hits/rate.requests)
		}
		rows = append(rows, append(row,
			cell{text: fmt.Sprintf("%.1f", rate.requests)}, cell{text: hits},
			cell{text: formatBytes(int64(rate.toNodes)) + "/s"}, cell{text: formatBytes(int64(rate.fromUpstream)) + "/s"},
			cell{text: fmt.Sprintf("%.0f", state.flights)}, usedCell(int64(state.used), int64(state.total), style)))
	}
	return rows
}
