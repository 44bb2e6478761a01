// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/gardener/gardener/pkg/client/kubernetes"
	"golang.org/x/sys/unix"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/gardener/gardener-extension-registry-cache/test/gardener"
	"github.com/gardener/gardener-extension-registry-cache/test/process"
)

// StartGarden runs the API of a garden: a kube-apiserver, and a gardener-apiserver
// behind it. They know the names of the internet, by which they call webhooks.
func (c *Cluster) StartGarden(ctx context.Context) error {
	binary, err := process.FindBinary("gardener-apiserver")
	if err != nil {
		return err
	}
	if err := c.askOwnNameServer(); err != nil {
		return err
	}
	garden := newAPIServer("garden", 6445, "10.98.0.0/16")
	arguments, err := gardener.AggregationArguments(c.Dir)
	if err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(arguments)) {
		garden.aggregation = append(garden.aggregation, "--"+name+"="+arguments[name])
	}
	if err := c.startAPIServer(ctx, garden); err != nil {
		return err
	}
	server, err := gardener.NewAPIServer(binary, c.Dir, c.Logs, garden.Kubeconfig, etcdURL)
	if err != nil {
		return err
	}
	if err := server.Start(ctx); err != nil {
		return err
	}
	admin, err := client.New(garden.Config, client.Options{Scheme: kubernetes.GardenScheme})
	if err != nil {
		return fmt.Errorf("create client of the garden: %w", err)
	}
	if err := server.Register(ctx, admin); err != nil {
		return err
	}
	c.Garden = garden
	c.progress("kube-apiserver and gardener-apiserver of the garden are ready")
	return nil
}

// askOwnNameServer has all processes outside of the node that are started from now
// on ask the name server of the internet, as those on the node do.
func (c *Cluster) askOwnNameServer() error {
	const machine = "/etc/resolv.conf"
	own := filepath.Join(c.Dir, "resolv.conf")
	if err := os.WriteFile(own, []byte("nameserver "+hostAddress+"\n"), 0o644); err != nil { //nolint:gosec // for everyone to read
		return fmt.Errorf("name the name server: %w", err)
	}
	// In the sandbox alone, whose mounts are its own.
	if err := unix.Mount(own, machine, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("mount %s: %w", machine, err)
	}
	return nil
}
