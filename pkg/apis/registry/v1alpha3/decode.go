// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package v1alpha3

import (
	"encoding/json"
	"fmt"

	"k8s.io/apimachinery/pkg/runtime"

	"github.com/gardener/gardener-extension-registry-cache/pkg/apis/strict"
)

var decoder = strict.NewDecoder(AddToScheme)

// Decode decodes a RegistryConfig and sets its defaults. An unknown or
// duplicate field is an error that names the field. It returns strict.ErrEmpty
// if there is nothing to decode.
func Decode(raw []byte) (*RegistryConfig, error) {
	return strict.New[RegistryConfig](decoder, raw, SchemeGroupVersion.WithKind("RegistryConfig"))
}

// DecodeStatus decodes the RegistryStatus of an Extension. It returns
// strict.ErrEmpty if the Extension has none yet.
func DecodeStatus(raw []byte) (*RegistryStatus, error) {
	return strict.New[RegistryStatus](decoder, raw, SchemeGroupVersion.WithKind("RegistryStatus"))
}

// EncodeStatus encodes a RegistryStatus for an Extension's providerStatus.
func EncodeStatus(status *RegistryStatus) (*runtime.RawExtension, error) {
	encoded := status.DeepCopy()
	encoded.SetGroupVersionKind(SchemeGroupVersion.WithKind("RegistryStatus"))
	raw, err := json.Marshal(encoded)
	if err != nil {
		return nil, fmt.Errorf("encode RegistryStatus: %w", err)
	}
	return &runtime.RawExtension{Raw: raw}, nil
}
