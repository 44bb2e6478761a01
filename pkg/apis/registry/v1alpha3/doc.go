// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

// Package v1alpha3 is the configuration API of the registry-cache extension:
// the providerConfig that a Shoot owner writes and the providerStatus that the
// controller publishes. It is the one version there is; Decode is the one way
// in. Rules that need more than the types and defaults are in ../validation.
//
// +k8s:deepcopy-gen=package
// +k8s:defaulter-gen=TypeMeta
// +kubebuilder:object:generate=true
// +groupName=registry.extensions.gardener.cloud
package v1alpha3
