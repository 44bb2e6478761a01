// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

// Package control runs the control planes that integration tests work on: the
// API servers of a Seed and of a Shoot, each with its etcd, and between them
// the real gardener-resource-manager, which carries ManagedResources from the
// Seed to the Shoot. In the Shoot the real kube-controller-manager makes pods
// and claims of StatefulSets, and removes what belongs to deleted objects. The
// package also lays out a Shoot's namespace in the Seed as Gardener does, and
// starts further Seeds for Shoots whose control plane is migrated.
//
// There are no nodes: pods stay pending. The Shoot's Services get cluster IPs of
// the loopback network, so that a test can listen on the very address that a
// Service was given.
//
// What a test does on the control planes, and everything that knows about
// registry caches, does not belong here.
package control
