// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

// Package cluster runs a real cluster on one Linux machine, in a sandbox: the API
// servers of a Seed and of a Shoot on one etcd, the real
// gardener-resource-manager between them, and for the Shoot the real
// kube-controller-manager, kube-scheduler and a node: systemd, containerd, runc,
// CNI plugins, kubelet, kube-proxy and gardener-node-agent. An internet with
// registries and their names is there too.
//
//	10.250.0.1    all that is not on the node: API servers, name server
//	10.250.0.10   the node
//	10.250.1.0/24 the internet, an address for each registry
//	10.244.0.0/24 pods
//	10.96.0.0/16  Services of the Shoot
//
// If asked to, the Shoot is its own Seed, and there is a garden: a kube-apiserver
// and a gardener-apiserver.
//
// All of it ends with the sandbox, so that nothing here has to be stopped.
//
// What is deployed to the cluster is for its callers: the package knows nothing
// of registry caches.
package cluster
