// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

// Package upstream knows the names, labels and URLs that follow from one
// upstream registry. It is pure and depends on no other package of ours.
package upstream

import (
	"crypto/sha256"
	"encoding/hex"
	"net"
	"strings"
)

const (
	// ServicePrefix starts the name of every object of a cache.
	ServicePrefix = "registry-"

	// maxLabelLength leaves room, within the 63 characters of a label value,
	// for what Kubernetes appends to the name of a StatefulSet.
	maxLabelLength  = 43
	labelHashDigits = 5
)

// Label returns the value of the label upstream-host for an upstream. It is at
// most 43 characters long; a longer one ends in a hash of the upstream, so that
// it stays unique.
func Label(upstream string) string {
	label := strings.ReplaceAll(upstream, ":", "-")
	if len(label) <= maxLabelLength {
		return label
	}
	hash := sha256.Sum256([]byte(upstream))
	return label[:maxLabelLength-labelHashDigits-1] + "-" + hex.EncodeToString(hash[:])[:labelHashDigits]
}

// ResourceName returns the name of the objects of an upstream's cache.
func ResourceName(upstream string) string {
	return ServicePrefix + strings.ReplaceAll(Label(upstream), ".", "-")
}

// ServiceName returns the name of the Service of an upstream's cache: it ends
// in suffix, or is the cache's resource name if suffix is nil.
func ServiceName(upstream string, suffix *string) string {
	if suffix != nil {
		return ServicePrefix + *suffix
	}
	return ResourceName(upstream)
}

// RemoteURL returns the URL at which an upstream is reached unless the
// configuration names another one.
func RemoteURL(upstream string) string {
	// Docker Hub's registry is not at the host of its image names:
	// https://github.com/containerd/containerd/blob/main/docs/hosts.md
	if upstream == "docker.io" {
		return "https://registry-1.docker.io"
	}
	return "https://" + upstream
}

// Endpoint returns the URL of a cache that listens on a cluster IP, which may
// be of either IP family.
func Endpoint(scheme, clusterIP, port string) string {
	return scheme + "://" + net.JoinHostPort(clusterIP, port)
}
