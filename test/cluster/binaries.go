// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"slices"

	"github.com/gardener/gardener-extension-registry-cache/test/process"
)

var (
	// controlPlaneBinaries run outside of the node.
	controlPlaneBinaries = []string{
		"etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl", "gardener-resource-manager",
	}
	// nodeBinaries are those that a node's operating system or Gardener brings,
	// by the folder they are in.
	nodeBinaries = map[string][]string{
		"/usr/bin":     {"containerd", "containerd-shim-runc-v2", "ctr", "runc"},
		"/opt/bin":     {"kubelet", "kubectl", "kube-proxy", "gardener-node-agent"},
		"/opt/cni/bin": {"bridge", "host-local", "loopback", "portmap"},
	}
)

// binaries are the paths of the test binaries, by name.
type binaries map[string]string

func findBinaries() (binaries, error) {
	names := slices.Clone(controlPlaneBinaries)
	for _, inFolder := range nodeBinaries {
		names = append(names, inFolder...)
	}
	found := make(binaries, len(names))
	for _, name := range names {
		path, err := process.FindBinary(name)
		if err != nil {
			return nil, err
		}
		found[name] = path
	}
	return found, nil
}
