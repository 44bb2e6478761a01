// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"log/slog"
	"os"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/yaml"

	"github.com/gardener/gardener/pkg/utils/imagevector"
)

// vectorFile is the name of the file that names the pushed images.
const vectorFile = "images.yaml"

// imageVector names images that were pushed, by tag and digest: the tag is for people,
// the digest is what is pulled.
type imageVector struct {
	Images []*imagevector.ImageSource `json:"images"`
}

func (v *imageVector) add(registry, program, version string, index v1.ImageIndex) error {
	digest, err := index.Digest()
	if err != nil {
		return fmt.Errorf("read digest: %w", err)
	}
	v.Images = append(v.Images, &imagevector.ImageSource{
		Name: program, Repository: ptr.To(registry + "/" + program), Tag: ptr.To(version + "@" + digest.String()),
	})
	return nil
}

// write writes the vector, which is one for IMAGEVECTOR_OVERWRITE too.
func (v *imageVector) write(path string) error {
	content, err := yaml.Marshal(v)
	if err != nil {
		return fmt.Errorf("marshal image vector: %w", err)
	}
	if err := os.WriteFile(path, content, 0o644); err != nil { //nolint:gosec // for everyone to read
		return fmt.Errorf("write image vector: %w", err)
	}
	slog.Info("Wrote", "imageVector", path)
	return nil
}
