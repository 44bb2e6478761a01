// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package strict

import (
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"maps"
	"reflect"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// hasHugeExponent finds quantities such as 1e-99999999, by an exponent of three
// digits or more. Kubernetes' parser would calculate that power of ten, which takes
// it minutes and gigabytes. It is no regular expression as these took a third of the
// time of a decoding.
func hasHugeExponent(text []byte) bool {
	for i, c := range text {
		if c != 'e' && c != 'E' {
			continue
		}
		rest := text[i+1:]
		if len(rest) > 0 && (rest[0] == '-' || rest[0] == '+') {
			rest = rest[1:]
		}
		if len(rest) >= 3 && isDigit(rest[0]) && isDigit(rest[1]) && isDigit(rest[2]) {
			return true
		}
	}
	return false
}

func isDigit(c byte) bool {
	return '0' <= c && c <= '9'
}

// maxName and maxPath are how many bytes are shown of the name of an unknown field,
// and of the path of a duplicate one.
const (
	maxName = 100
	maxPath = 300
)

// checkFields walks a document beside the type that it is to be decoded into, as
// deep as that type, and returns an error for each value that does not fit, and for
// each field that the type does not have.
func checkFields(path *field.Path, raw json.RawMessage, typ reflect.Type) field.ErrorList {
	if typ.Kind() == reflect.Pointer {
		return checkFields(path, raw, typ.Elem())
	}
	if len(raw) == 0 || string(raw) == "null" {
		return nil
	}
	switch kind := typ.Kind(); {
	case reflect.PointerTo(typ).Implements(reflect.TypeFor[json.Unmarshaler]()):
		return checkLeaf(path, raw, typ)
	case kind == reflect.Struct:
		return checkObject(path, raw, typ)
	case kind == reflect.Slice:
		var list []json.RawMessage
		if err := json.Unmarshal(raw, &list); err != nil {
			return field.ErrorList{mismatch(path, kind, raw)}
		}
		var errs field.ErrorList
		for i := range list {
			errs = append(errs, checkFields(path.Index(i), list[i], typ.Elem())...)
		}
		return errs
	default:
		return checkLeaf(path, raw, typ)
	}
}

func checkObject(path *field.Path, raw json.RawMessage, typ reflect.Type) field.ErrorList {
	var object map[string]json.RawMessage
	if err := json.Unmarshal(raw, &object); err != nil {
		return field.ErrorList{mismatch(path, reflect.Struct, raw)}
	}
	var (
		errs  field.ErrorList
		names []string
	)
	for name, fieldType := range fieldsOf(typ) {
		names = append(names, name)
		errs = append(errs, checkFields(path.Child(name), object[name], fieldType)...)
	}
	for _, name := range slices.Sorted(maps.Keys(object)) {
		if !slices.Contains(names, name) {
			errs = append(errs, field.Forbidden(path.Child(cut(name, maxName)), "unknown field: expected one of "+strings.Join(names, ", ")))
		}
	}
	return errs
}

// fieldsOf iterates over the fields of a struct as they are in JSON.
func fieldsOf(typ reflect.Type) iter.Seq2[string, reflect.Type] {
	return func(yield func(string, reflect.Type) bool) {
		for i := range typ.NumField() {
			member := typ.Field(i)
			name, _, _ := strings.Cut(member.Tag.Get("json"), ",")
			if !member.Anonymous || name != "" {
				if !yield(name, member.Type) {
					return
				}
				continue
			}
			for name, fieldType := range fieldsOf(member.Type) { // inlined
				if !yield(name, fieldType) {
					return
				}
			}
		}
	}
}

func checkLeaf(path *field.Path, raw json.RawMessage, typ reflect.Type) field.ErrorList {
	if typ == reflect.TypeFor[resource.Quantity]() && hasHugeExponent(raw) {
		return field.ErrorList{invalid(path, "the exponent of a quantity must not have more than 2 digits")}
	}
	err := json.Unmarshal(raw, reflect.New(typ).Interface())
	if wrongType := (*json.UnmarshalTypeError)(nil); errors.As(err, &wrongType) {
		return field.ErrorList{mismatch(path, wrongType.Type.Kind(), raw)}
	} else if err != nil {
		return field.ErrorList{invalid(path, err.Error())}
	}
	return nil
}

func cut(text string, length int) string {
	if len(text) <= length {
		return text
	}
	return strings.ToValidUTF8(text[:length], "") + "..."
}

func mismatch(path *field.Path, kind reflect.Kind, raw json.RawMessage) *field.Error {
	want := map[reflect.Kind]string{
		reflect.Struct: "an object", reflect.Slice: "a list", reflect.String: "a string",
		reflect.Bool: "true or false", reflect.Int32: "an integer of at most 32 bits",
	}[kind]
	if want == "" {
		want = kind.String()
	}
	return invalid(path, fmt.Sprintf("expected %s, got %s", want, jsonType(raw)))
}

func invalid(path *field.Path, detail string) *field.Error {
	return field.TypeInvalid(path, field.OmitValueType{}, detail)
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
