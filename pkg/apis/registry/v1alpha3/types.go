// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package v1alpha3

import (
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// +k8s:deepcopy-gen:interfaces=k8s.io/apimachinery/pkg/runtime.Object
// +kubebuilder:object:root=true

// RegistryConfig configures the pull-through caches of a Shoot. It is the
// providerConfig of an extension of type registry-cache.
type RegistryConfig struct {
	metav1.TypeMeta `json:",inline"`

	// Caches are the caches to deploy, one for each upstream. At least one is
	// required, and upstreams are unique.
	Caches []RegistryCache `json:"caches"`
}

// RegistryCache configures the pull-through cache of one upstream.
type RegistryCache struct {
	// Upstream is the registry host as it stands in image names, with the port
	// if it has one, for example `docker.io` or `registry.example.com:5000`.
	Upstream string `json:"upstream"`
	// RemoteURL is the URL under which the cache reaches the upstream, with the
	// scheme `http://` or `https://` and without a path. Defaults to
	// `https://<upstream>`, and to `https://registry-1.docker.io` for
	// `docker.io`.
	// +optional
	RemoteURL *string `json:"remoteURL,omitempty"`
	// Volume is the volume on which the cache keeps its content.
	// +optional
	Volume *Volume `json:"volume,omitempty"`
	// GarbageCollection says when content leaves the cache.
	// +optional
	GarbageCollection *GarbageCollection `json:"garbageCollection,omitempty"`
	// SecretReferenceName is the name of an entry in the Shoot's spec.resources.
	// That entry refers to an immutable Secret with the keys `username` and
	// `password`, with which the cache authenticates at the upstream. Unset, the
	// cache pulls anonymously.
	// +optional
	SecretReferenceName *string `json:"secretReferenceName,omitempty"`
	// Proxy are the proxies through which the cache reaches the upstream. Unset,
	// it reaches it directly.
	// +optional
	Proxy *Proxy `json:"proxy,omitempty"`
	// HTTP configures how the cache serves containerd.
	// +optional
	HTTP *HTTP `json:"http,omitempty"`
	// HighAvailability configures whether the cache outlives the loss of a node
	// or zone.
	// +optional
	HighAvailability *HighAvailability `json:"highAvailability,omitempty"`
	// ServiceNameSuffix is the name of the cache's Service after `registry-`.
	// Unset, it is made from the upstream.
	// +optional
	ServiceNameSuffix *string `json:"serviceNameSuffix,omitempty"`
}

// Volume is the volume on which a cache keeps its content.
type Volume struct {
	// Size is the size of the volume. It may grow but not shrink. Defaults to
	// 10Gi.
	// +optional
	Size *resource.Quantity `json:"size,omitempty"`
	// StorageClassName is the StorageClass of the volume. It cannot be changed.
	// Unset, the Shoot's default StorageClass is taken.
	// +optional
	StorageClassName *string `json:"storageClassName,omitempty"`
}

// GarbageCollection says when content leaves a cache.
type GarbageCollection struct {
	// TTL is the time after its last use at which a blob is deleted. `0s`
	// disables the deletion by age. Defaults to 168h (7 days).
	// +optional
	TTL *metav1.Duration `json:"ttl,omitempty"`
}

// Proxy are the proxies through which a cache reaches its upstream.
type Proxy struct {
	// HTTPProxy is the proxy for upstream URLs with the scheme `http://`.
	// +optional
	HTTPProxy *string `json:"httpProxy,omitempty"`
	// HTTPSProxy is the proxy for upstream URLs with the scheme `https://`.
	// +optional
	HTTPSProxy *string `json:"httpsProxy,omitempty"`
}

// HTTP configures how a cache serves containerd.
type HTTP struct {
	// TLS says whether containerd and the cache speak TLS. Defaults to true.
	// +optional
	TLS *bool `json:"tls,omitempty"`
}

// HighAvailability configures whether a cache outlives the loss of a node or
// zone.
type HighAvailability struct {
	// Enabled says whether two replicas run, each with a volume of its own.
	// Defaults to false.
	// +optional
	Enabled *bool `json:"enabled,omitempty"`
}

// +k8s:deepcopy-gen:interfaces=k8s.io/apimachinery/pkg/runtime.Object
// +kubebuilder:object:root=true

// RegistryStatus is what the controller publishes about the caches that it
// deployed. It is the providerStatus of an extension of type registry-cache.
type RegistryStatus struct {
	metav1.TypeMeta `json:",inline"`

	// CASecretName is the name of the Secret, in the Shoot's namespace in the
	// Seed, whose key `bundle.crt` holds the certificate authorities of the
	// caches. Unset when no cache serves TLS.
	// +optional
	CASecretName *string `json:"caSecretName,omitempty"`
	// Caches are the deployed caches in the order of the configuration.
	Caches []RegistryCacheStatus `json:"caches"`
}

// RegistryCacheStatus is what a node needs to know of one deployed cache.
type RegistryCacheStatus struct {
	// Upstream is the upstream of the cache as it was configured.
	Upstream string `json:"upstream"`
	// Endpoint is the URL at which containerd reaches the cache, for example
	// `https://10.4.246.205:5000`. IPv6 addresses stand in brackets.
	Endpoint string `json:"endpoint"`
	// RemoteURL is the URL under which the upstream is reached without the cache.
	RemoteURL string `json:"remoteURL"`
}
