// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/gardener/gardener-extension-registry-cache/pkg/hosts"
	"github.com/gardener/gardener-extension-registry-cache/test/cluster"
	"github.com/gardener/gardener-extension-registry-cache/test/landscape"
	"github.com/gardener/gardener-extension-registry-cache/test/sandbox"
	"github.com/gardener/gardener-extension-registry-cache/test/upstream"
)

const (
	// upstreamHost is the upstream of the cache in example/demo. Here it is a
	// registry on this machine that has the names of the real one.
	upstreamHost = "docker.io"
	image        = "docker.io/demo/app:v1"

	layers    = 4
	layerSize = 16 << 20
)

// speed is that of the upstream.
var speed = upstream.Speed{Delay: 20 * time.Millisecond, BytesPerSecond: 20 << 20}

// story is a demo while it is told.
type story struct {
	out       io.Writer
	started   time.Time
	landscape *landscape.Landscape
	shoot     *landscape.Shoot
	registry  *upstream.Registry
	pulls     []pull
}

type pull struct {
	title string
	landscape.Pull
}

func newStory(out io.Writer) *story {
	return &story{out: out, started: time.Now()}
}

func (s *story) tell(ctx context.Context, box *sandbox.Sandbox) error {
	for _, chapter := range []struct {
		title string
		tell  func(context.Context) error
	}{
		{"A Seed, a Shoot and its node", func(ctx context.Context) error { return s.startLandscape(ctx, box) }},
		{"A pull without a cache", s.pullDirectly},
		{"The Shoot's owner asks for a cache of " + upstreamHost, s.deployCache},
		{"The node learns of the cache", s.configureNode},
		{"Pulls through the cache", s.pullThroughCache},
		{"The cache is gone", s.pullWithoutCache},
	} {
		s.printf("\n%s\n", chapter.title)
		if err := chapter.tell(ctx); err != nil {
			return fmt.Errorf("%s: %w", chapter.title, err)
		}
	}
	return s.printTable()
}

func (s *story) startLandscape(ctx context.Context, box *sandbox.Sandbox) (err error) {
	options := landscape.Options{Root: ".", Options: cluster.Options{Progress: func(step string) { s.step("%s", step) }}}
	if s.landscape, err = landscape.Start(ctx, box, options); err != nil {
		return err
	}
	if s.registry, err = s.landscape.StartRegistry(ctx, speed, "", "", "registry-1.docker.io", "docker.io"); err != nil {
		return err
	}
	app, err := landscape.NewImage(layers, layerSize)
	if err != nil {
		return err
	}
	if err := landscape.Push(ctx, s.registry, "demo/app", "v1", app); err != nil {
		return err
	}
	s.step("%s is played by a registry that answers after %s and sends %d MiB/s a connection", upstreamHost, speed.Delay, speed.BytesPerSecond>>20)
	s.step("it has %s with %d layers of %d MiB", image, layers, layerSize>>20)
	return nil
}

func (s *story) pullDirectly(ctx context.Context) error {
	return s.pull(ctx, "direct, the Shoot has no cache", expectation{fromUpstream: true})
}

func (s *story) deployCache(ctx context.Context) (err error) {
	if s.shoot, err = s.landscape.NewShoot(ctx); err != nil {
		return err
	}
	s.step("applied example/demo/cluster.yaml to the Seed, as gardenlet does")
	status, err := s.shoot.ApplyExtension(ctx)
	if err != nil {
		return err
	}
	s.step("applied example/demo/extension.yaml, and the controller has reconciled it: the cache is at %s", status.Caches[0].Endpoint)
	pod, err := s.landscape.AwaitCache(ctx, upstreamHost)
	if err != nil {
		return err
	}
	s.step("pod %s/%s is ready, with image %s", pod.Namespace, pod.Name, pod.Spec.Containers[0].Image)
	return nil
}

func (s *story) configureNode(ctx context.Context) error {
	osc, err := s.shoot.UpdateNode(ctx)
	if err != nil {
		return err
	}
	var added []string
	for _, file := range osc.Spec.Files {
		if strings.HasPrefix(file.Path, hosts.Directory) {
			added = append(added, file.Path)
		}
	}
	if len(added) == 0 {
		return errors.New("the webhook has added nothing to the OperatingSystemConfig")
	}
	s.step("applied example/demo/operatingsystemconfig.yaml, to which the webhook has added a unit and")
	for _, path := range added {
		s.printf("             | %s\n", path)
	}
	if _, err := s.landscape.Node.Run(ctx, "systemctl", "is-active", hosts.UnitName); err != nil {
		return err
	}
	s.step("gardener-node-agent has applied it: %s runs", hosts.UnitName)
	return s.showHostsTOML(ctx)
}

func (s *story) showHostsTOML(ctx context.Context) error {
	content, err := s.landscape.AwaitHostsTOML(ctx, upstreamHost, true)
	if err != nil {
		return err
	}
	s.step("the cache answers the node, so containerd has /etc/containerd/certs.d/%s/hosts.toml:", upstreamHost)
	for _, line := range strings.Split(strings.TrimSpace(content), "\n") {
		s.printf("             | %s\n", line)
	}
	return nil
}

func (s *story) pullThroughCache(ctx context.Context) error {
	if err := s.pull(ctx, "cold, nobody has pulled it through the cache", expectation{fromCache: true, fromUpstream: true}); err != nil {
		return err
	}
	return s.pull(ctx, "warm, the node has forgotten the image", expectation{fromCache: true})
}

func (s *story) pullWithoutCache(ctx context.Context) error {
	if err := s.shoot.ScaleCache(ctx, upstreamHost, 0); err != nil {
		return err
	}
	s.step("scaled the cache to zero")
	return s.pull(ctx, "cache scaled to zero", expectation{fromUpstream: true})
}

// expectation says where the layers of a pull have to come from.
type expectation struct {
	fromCache, fromUpstream bool
}

// pull runs a pod with the image, which the node does not have.
func (s *story) pull(ctx context.Context, title string, expected expectation) error {
	result, err := s.landscape.Run(ctx, s.registry, upstreamHost, image)
	if err != nil {
		return err
	}
	s.pulls = append(s.pulls, pull{title, result})
	s.step("a pod runs %s: pulled in %.2f s (%s)", image, result.Duration.Seconds(), title)
	const content = layers * layerSize
	if (result.CacheBytes >= content) != expected.fromCache || (result.Upstream.BlobBytes >= content) != expected.fromUpstream {
		return fmt.Errorf("%s: %.1f MiB came from the cache and %.1f MiB from the upstream",
			title, mebibytes(result.CacheBytes), mebibytes(result.Upstream.BlobBytes))
	}
	return nil
}

// bringBack has the cache there again, for those who look around.
func (s *story) bringBack(ctx context.Context) error {
	if err := s.shoot.ScaleCache(ctx, upstreamHost, 1); err != nil {
		return err
	}
	if _, err := s.landscape.AwaitCache(ctx, upstreamHost); err != nil {
		return err
	}
	_, err := s.landscape.AwaitHostsTOML(ctx, upstreamHost, true)
	return err
}

func (s *story) printTable() error {
	s.printf("\n")
	table := tabwriter.NewWriter(s.out, 0, 0, 3, ' ', tabwriter.AlignRight)
	_, _ = fmt.Fprintln(table, "seconds\tfrom the cache\trequests upstream\tfrom upstream\t  pull")
	for _, pull := range s.pulls {
		// An error shows when the table is flushed.
		_, _ = fmt.Fprintf(table, "%.2f\t%.1f MiB\t%d\t%.1f MiB\t  %s\n",
			pull.Duration.Seconds(), mebibytes(pull.CacheBytes), pull.Upstream.Requests(), mebibytes(pull.Upstream.BlobBytes), pull.title)
	}
	if err := table.Flush(); err != nil {
		return fmt.Errorf("print table: %w", err)
	}
	s.printf("\nThe demo took %.0f s. When it ends, all of its processes, mounts and networks end with it.\n", time.Since(s.started).Seconds())
	return nil
}

// step prints what has been done, and when.
func (s *story) step(format string, arguments ...any) {
	s.printf("  %6.1f s   %s\n", time.Since(s.started).Seconds(), fmt.Sprintf(format, arguments...))
}

func (s *story) printf(format string, arguments ...any) {
	// Nobody is left to be told when it fails.
	_, _ = fmt.Fprintf(s.out, format, arguments...)
}

func mebibytes(bytes int64) float64 { return float64(bytes) / (1 << 20) }
