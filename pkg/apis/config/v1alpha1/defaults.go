// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package v1alpha1

import (
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

// SetDefaults_Storage sets the root directory.
func SetDefaults_Storage(storage *Storage) {
	if storage.RootDirectory == "" {
		storage.RootDirectory = "/var/lib/registry"
	}
}

// SetDefaults_GarbageCollection sets the ttl and the watermarks.
func SetDefaults_GarbageCollection(gc *GarbageCollection) {
	if gc.TTL == nil {
		gc.TTL = &metav1.Duration{Duration: 7 * 24 * time.Hour}
	}
	if gc.HighWatermark == nil {
		gc.HighWatermark = ptr.To[int32](90)
	}
	if gc.LowWatermark == nil {
		gc.LowWatermark = ptr.To[int32](80)
	}
}

// SetDefaults_Server sets the address of the registry API.
func SetDefaults_Server(server *Server) {
	if server.Address == "" {
		server.Address = ":5000"
	}
}

// SetDefaults_Debug sets the address of metrics and health.
func SetDefaults_Debug(debug *Debug) {
	if debug.Address == "" {
		debug.Address = ":5001"
	}
}

// SetDefaults_Log sets the level and the format.
func SetDefaults_Log(log *Log) {
	if log.Level == "" {
		log.Level = LogLevelInfo
	}
	if log.Format == "" {
		log.Format = LogFormatJSON
	}
}
