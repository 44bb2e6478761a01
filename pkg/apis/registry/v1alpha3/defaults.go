// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package v1alpha3

import (
	"time"

	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/gardener/gardener-extension-registry-cache/pkg/upstream"
)

// DefaultTTL is the time after its last use at which a blob leaves a cache.
const DefaultTTL = 7 * 24 * time.Hour

// SetDefaults_RegistryCache sets every field of a cache that has a default, so
// that code behind Decode needs no check for nil on them. A volume's
// storageClassName, a secretReferenceName, a proxy and a serviceNameSuffix have
// none.
func SetDefaults_RegistryCache(cache *RegistryCache) {
	if cache.RemoteURL == nil {
		cache.RemoteURL = ptr.To(upstream.RemoteURL(cache.Upstream))
	}
	if cache.Volume == nil {
		cache.Volume = &Volume{}
	}
	if cache.GarbageCollection == nil {
		cache.GarbageCollection = &GarbageCollection{}
	}
	if cache.HTTP == nil {
		cache.HTTP = &HTTP{}
	}
	if cache.HighAvailability == nil {
		cache.HighAvailability = &HighAvailability{}
	}
}

// SetDefaults_Volume sets the default size.
func SetDefaults_Volume(volume *Volume) {
	if volume.Size == nil {
		volume.Size = ptr.To(resource.MustParse("10Gi"))
	}
}

// SetDefaults_GarbageCollection sets the default ttl.
func SetDefaults_GarbageCollection(gc *GarbageCollection) {
	if gc.TTL == nil {
		gc.TTL = &metav1.Duration{Duration: DefaultTTL}
	}
}

// SetDefaults_HTTP switches TLS on.
func SetDefaults_HTTP(http *HTTP) {
	if http.TLS == nil {
		http.TLS = ptr.To(true)
	}
}

// SetDefaults_HighAvailability switches high availability off.
func SetDefaults_HighAvailability(ha *HighAvailability) {
	if ha.Enabled == nil {
		ha.Enabled = ptr.To(false)
	}
}
