// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
)

// The image that all clients pull.
const (
	repository = "bench/image"
	tag        = "v1"
	layerCount = 4
	layerSize  = 32 << 20

	manifestType = "application/vnd.oci.image.manifest.v1+json"
	configType   = "application/vnd.oci.image.config.v1+json"
	layerType    = "application/vnd.oci.image.layer.v1.tar"
)

// descriptor is how a manifest refers to content.
type descriptor struct {
	MediaType string `json:"mediaType"`
	Digest    string `json:"digest"`
	Size      int64  `json:"size"`
}

// manifest is an OCI manifest.
type manifest struct {
	SchemaVersion int          `json:"schemaVersion"`
	MediaType     string       `json:"mediaType"`
	Config        descriptor   `json:"config"`
	Layers        []descriptor `json:"layers"`
}

// content is a manifest or a blob with its descriptor.
type content struct {
	descriptor
	data []byte
}

func newContent(mediaType string, data []byte) content {
	return content{descriptor: descriptor{MediaType: mediaType, Digest: digest(data), Size: int64(len(data))}, data: data}
}

func digest(data []byte) string {
	sum := sha256.Sum256(data)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// image is all that a client pulls.
type image struct {
	manifest content
	// blobs are the config and the layers, by digest.
	blobs map[string]content
	// size is that of all blobs.
	size int64
}

// newImage makes an image of random layers: nothing on the way can compress them.
func newImage(layers, size int) (*image, error) {
	contents := make([]content, 0, layers+1)
	diffs := make([]string, 0, layers)
	for range layers {
		data := make([]byte, size)
		if _, err := rand.Read(data); err != nil {
			return nil, fmt.Errorf("make a layer: %w", err)
		}
		layer := newContent(layerType, data)
		contents = append(contents, layer)
		diffs = append(diffs, layer.Digest)
	}
	config, err := json.Marshal(map[string]any{
		"architecture": "amd64",
		"os":           "linux",
		"rootfs":       map[string]any{"type": "layers", "diff_ids": diffs},
	})
	if err != nil {
		return nil, fmt.Errorf("make the image's config: %w", err)
	}
	return assemble(newContent(configType, config), contents)
}

func assemble(config content, layers []content) (*image, error) {
	i := &image{blobs: map[string]content{config.Digest: config}, size: config.Size}
	m := manifest{SchemaVersion: 2, MediaType: manifestType, Config: config.descriptor}
	for _, layer := range layers {
		m.Layers = append(m.Layers, layer.descriptor)
		i.blobs[layer.Digest] = layer
		i.size += layer.Size
	}
	data, err := json.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("make the manifest: %w", err)
	}
	i.manifest = newContent(manifestType, data)
	return i, nil
}
