// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package strict

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"strings"

	"k8s.io/apimachinery/pkg/api/resource"
)

// hugeExponent finds quantities such as 1e-99999999. Kubernetes' parser would
// calculate that power of ten, which takes it minutes and gigabytes.
var hugeExponent = regexp.MustCompile(`[eE][-+]?[0-9]{3,}`)

// checkValues walks a document beside the type that it is to be decoded into,
// as deep as that type, and returns an error with the path of each value that
// does not fit. It leaves unknown fields to the decoder.
func checkValues(path string, raw json.RawMessage, typ reflect.Type) []error {
	if typ.Kind() == reflect.Pointer {
		return checkValues(path, raw, typ.Elem())
	}
	if len(raw) == 0 || string(raw) == "null" {
		return nil
	}

	var errs []error
	switch kind := typ.Kind(); {
	case reflect.PointerTo(typ).Implements(reflect.TypeFor[json.Unmarshaler]()):
		errs = checkLeaf(path, raw, typ)
	case kind == reflect.Struct:
		var object map[string]json.RawMessage
		if err := json.Unmarshal(raw, &object); err != nil {
			return []error{mismatch(path, kind, raw)}
		}
		for i := range typ.NumField() {
			name, _, _ := strings.Cut(typ.Field(i).Tag.Get("json"), ",")
			if typ.Field(i).Anonymous && name == "" { // inlined
				errs = append(errs, checkValues(path, raw, typ.Field(i).Type)...)
				continue
			}
			errs = append(errs, checkValues(strings.TrimPrefix(path+"."+name, "."), object[name], typ.Field(i).Type)...)
		}
	case kind == reflect.Slice:
		var list []json.RawMessage
		if err := json.Unmarshal(raw, &list); err != nil {
			return []error{mismatch(path, kind, raw)}
		}
		for i := range list {
			errs = append(errs, checkValues(fmt.Sprintf("%s[%d]", path, i), list[i], typ.Elem())...)
		}
	default:
		errs = checkLeaf(path, raw, typ)
	}
	return errs
}

func checkLeaf(path string, raw json.RawMessage, typ reflect.Type) []error {
	if typ == reflect.TypeFor[resource.Quantity]() && hugeExponent.Match(raw) {
		return []error{fmt.Errorf("%s: the exponent of a quantity must not have more than 2 digits", path)}
	}
	err := json.Unmarshal(raw, reflect.New(typ).Interface())
	if wrongType := (*json.UnmarshalTypeError)(nil); errors.As(err, &wrongType) {
		return []error{mismatch(path, wrongType.Type.Kind(), raw)}
	} else if err != nil {
		return []error{fmt.Errorf("%s: %w", path, err)}
	}
	return nil
}

func mismatch(path string, kind reflect.Kind, raw json.RawMessage) error {
	want := map[reflect.Kind]string{
		reflect.Struct: "an object", reflect.Slice: "a list", reflect.String: "a string",
		reflect.Bool: "true or false", reflect.Int32: "an integer of at most 32 bits",
	}[kind]
	if want == "" {
		want = kind.String()
	}
	return fmt.Errorf("%s: expected %s, got %s", path, want, jsonType(raw))
}

// jsonType names the type of a JSON value, which its first byte tells.
func jsonType(raw json.RawMessage) string {
	switch raw[0] {
	case '{':
		return "an object"
	case '[':
		return "a list"
	case '"':
		return "a string"
	default:
		return fmt.Sprintf("%.40s", raw)
	}
}
