// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package v1alpha3

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	registryv1alpha3 "github.com/gardener/gardener-extension-registry-cache/pkg/apis/registry/v1alpha3"
)

// +k8s:deepcopy-gen:interfaces=k8s.io/apimachinery/pkg/runtime.Object
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:path=registrycaches,singular=registrycache,scope=Namespaced
// +kubebuilder:printcolumn:name="Upstream",type=string,JSONPath=`.spec.upstream`
// +kubebuilder:printcolumn:name="Endpoint",type=string,JSONPath=`.spec.endpoint`
// +kubebuilder:printcolumn:name="Ready",type=boolean,JSONPath=`.status.ready`
// +kubebuilder:printcolumn:name="Hit Ratio",type=string,JSONPath=`.status.hitRatio`
// +kubebuilder:printcolumn:name="Used Bytes",type=integer,JSONPath=`.status.usedBytes`
// +kubebuilder:printcolumn:name="Total Bytes",type=integer,JSONPath=`.status.totalBytes`
// +kubebuilder:printcolumn:name="Blobs",type=integer,JSONPath=`.status.blobs`
// +kubebuilder:printcolumn:name="Last Upstream Error",type=string,JSONPath=`.status.lastUpstreamError.message`
// +kubebuilder:printcolumn:name="Reported",type=date,JSONPath=`.status.lastReportTime`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`

// RegistryCache shows one cache of the Shoot. It configures nothing: a change of it is
// undone, and the cache is configured in the Shoot.
type RegistryCache struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// Spec is how the cache is configured.
	Spec RegistryCacheSpec `json:"spec"`
	// Status is what the cache has reported last. Unset, it never ran, or never reached
	// the API server.
	// +optional
	Status *RegistryCacheStatus `json:"status,omitempty"`
}

// RegistryCacheSpec is how a cache is configured.
type RegistryCacheSpec struct {
	registryv1alpha3.RegistryCache `json:",inline"`

	// Endpoint is the URL at which nodes reach the cache, for example
	// `https://10.4.246.205:5000`.
	Endpoint string `json:"endpoint"`
}

// RegistryCacheStatus is what the replicas of a cache have reported, taken together. A
// replica reports when something changed, at most every 30 seconds, and every 10 minutes
// if nothing did. One that lost its node cannot say so: 30 minutes after its report
// another replica, if there is one, takes it away.
type RegistryCacheStatus struct {
	Report `json:",inline"`

	// HitRatio is the share of requests that were hits, for example `93%`. Unset before
	// the first request.
	// +optional
	HitRatio string `json:"hitRatio,omitempty"`
	// LastReportTime is when one of the replicas, or the last one that there was, last
	// reported, by the clock of its node. If that is much more than 10 minutes ago, no
	// replica runs, or none reaches the API server, and all else here is as old. Unset,
	// no replica has ever said so.
	// +optional
	LastReportTime *metav1.Time `json:"lastReportTime,omitempty"`
	// Replicas are the reports of the replicas by the names of their pods. One that ends
	// in order takes its report away; that of one that does not is taken away by another
	// once it is 30 minutes old.
	// +optional
	Replicas map[string]ReplicaReport `json:"replicas,omitempty"`
}

// ReplicaReport is what one replica reports.
type ReplicaReport struct {
	Report `json:",inline"`

	// Time is when the replica reported, by the clock of its node. Unset, the replica is
	// of a version that did not say so.
	// +optional
	Time *metav1.Time `json:"time,omitempty"`
}

// Report is what a replica reports or, in the status itself, the sum of what all do.
type Report struct {
	// Ready says whether the replica, or at least one, serves.
	// +optional
	Ready bool `json:"ready"`
	// Requests are the requests for content since the replica started.
	// +optional
	Requests int64 `json:"requests"`
	// Hits are those of Requests for which the upstream was not asked anew.
	// +optional
	Hits int64 `json:"hits"`
	// UsedBytes are the bytes of the volume that are in use, the file system's own among
	// them.
	// +optional
	UsedBytes int64 `json:"usedBytes"`
	// TotalBytes are the bytes that the volume has room for.
	// +optional
	TotalBytes int64 `json:"totalBytes"`
	// Blobs are the blobs on the volume: manifests, configurations and layers.
	// +optional
	Blobs int64 `json:"blobs"`
	// UpstreamLeftAlone says that the upstream, or that of at least one replica, failed
	// so that it is not asked for some time.
	// +optional
	UpstreamLeftAlone bool `json:"upstreamLeftAlone"`
	// LastUpstreamError is the last failure of the upstream since the replica started,
	// also if the upstream answers again. Unset, there was none. What the upstream does
	// not have, or does not allow, is no failure.
	// +optional
	LastUpstreamError *UpstreamError `json:"lastUpstreamError,omitempty"`
}

// UpstreamError is a failure of an upstream.
type UpstreamError struct {
	// Message says what was asked and what came, without credentials.
	Message string `json:"message"`
	// Time is when it was.
	Time metav1.Time `json:"time"`
}

// +k8s:deepcopy-gen:interfaces=k8s.io/apimachinery/pkg/runtime.Object
// +kubebuilder:object:root=true

// RegistryCacheList is a list of RegistryCaches.
type RegistryCacheList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	// Items are the RegistryCaches.
	Items []RegistryCache `json:"items"`
}
