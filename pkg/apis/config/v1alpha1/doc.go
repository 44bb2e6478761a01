// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

// Package v1alpha1 is the API of the files that our binaries read. The
// controller writes the CacheConfiguration that the cache server runs with.
//
// +k8s:deepcopy-gen=package
// +k8s:defaulter-gen=TypeMeta
// +kubebuilder:object:generate=true
// +groupName=config.registry.extensions.gardener.cloud
package v1alpha1
