// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// +k8s:deepcopy-gen:interfaces=k8s.io/apimachinery/pkg/runtime.Object
// +kubebuilder:object:root=true

// MirrorConfig configures from which registries, besides the upstream itself,
// the nodes of a Shoot pull. It is the providerConfig of an extension of type
// registry-mirror.
type MirrorConfig struct {
	metav1.TypeMeta `json:",inline"`

	// Mirrors are the upstreams that have mirrors. At least one is required, and
	// upstreams are unique.
	Mirrors []MirrorConfiguration `json:"mirrors"`
}

// MirrorConfiguration names the mirrors of one upstream.
type MirrorConfiguration struct {
	// Upstream is the registry host as it stands in image names, with the port
	// if it has one, for example `docker.io` or `registry.example.com:5000`.
	Upstream string `json:"upstream"`
	// Hosts are the mirrors in the order in which containerd tries them, before
	// the upstream and after the upstream's cache if it has one. At least one is
	// required, and hosts are unique.
	Hosts []MirrorHost `json:"hosts"`
}

// MirrorHost is a registry that serves images of an upstream.
type MirrorHost struct {
	// Host is the URL of the mirror with the scheme `http://` or `https://`, and
	// with a path if the mirror serves the upstream below one, for example
	// `https://mirror.example.com` or `https://mirror.example.com/docker`.
	Host string `json:"host"`
	// Capabilities say what containerd asks the mirror for. Defaults to `pull`
	// alone.
	// +optional
	Capabilities []MirrorHostCapability `json:"capabilities,omitempty"`
	// CABundleSecretReferenceName is the name of an entry in the Shoot's
	// spec.resources. That entry refers to an immutable Secret with the key
	// `bundle.crt`: PEM certificates that containerd trusts for this mirror
	// besides those that the node trusts. Unset, there are no others.
	// +optional
	CABundleSecretReferenceName *string `json:"caBundleSecretReferenceName,omitempty"`
	// OverridePath says that the path of Host is complete. Unset or false,
	// containerd appends `/v2` to a path that does not end so.
	// +optional
	OverridePath *bool `json:"overridePath,omitempty"`
}

// MirrorHostCapability is something that containerd asks a registry for:
// `pull` or `resolve`.
type MirrorHostCapability string

const (
	// MirrorHostCapabilityPull is the capability to serve manifests and layers
	// by their digests.
	MirrorHostCapabilityPull MirrorHostCapability = "pull"
	// MirrorHostCapabilityResolve is the capability to tell the digest of a tag.
	MirrorHostCapabilityResolve MirrorHostCapability = "resolve"
)
