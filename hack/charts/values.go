// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"strings"

	"github.com/gardener/gardener/pkg/utils/imagevector"
	"go.yaml.in/yaml/v3"
)

// Names of the images.
const (
	extensionImage = "gardener-extension-registry-cache"
	cacheImage     = "registry-cache"
)

// pushedImages are the images that charts are to run.
type pushedImages struct{ extension, cache *imagevector.ImageSource }

// readImages reads the image vector in a file, whose images have to be of a version
// and have a digest. Without a file there are none.
func readImages(file, version string) (*pushedImages, error) {
	if file == "" {
		return nil, nil
	}
	content, err := os.ReadFile(file) //nolint:gosec // the caller chose it
	if err != nil {
		return nil, fmt.Errorf("read image vector: %w", err)
	}
	vector, _, err := imagevector.Read(content)
	if err != nil {
		return nil, fmt.Errorf("image vector %s: %w", file, err)
	}
	byName := map[string]*imagevector.ImageSource{}
	for _, source := range vector {
		byName[source.Name] = source
	}
	for _, name := range []string{extensionImage, cacheImage} {
		source := byName[name]
		if source == nil || source.Repository == nil || source.Tag == nil || !strings.HasPrefix(*source.Tag, version+"@sha256:") {
			return nil, fmt.Errorf("image vector %s: it has no image %s of version %s with a digest", file, name, version)
		}
	}
	return &pushedImages{extension: byName[extensionImage], cache: byName[cacheImage]}, nil
}

// values are those of the charts that name images. A chart has some of them.
func (p *pushedImages) values() []change {
	return []change{
		{[]string{"image", "repository"}, *p.extension.Repository},
		{[]string{"image", "tag"}, *p.extension.Tag},
		{[]string{"imageVectorOverwrite"}, map[string]any{"images": []any{
			map[string]any{"name": p.cache.Name, "repository": *p.cache.Repository, "tag": *p.cache.Tag},
		}}},
	}
}

// change is a value for a field of a YAML document.
type change struct {
	path  []string
	value any
}

// edit changes fields of a document that it has, and leaves the others and the
// comments as they are.
func edit(document []byte, changes ...change) ([]byte, error) {
	root := &yaml.Node{}
	if err := yaml.Unmarshal(document, root); err != nil {
		return nil, err
	}
	for _, change := range changes {
		if len(root.Content) == 0 {
			break
		}
		field := find(root.Content[0], change.path)
		if field == nil {
			continue
		}
		value := &yaml.Node{}
		if err := value.Encode(change.value); err != nil {
			return nil, err
		}
		value.HeadComment, value.LineComment, value.FootComment = field.HeadComment, field.LineComment, field.FootComment
		*field = *value
	}
	var edited strings.Builder
	encoder := yaml.NewEncoder(&edited)
	encoder.SetIndent(2)
	if err := encoder.Encode(root); err != nil {
		return nil, err
	}
	return []byte(edited.String()), nil
}

// find returns the field of a mapping, or nil.
func find(node *yaml.Node, path []string) *yaml.Node {
	for _, name := range path {
		if node.Kind != yaml.MappingNode {
			return nil
		}
		var field *yaml.Node
		for i := 0; i < len(node.Content); i += 2 {
			if node.Content[i].Value == name {
				field = node.Content[i+1]
			}
		}
		if node = field; node == nil {
			return nil
		}
	}
	return node
}
