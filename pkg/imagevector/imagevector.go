// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

// Package imagevector knows which image the pods of the caches run. An operator
// overrides it with a file that the environment variable IMAGEVECTOR_OVERWRITE
// names.
package imagevector

import (
	_ "embed"
	"fmt"

	"github.com/gardener/gardener/pkg/utils/imagevector"
)

// registryCache is the name of the cache server's image in an image vector.
const registryCache = "registry-cache"

//go:embed images.yaml
var images []byte

// Read returns the image vector of this build with the overrides of the
// environment.
func Read() (imagevector.ImageVector, error) {
	vector, caBundle, err := imagevector.Read(images)
	if err != nil {
		return nil, fmt.Errorf("read image vector: %w", err)
	}
	vector, _, err = imagevector.WithEnvOverride(vector, caBundle, imagevector.OverrideEnv)
	if err != nil {
		return nil, fmt.Errorf("read image vector overwrite of environment variable %s: %w", imagevector.OverrideEnv, err)
	}
	return vector, nil
}

// RegistryCache returns the reference of the cache server's image.
func RegistryCache(vector imagevector.ImageVector) (string, error) {
	image, err := vector.FindImage(registryCache)
	if err != nil {
		return "", fmt.Errorf("find image %q in the image vector: %w", registryCache, err)
	}
	return image.String(), nil
}
