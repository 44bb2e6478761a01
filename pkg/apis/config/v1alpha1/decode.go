// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package v1alpha1

import (
	"fmt"

	"sigs.k8s.io/yaml"

	"github.com/gardener/gardener-extension-registry-cache/pkg/apis/strict"
)

var decoder = strict.NewDecoder(AddToScheme)

// DecodeCacheConfiguration decodes a CacheConfiguration and sets its defaults.
// An unknown or duplicate field is an error that names the field.
func DecodeCacheConfiguration(raw []byte) (*CacheConfiguration, error) {
	config := &CacheConfiguration{}
	if err := decoder.Decode(raw, SchemeGroupVersion.WithKind("CacheConfiguration"), config); err != nil {
		return nil, err
	}
	return config, nil
}

// EncodeCacheConfiguration encodes a CacheConfiguration as YAML.
func EncodeCacheConfiguration(config *CacheConfiguration) ([]byte, error) {
	encoded := config.DeepCopy()
	encoded.SetGroupVersionKind(SchemeGroupVersion.WithKind("CacheConfiguration"))
	raw, err := yaml.Marshal(encoded)
	if err != nil {
		return nil, fmt.Errorf("encode CacheConfiguration: %w", err)
	}
	return raw, nil
}
