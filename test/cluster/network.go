// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"fmt"
	"os/exec"
	"strings"
)

const (
	// bridge connects the node with hostAddress.
	bridge      = "network"
	hostAddress = "10.250.0.1"
	nodeAddress = "10.250.0.10"
	podNetwork  = "10.244.0.0/24"
	// shootServices are the addresses of the Shoot's Services.
	shootServices = "10.96.0.0/16"
)

// createNetwork lays out the network outside of the node.
func createNetwork(ctx context.Context) error {
	for _, arguments := range []string{
		"link add " + bridge + " type bridge",
		"addr add " + hostAddress + "/24 dev " + bridge,
		"link set " + bridge + " up",
		"route add " + podNetwork + " via " + nodeAddress,
		// API servers call webhooks by their Services, which the node's kube-proxy knows.
		"route add " + shootServices + " via " + nodeAddress,
	} {
		if _, err := run(ctx, "ip", strings.Fields(arguments)...); err != nil {
			return fmt.Errorf("create network: %w", err)
		}
	}
	return nil
}

// connectNode gives the node, whose first process is given, an interface on the
// network. It has to be done anew at each boot: the interface goes with the
// node's network namespace.
func connectNode(ctx context.Context, pid int) error {
	// The interface of an earlier boot is gone only when the kernel has removed the
	// namespace of that. An error means that it is gone.
	_, _ = run(ctx, "ip", "link", "delete", "node")
	inside := fmt.Sprintf("--target %d --net ip ", pid)
	for _, command := range []string{
		fmt.Sprintf("ip link add node type veth peer name eth0 netns %d", pid),
		"ip link set node master " + bridge,
		"ip link set node up",
		"nsenter " + inside + "link set lo up",
		"nsenter " + inside + "addr add " + nodeAddress + "/24 dev eth0",
		"nsenter " + inside + "link set eth0 up",
		// Without a default route a cluster IP has no route before its translation.
		"nsenter " + inside + "route add default via " + hostAddress,
	} {
		words := strings.Fields(command)
		if _, err := run(ctx, words[0], words[1:]...); err != nil {
			return fmt.Errorf("connect node to the network: %w", err)
		}
	}
	return nil
}

// run runs a command and returns what it printed. The error has what it printed
// as an error.
func run(ctx context.Context, name string, arguments ...string) (string, error) {
	var output, problem strings.Builder
	cmd := exec.CommandContext(ctx, name, arguments...) //nolint:gosec // what the package itself asks for
	cmd.Stdout, cmd.Stderr = &output, &problem
	if err := cmd.Run(); err != nil {
		return output.String(), fmt.Errorf("%s %s: %w: %s", name, strings.Join(arguments, " "), err, strings.TrimSpace(problem.String()))
	}
	return output.String(), nil
}
