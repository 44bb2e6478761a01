// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package v1alpha1

import (
	"github.com/gardener/gardener-extension-registry-cache/pkg/apis/strict"
)

var decoder = strict.NewDecoder(AddToScheme)

// Decode decodes a MirrorConfig and sets its defaults. An unknown or duplicate
// field is an error that names the field. It returns strict.ErrEmpty if there
// is nothing to decode.
func Decode(raw []byte) (*MirrorConfig, error) {
	return strict.New[MirrorConfig](decoder, raw, SchemeGroupVersion.WithKind("MirrorConfig"))
}
