// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

// Package v1alpha1 is the configuration API of registry mirrors: the
// providerConfig that a Shoot owner writes for an extension of type
// registry-mirror. It is the one version there is; Decode is the one way in.
// Rules that need more than the types and defaults are in ../validation.
//
// +k8s:deepcopy-gen=package
// +k8s:defaulter-gen=TypeMeta
// +kubebuilder:object:generate=true
// +groupName=mirror.extensions.gardener.cloud
package v1alpha1
