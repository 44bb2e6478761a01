// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

// Package inventory is what a cache says about the images that it has, and the kubectl
// plugin reads. It is served on the loopback address of the pod only, for names of
// images can be secrets: who reads it has the right to forward ports of the pod.
package inventory

import "time"

const (
	// Port is the port, on the loopback address of the pod.
	Port = 5002
	// Path is the path of an Inventory as JSON. The query RepositoryParameter has it
	// list one repository.
	Path = "/images"
	// RepositoryParameter names a repository as the upstream does, for example
	// `library/nginx`.
	RepositoryParameter = "repository"
)

// Inventory is what a cache has.
type Inventory struct {
	// Images are in the order of repository and digest.
	Images []Image `json:"images"`
	// Truncated says that not all was read: there are more images, and what only an index
	// refers to may be listed by itself.
	Truncated bool `json:"truncated,omitempty"`
}

// Image is a manifest or an index with what it refers to. What only an index refers to
// is part of the index.
type Image struct {
	// Repository is as the upstream names it.
	Repository string `json:"repository"`
	// Tags are the tags that were last known to stand for the image. Without, it was
	// pulled by digest, or its tags stand for something else by now.
	Tags []string `json:"tags,omitempty"`
	// Digest is that of the manifest or the index.
	Digest string `json:"digest"`
	// Blobs are the blobs on the volume that belong to the image, the manifests among
	// them, and Missing those that were never pulled, or left the volume. Platforms that
	// were never pulled are not missing.
	Blobs int `json:"blobs"`
	// Missing is explained with Blobs.
	Missing int `json:"missing"`
	// Bytes are those of Blobs. Images can share some.
	Bytes int64 `json:"bytes"`
	// LastUsed is when one of Blobs was last used, to the hour or so.
	LastUsed time.Time `json:"lastUsed,omitzero"`
}
