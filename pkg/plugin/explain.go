// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package plugin

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/distribution/reference"
	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericclioptions"

	"github.com/gardener/gardener-extension-registry-cache/pkg/apis/inventory"
)

func newExplainCommand(flags *genericclioptions.ConfigFlags, streams Streams) *cobra.Command {
	return &cobra.Command{
		Use:   "explain-pull IMAGE",
		Short: "Explain where nodes get an image from",
		Long: `Explain where nodes get an image from: the entry of containerd's hosts.toml, the
cache that it leads to, and whether the cache has the image, and why.

Needs the rights to list services and statefulsets.apps in the namespace kube-system
and, to ask the cache, to list pods and to get and create pods/portforward there;
without these it says so. Nothing is pulled.`,
		Example: `  kubectl registry-cache explain-pull nginx:1.29
  kubectl registry-cache explain-pull ghcr.io/gardener/gardener:v1.150.0`,
		Args:              arguments(1, 1, "one image, such as nginx:1.29"),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			image, err := reference.ParseNormalizedNamed(args[0])
			if err != nil {
				return fmt.Errorf("image %q: %w", args[0], err)
			}
			cluster, err := newCluster(flags)
			if err != nil {
				return err
			}
			return explainPull(cmd.Context(), cluster, reference.TagNameOnly(image), streams)
		},
	}
}

func explainPull(ctx context.Context, cluster *cluster, image reference.Named, streams Streams) error {
	caches, err := cluster.caches(ctx)
	if err != nil {
		return err
	}
	registry := reference.Domain(image)
	fields := [][2]string{{"Image:", image.String()}, {"Registry:", registry}}
	for _, found := range caches {
		if found.upstream == registry {
			fields = append(fields, explainCache(ctx, cluster, found, image, styleFor(streams.Out))...)
			return printFields(streams.Out, fields)
		}
	}
	fields = append(fields,
		[2]string{"hosts.toml:", "none of ours: nodes pull directly from the registry"},
		[2]string{"Cache:", withoutCache(caches, registry)})
	return printFields(streams.Out, fields)
}

// withoutCache says why a registry has no cache, and how it gets one.
func withoutCache(caches []cache, registry string) string {
	if len(caches) == 0 {
		return "none: this cluster has no registry caches"
	}
	return fmt.Sprintf("none has the upstream %s, only: %s\nadd it to the caches of the extension registry-cache in the Shoot", registry, strings.Join(upstreamsOf(caches), ", "))
}

func upstreamsOf(caches []cache) []string {
	upstreams := make([]string, 0, len(caches))
	for _, c := range caches {
		upstreams = append(upstreams, c.upstream)
	}
	return upstreams
}

func explainCache(ctx context.Context, cluster *cluster, found cache, image reference.Named, style style) [][2]string {
	return [][2]string{
		{"hosts.toml:", hostsEntry(found)},
		{"Cache:", fmt.Sprintf("%s, %s", found.name, readiness(found, style))},
		{"Then:", "mirrors of the extension registry-mirror, if the Shoot has some for this registry\n" + found.remoteURL + " itself, if nothing before has the image"},
		{"Cached:", explainCached(ctx, cluster, found, image, style)},
	}
}

// hostsEntry returns what a node has about a cache while it answers, but for paths and
// times.
func hostsEntry(found cache) string {
	return fmt.Sprintf("/etc/containerd/certs.d/%s/hosts.toml on nodes that reach the cache\n"+
		"server = '%s'\n[host.'%s']\ncapabilities = ['pull', 'resolve']", found.upstream, found.remoteURL, found.endpoint)
}

func readiness(found cache, style style) string {
	text := fmt.Sprintf("%d of %d pods ready", found.ready, found.replicas)
	switch {
	case found.ready == 0:
		return style.bad(text + ": nodes withdraw the entry and pull directly")
	case found.ready < found.replicas:
		return style.doubtful(text)
	}
	return style.good(text)
}

// explainCached says what each pod of a cache has of an image, and why.
func explainCached(ctx context.Context, cluster *cluster, found cache, image reference.Named, style style) string {
	all, err := cluster.pods(ctx)
	if err != nil {
		return style.doubtful("unknown: " + err.Error())
	}
	pods := all[found.name]
	if len(pods) == 0 {
		return style.doubtful("unknown: no pod is ready that could be asked")
	}
	answers := make([]string, 0, len(pods))
	for _, p := range pods {
		listed, err := cluster.inventory(ctx, p.name, reference.Path(image))
		answer := ""
		if err != nil {
			answer = style.doubtful("unknown: " + err.Error())
		} else {
			answer = explainInventory(listed, image, style, time.Now())
		}
		if len(pods) > 1 {
			answer = p.name + ": " + answer
		}
		answers = append(answers, answer)
	}
	return strings.Join(answers, "\n")
}

// explainInventory says what a cache has of an image, and why.
func explainInventory(listed *inventory.Inventory, image reference.Named, style style, now time.Time) string {
	tag, digest := "", ""
	switch image := image.(type) {
	case reference.Digested:
		digest = image.Digest().String()
	case reference.Tagged:
		tag = image.Tag()
	}
	for _, stored := range listed.Images {
		if stored.Digest != digest && !slices.Contains(stored.Tags, tag) {
			continue
		}
		if stored.Missing > 0 {
			return style.doubtful(fmt.Sprintf("in part: %d of %d blobs", stored.Blobs, stored.Blobs+stored.Missing)) +
				", last used " + lastUsed(stored, now) + "\nthe others were not asked for, for nodes have layers of other images, or not for the ttl, or had to make room"
		}
		text := style.good(fmt.Sprintf("yes, all %d blobs", stored.Blobs)) + fmt.Sprintf(", %s, last used %s", formatBytes(stored.Bytes), lastUsed(stored, now))
		if tag != "" {
			text += fmt.Sprintf("\ntag %s was last %s; at each pull the upstream is asked whether it still is, if it answers", tag, stored.Digest)
		}
		return text
	}
	text := style.doubtful("no") + ": not pulled through this cache yet, or not for the ttl, or it had to make room"
	if len(listed.Images) > 0 {
		text += fmt.Sprintf("\nit has %d other images of this repository", len(listed.Images))
	}
	return text
}
