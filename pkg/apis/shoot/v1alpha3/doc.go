// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

// Package v1alpha3 is the API of the RegistryCache resource in the Shoot, by which a
// Shoot owner sees the caches with kubectl. The extension writes the spec, the cache
// reports the status, and nobody else is to write either. The configuration that the
// spec mirrors is the business of ../../registry/v1alpha3, which has the kind's group
// and version.
//
// +k8s:deepcopy-gen=package
// +kubebuilder:object:generate=true
// +groupName=registry.extensions.gardener.cloud
package v1alpha3
