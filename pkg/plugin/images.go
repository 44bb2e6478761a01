// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package plugin

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
	"k8s.io/apimachinery/pkg/util/duration"
	"k8s.io/cli-runtime/pkg/genericclioptions"

	"github.com/gardener/gardener-extension-registry-cache/pkg/apis/inventory"
)

func newImagesCommand(flags *genericclioptions.ConfigFlags, streams Streams) *cobra.Command {
	output := &output{}
	cmd := &cobra.Command{
		Use:   "images [UPSTREAM]",
		Short: "List the images that the caches have, the last used first",
		Long: `List the images that the caches have, or the one of an upstream: their size, how many
of their blobs are stored, and when they were last used. Images can share blobs, so sizes
do not add up.

A cache tells this on the loopback address of its pod only, for names of images can be
secrets. Needs the rights to list services, statefulsets.apps and pods, and to get and
create pods/portforward, in the namespace kube-system.`,
		Example: `  kubectl registry-cache images
  kubectl registry-cache images docker.io

  # The ten largest
  kubectl registry-cache images -o json | jq -r '[.caches[].images[]] | sort_by(-.bytes)[:10][] | "\(.bytes) \(.repository)"'`,
		Args: arguments(0, 1, "at most one upstream"),
		ValidArgsFunction: func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			return completeUpstreams(cmd.Context(), flags, args), cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			cluster, err := newCluster(flags)
			if err != nil {
				return err
			}
			return listImages(cmd.Context(), cluster, strings.Join(args, ""), output, streams)
		},
	}
	output.addTo(cmd)
	return cmd
}

// completeUpstreams returns the upstreams that there are caches of, if they can be had.
func completeUpstreams(ctx context.Context, flags *genericclioptions.ConfigFlags, args []string) []string {
	if len(args) > 0 {
		return nil
	}
	cluster, err := newCluster(flags)
	if err != nil {
		return nil
	}
	// Nobody waits longer for a completion.
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	caches, err := cluster.caches(ctx)
	if err != nil {
		return nil
	}
	return upstreamsOf(caches)
}

// imagesOutput is what images prints as JSON or YAML.
type imagesOutput struct {
	Caches []podImages `json:"caches"`
}

// podImages are the images that a pod of a cache has.
type podImages struct {
	Upstream string `json:"upstream"`
	Pod      string `json:"pod"`
	inventory.Inventory
}

func listImages(ctx context.Context, cluster *cluster, upstream string, output *output, streams Streams) error {
	caches, err := cluster.caches(ctx)
	if err != nil {
		return err
	}
	if upstream != "" {
		all := caches
		caches = slices.DeleteFunc(slices.Clone(caches), func(c cache) bool { return c.upstream != upstream })
		if len(caches) == 0 {
			return fmt.Errorf("no cache has the upstream %q: %s", upstream, withoutCache(all, upstream))
		}
	}
	if len(caches) == 0 && output.format == "" {
		_, _ = fmt.Fprintln(streams.Err, "No registry caches in this cluster.")
		return nil
	}
	listed, unanswered, err := askForImages(ctx, cluster, caches, streams.Err)
	if err != nil {
		return err
	}
	if output.format != "" {
		err = output.print(streams.Out, imagesOutput{Caches: listed})
	} else {
		err = printTable(streams.Out, terminalWidth(streams.Out), imagesHeader, imageRows(listed, styleFor(streams.Out), time.Now()))
	}
	if err == nil && unanswered > 0 {
		err = fmt.Errorf("%d of %d pods did not answer: what they have is not listed", unanswered, unanswered+len(listed))
	}
	return err
}

// askForImages returns the images of all pods of the caches that answer, and how many do
// not. It says which do not, and which caches have no pod that could be asked.
func askForImages(ctx context.Context, cluster *cluster, caches []cache, log io.Writer) (listed []podImages, unanswered int, err error) {
	listed = []podImages{}
	if len(caches) == 0 {
		return listed, 0, nil
	}
	pods, err := cluster.pods(ctx)
	if err != nil {
		return nil, 0, err
	}
	for _, c := range caches {
		if len(pods[c.name]) == 0 {
			_, _ = fmt.Fprintf(log, "%s: no pod is ready that could be asked\n", c.upstream)
		}
		for _, p := range pods[c.name] {
			listed = append(listed, podImages{Upstream: c.upstream, Pod: p.name})
		}
	}
	failures := make([]error, len(listed))
	group, groupCtx := errgroup.WithContext(ctx)
	group.SetLimit(askAtOnce)
	for i := range listed {
		group.Go(func() error {
			found, err := cluster.inventory(groupCtx, listed[i].Pod, "")
			if isClusterError(err) {
				return err
			}
			if failures[i] = err; err == nil {
				listed[i].Inventory = *found
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return nil, 0, err
	}
	answered := make([]podImages, 0, len(listed))
	for i, of := range listed {
		if failures[i] != nil {
			_, _ = fmt.Fprintf(log, "%s: %s\n", of.Upstream, printable(failures[i].Error()))
			continue
		}
		if of.Truncated {
			_, _ = fmt.Fprintf(log, "%s: pod %s has more images than it lists\n", of.Upstream, of.Pod)
		}
		answered = append(answered, of)
	}
	return answered, len(listed) - len(answered), nil
}

var imagesHeader = []string{"IMAGE", "SIZE", "LAST USED", "CACHED", "DIGEST"}

// imageRows returns a row for each name of each image, the last used first. Of what
// several replicas have it shows the most complete.
func imageRows(listed []podImages, style style, now time.Time) [][]cell {
	images := make(map[string]inventory.Image)
	for _, pod := range listed {
		for _, image := range pod.Images {
			for _, name := range imageNames(pod.Upstream, image) {
				key := name + "\n" + image.Digest
				if best, ok := images[key]; !ok || image.Missing < best.Missing || image.Missing == best.Missing && image.LastUsed.After(best.LastUsed) {
					images[key] = image
				}
			}
		}
	}
	keys := make([]string, 0, len(images))
	for key := range images {
		keys = append(keys, key)
	}
	slices.SortFunc(keys, func(a, b string) int {
		return cmp.Or(images[b].LastUsed.Compare(images[a].LastUsed), cmp.Compare(a, b))
	})
	rows := make([][]cell, 0, len(keys))
	for _, key := range keys {
		image := images[key]
		name, _, _ := strings.Cut(key, "\n")
		rows = append(rows, []cell{
			{text: printable(name)}, {text: formatBytes(image.Bytes)}, {text: lastUsed(image, now)}, cachedCell(image, style), {text: printable(image.Digest)},
		})
	}
	return rows
}

// imageNames returns the names by which an image is pulled.
func imageNames(upstream string, image inventory.Image) []string {
	repository := upstream + "/" + image.Repository
	if len(image.Tags) == 0 {
		return []string{repository + "@" + shortDigest(image.Digest)}
	}
	names := make([]string, 0, len(image.Tags))
	for _, tag := range image.Tags {
		names = append(names, repository+":"+tag)
	}
	return names
}

func shortDigest(digest string) string {
	const length = len("sha256:") + 12
	if len(digest) <= length {
		return digest
	}
	return digest[:length] + "…"
}

func lastUsed(image inventory.Image, now time.Time) string {
	if image.LastUsed.IsZero() {
		return "-"
	}
	return duration.HumanDuration(max(now.Sub(image.LastUsed), 0)) + " ago"
}

func cachedCell(image inventory.Image, style style) cell {
	if image.Missing > 0 {
		return cell{text: fmt.Sprintf("%d of %d", image.Blobs, image.Blobs+image.Missing), colour: style.doubtful}
	}
	return cell{text: "all", colour: style.good}
}
