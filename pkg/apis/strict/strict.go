// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

// Package strict decodes the APIs of this project from JSON or YAML: an unknown
// field, a duplicate field or another kind is an error that names it. Defaults
// are set on the way.
package strict

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"sigs.k8s.io/yaml"
)

// MaxSize is the most bytes that Decode reads. It is what Kubernetes' API
// server lets into an object, so that only a mistake is longer.
const MaxSize = 1 << 20

// ErrEmpty is returned by Decode when there is nothing to decode.
var ErrEmpty = errors.New("configuration is empty")

// Decoder decodes objects of the kinds of one API.
type Decoder struct {
	decoder runtime.Decoder
}

// NewDecoder returns a Decoder for the kinds that addToScheme registers, with
// their defaults. It panics if they cannot be registered.
func NewDecoder(addToScheme func(*runtime.Scheme) error) Decoder {
	scheme := runtime.NewScheme()
	utilruntime.Must(addToScheme(scheme))
	return Decoder{decoder: serializer.NewCodecFactory(scheme, serializer.EnableStrict).UniversalDecoder()}
}

// Decode decodes raw into an object of the given kind. It returns ErrEmpty if
// raw is empty or `null`.
func (d Decoder) Decode(raw []byte, kind schema.GroupVersionKind, into runtime.Object) error {
	trimmed := bytes.TrimSpace(raw)
	if len(trimmed) == 0 || bytes.Equal(trimmed, []byte("null")) {
		return ErrEmpty
	}
	if len(trimmed) > MaxSize {
		return fmt.Errorf("configuration has %d bytes, at most %d are allowed", len(trimmed), MaxSize)
	}
	if err := checkKind(trimmed, kind); err != nil {
		return err
	}

	if _, _, err := d.decoder.Decode(trimmed, nil, into); err != nil {
		return fmt.Errorf("decode %s: %w", kind.Kind, err)
	}
	return nil
}

// checkKind tells a document that is no object, or of another kind, from an
// object with errors: the decoder's own messages for these speak of Go types
// and schemes, and it takes a missing kind for the expected one.
func checkKind(raw []byte, want schema.GroupVersionKind) error {
	var document any
	if err := yaml.Unmarshal(raw, &document); err != nil {
		return fmt.Errorf("configuration is neither JSON nor YAML: %w", err)
	}
	object, ok := document.(map[string]any)
	if !ok {
		return errors.New("configuration is not an object")
	}
	if object["apiVersion"] != want.GroupVersion().String() || object["kind"] != want.Kind {
		return fmt.Errorf("expected apiVersion %q and kind %q, but got %s and %s",
			want.GroupVersion(), want.Kind, describe(object["apiVersion"]), describe(object["kind"]))
	}
	return nil
}

func describe(value any) string {
	if value == nil {
		return "none"
	}
	return strconv.Quote(fmt.Sprint(value))
}
