// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package upstream

import (
	"errors"
	"fmt"
	"io"

	containerregistry "github.com/google/go-containerregistry/pkg/v1"
)

// ReadImage reads the configuration and all layers of an image, each once. They
// are verified by their digests.
func ReadImage(image containerregistry.Image) error {
	if _, err := image.RawConfigFile(); err != nil {
		return fmt.Errorf("read configuration: %w", err)
	}
	layers, err := image.Layers()
	if err != nil {
		return fmt.Errorf("list layers: %w", err)
	}
	for _, layer := range layers {
		content, err := layer.Compressed()
		if err != nil {
			return fmt.Errorf("read layer: %w", err)
		}
		_, err = io.Copy(io.Discard, content)
		if err := errors.Join(err, content.Close()); err != nil {
			return fmt.Errorf("read layer: %w", err)
		}
	}
	return nil
}
