// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// +k8s:deepcopy-gen:interfaces=k8s.io/apimachinery/pkg/runtime.Object
// +kubebuilder:object:root=true

// CacheConfiguration is the configuration of one cache server.
type CacheConfiguration struct {
	metav1.TypeMeta `json:",inline"`

	// Upstream is the registry host as it stands in image names. It names the
	// cache in logs and metrics; it is never dialled.
	Upstream string `json:"upstream"`
	// RemoteURL is the URL of the upstream.
	RemoteURL string `json:"remoteURL"`
	// CredentialsDir is the folder of the files `username` and `password`, which
	// are read again when they change. Unset, the cache pulls anonymously.
	// +optional
	CredentialsDir string `json:"credentialsDir,omitempty"`
	// Storage says where content is kept.
	// +optional
	Storage Storage `json:"storage"`
	// GarbageCollection says when content leaves the cache.
	// +optional
	GarbageCollection GarbageCollection `json:"garbageCollection"`
	// Server is the server of the registry API.
	// +optional
	Server Server `json:"server"`
	// Debug is the server of metrics and health.
	// +optional
	Debug Debug `json:"debug"`
	// Report says where the cache reports its status. Unset, it reports nowhere.
	// +optional
	Report *Report `json:"report,omitempty"`
	// Log configures the log.
	// +optional
	Log Log `json:"log"`
}

// Report says where a cache reports its status: to the RegistryCache of a Kubernetes
// API server. The cache works the same if it cannot be reached.
type Report struct {
	// Namespace is the namespace of the RegistryCache.
	Namespace string `json:"namespace"`
	// Name is the name of the RegistryCache.
	Name string `json:"name"`
	// CredentialsDir is the folder of the files `token` and `ca.crt`, which are read
	// before each report.
	CredentialsDir string `json:"credentialsDir"`
	// Server is the https URL of the API server. Unset, it is the one that Kubernetes
	// names in the environment of pods.
	// +optional
	Server string `json:"server,omitempty"`
}

// Storage says where content is kept.
type Storage struct {
	// RootDirectory is the folder of distribution's filesystem storage. Defaults
	// to `/var/lib/registry`.
	// +optional
	RootDirectory string `json:"rootDirectory,omitempty"`
}

// GarbageCollection says when content leaves the cache.
type GarbageCollection struct {
	// TTL is the time after its last use at which a blob is deleted. `0s`: never
	// by age. Defaults to 168h.
	// +optional
	TTL *metav1.Duration `json:"ttl,omitempty"`
	// HighWatermark is the percentage of the file system in use that starts
	// eviction. Defaults to 90.
	// +optional
	HighWatermark *int32 `json:"highWatermark,omitempty"`
	// LowWatermark is the percentage of the file system in use that ends
	// eviction. Defaults to 80.
	// +optional
	LowWatermark *int32 `json:"lowWatermark,omitempty"`
}

// Server is the server of the registry API.
type Server struct {
	// Address is the host and port to listen on. Defaults to `:5000`.
	// +optional
	Address string `json:"address,omitempty"`
	// TLS is the certificate to serve with. Unset, the server speaks plain HTTP.
	// +optional
	TLS *TLS `json:"tls,omitempty"`
	// ShutdownDelay is how long the server goes on as before after it was told to end.
	// Its health is bad from the first moment, so that who routes to it can learn of that
	// in this time: a connection to a pod that is gone already waits for its time to run
	// out. Defaults to 0s.
	// +optional
	ShutdownDelay metav1.Duration `json:"shutdownDelay,omitzero"`
}

// TLS names the files of a serving certificate. They are read again when they
// change.
type TLS struct {
	// CertFile is the path of the PEM encoded certificate chain.
	CertFile string `json:"certFile"`
	// KeyFile is the path of the PEM encoded private key.
	KeyFile string `json:"keyFile"`
}

// Debug is the server of metrics and health, and of profiles if they are wanted.
type Debug struct {
	// Address is the host and port to listen on. Defaults to `:5001`.
	// +optional
	Address string `json:"address,omitempty"`
	// InventoryPort is the port, on the loopback address only, of the list of images
	// that the cache has, from which port forwarding makes it reachable for those who have the
	// right to that. Unset, there is no such list.
	// +optional
	InventoryPort *int32 `json:"inventoryPort,omitempty"`
	// Profiling serves profiles of the process below `/debug/pprof/`. Defaults to
	// false.
	// +optional
	Profiling bool `json:"profiling,omitempty"`
}

// LogLevel is the least severe level that is logged.
type LogLevel string

// The log levels.
const (
	LogLevelDebug LogLevel = "debug"
	LogLevelInfo  LogLevel = "info"
	LogLevelWarn  LogLevel = "warn"
	LogLevelError LogLevel = "error"
)

// LogFormat is the format of log lines.
type LogFormat string

// The log formats.
const (
	LogFormatJSON LogFormat = "json"
	LogFormatText LogFormat = "text"
)

// Log configures the log.
type Log struct {
	// Level is the least severe level that is logged. Defaults to `info`.
	// +optional
	Level LogLevel `json:"level,omitempty"`
	// Format is the format of log lines. Defaults to `json`.
	// +optional
	Format LogFormat `json:"format,omitempty"`
}
