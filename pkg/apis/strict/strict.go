// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

// Package strict decodes the APIs of this project from JSON or YAML: an unknown
// field, a duplicate field or another kind is an error that names it. Defaults
// are set on the way.
package strict

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strconv"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	kjson "sigs.k8s.io/json"
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
// raw is empty or `null`, and FieldErrors for all fields that are wrong. If these
// are only unknown ones, the object has all the others.
func (d Decoder) Decode(raw []byte, kind schema.GroupVersionKind, into runtime.Object) error {
	trimmed := bytes.TrimSpace(raw)
	if len(trimmed) == 0 || bytes.Equal(trimmed, []byte("null")) {
		return ErrEmpty
	}
	if len(trimmed) > MaxSize {
		return fmt.Errorf("configuration has %d bytes, at most %d are allowed", len(trimmed), MaxSize)
	}
	document, err := toJSON(trimmed)
	if err != nil {
		return err
	}
	if err := checkKind(document, kind); err != nil {
		return err
	}
	// Most configurations are right: the rest finds out, at several times the cost,
	// how to say what is wrong.
	if !hasHugeExponent(document) {
		if _, _, err := d.decoder.Decode(document, nil, into); err == nil {
			return nil
		}
	}
	errs, err := checkDuplicates(document)
	if err != nil {
		return fmt.Errorf("decode %s: %w", kind.Kind, err)
	}
	errs = append(errs, checkFields(nil, document, reflect.TypeOf(into))...)
	// The decoder's errors of values name no field, or speak of Go types, and of two
	// values for one field it reads the one that was not checked, too.
	if !FieldErrors(errs).areUnknown() {
		return fmt.Errorf("decode %s: %w", kind.Kind, FieldErrors(errs))
	}
	if _, _, err := d.decoder.Decode(document, nil, into); err != nil && (len(errs) == 0 || !runtime.IsStrictDecodingError(err)) {
		return fmt.Errorf("decode %s: %w", kind.Kind, err)
	}
	if len(errs) > 0 {
		return fmt.Errorf("decode %s: %w", kind.Kind, FieldErrors(errs))
	}
	return nil
}

// New decodes raw into a new object of the given kind as Decoder.Decode does. With
// an error it returns nil, unless it is FieldErrors that are only of unknown fields.
func New[T any, PT interface {
	*T
	runtime.Object
}](decoder Decoder, raw []byte, kind schema.GroupVersionKind) (*T, error) {
	object := new(T)
	err := decoder.Decode(raw, kind, PT(object))
	if errs := (FieldErrors)(nil); err == nil || errors.As(err, &errs) && errs.areUnknown() {
		return object, err
	}
	return nil, err
}

// toJSON returns JSON as it is: a detour through YAML would lose the paths of
// duplicate fields.
func toJSON(raw []byte) ([]byte, error) {
	if json.Valid(raw) {
		return raw, nil
	}
	document, err := yaml.YAMLToJSONStrict(raw)
	if err != nil {
		return nil, fmt.Errorf("configuration cannot be read as JSON or YAML: %w", err)
	}
	return document, nil
}

// checkDuplicates returns an error for each field that is there twice.
func checkDuplicates(document []byte) (field.ErrorList, error) {
	var discarded any
	duplicates, err := kjson.UnmarshalStrict(document, &discarded, kjson.DisallowDuplicateFields)
	if err != nil {
		return nil, err
	}
	var errs field.ErrorList
	for _, duplicate := range duplicates {
		path := duplicate.Error()
		if fieldError := (kjson.FieldError)(nil); errors.As(duplicate, &fieldError) {
			path = fieldError.FieldPath()
		}
		err := field.Duplicate(nil, field.OmitValueType{})
		err.Field, err.Detail = cut(path, maxPath), "keep the field once"
		errs = append(errs, err)
	}
	return errs, nil
}

// checkKind tells a document that is no object, or of another kind, from an
// object with errors: the decoder's own messages for these speak of Go types
// and schemes, and it takes a missing kind for the expected one.
func checkKind(document []byte, want schema.GroupVersionKind) error {
	var object map[string]json.RawMessage
	if err := json.Unmarshal(document, &object); err != nil {
		return errors.New("configuration is not an object")
	}
	apiVersion, kind := describe(object["apiVersion"]), describe(object["kind"])
	if apiVersion != strconv.Quote(want.GroupVersion().String()) || kind != strconv.Quote(want.Kind) {
		return fmt.Errorf("expected apiVersion %q and kind %q, but got %s and %s", want.GroupVersion(), want.Kind, apiVersion, kind)
	}
	return nil
}

func describe(value json.RawMessage) string {
	if len(value) == 0 || string(value) == "null" {
		return "none"
	}
	var text string
	if err := json.Unmarshal(value, &text); err != nil {
		return jsonType(value)
	}
	return fmt.Sprintf("%.100q", text)
}
