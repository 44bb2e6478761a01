// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package strict_test

import (
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/gardener/gardener-extension-registry-cache/pkg/apis/strict"
)

var groupVersion = schema.GroupVersion{Group: "strict.test", Version: "v1"}

// Sample has one field of every sort that the APIs of this project use.
type Sample struct {
	metav1.TypeMeta `json:",inline"`

	Name  string            `json:"name"`
	Items []Item            `json:"items,omitempty"`
	Size  resource.Quantity `json:"size,omitempty"`
	Limit *int32            `json:"limit,omitempty"`
}

// Item is an element of a Sample.
type Item struct {
	TTL     *metav1.Duration   `json:"ttl,omitempty"`
	Size    *resource.Quantity `json:"size,omitempty"`
	Enabled *bool              `json:"enabled,omitempty"`
	Items   []Item             `json:"items,omitempty"`
	Words   []string           `json:"words,omitempty"`
}

func (s *Sample) DeepCopyObject() runtime.Object {
	out := *s
	return &out
}

func newDecoder() strict.Decoder {
	return strict.NewDecoder(func(scheme *runtime.Scheme) error {
		scheme.AddKnownTypes(groupVersion, &Sample{})
		scheme.AddTypeDefaultingFunc(&Sample{}, func(object any) {
			if sample := object.(*Sample); sample.Name == "" {
				sample.Name = "default"
			}
		})
		return nil
	})
}

func decode(raw string) (*Sample, error) {
	sample := &Sample{}
	return sample, newDecoder().Decode([]byte(raw), groupVersion.WithKind("Sample"), sample)
}

const head = `{"apiVersion":"strict.test/v1","kind":"Sample",`

func TestDecode(t *testing.T) {
	for name, raw := range map[string]string{
		"JSON":            head + `"items":[{"ttl":"1h","size":"1Gi","enabled":true,"words":["a"]},{}]}`,
		"JSON with tabs":  "\n{\t\"apiVersion\":\t\"strict.test/v1\",\"kind\":\"Sample\",\t\"items\":[{\"ttl\":\"1h\",\"size\":\"1Gi\",\"enabled\":true,\"words\":[\"a\"]},{}]}\n",
		"YAML":            "apiVersion: strict.test/v1\nkind: Sample\nitems:\n- {ttl: 1h, size: 1Gi, enabled: true, words: [a]}\n- {}\n",
		"YAML that flows": `{apiVersion: strict.test/v1, kind: Sample, items: [{ttl: 1h, size: 1Gi, enabled: true, words: [a]}, {}]}`,
		"null is unset":   head + `"name":null,"limit":null,"items":[{"ttl":"1h","size":"1Gi","enabled":true,"words":["a"],"items":null},null]}`,
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			sample, err := decode(raw)
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(sample.Name).To(Equal("default"))
			g.Expect(sample.Limit).To(BeNil())
			g.Expect(sample.Items).To(HaveLen(2))
			g.Expect(sample.Items[0].TTL.Duration).To(Equal(time.Hour))
			g.Expect(sample.Items[0].Size.String()).To(Equal("1Gi"))
			g.Expect(*sample.Items[0].Enabled).To(BeTrue())
			g.Expect(sample.Items[0].Words).To(Equal([]string{"a"}))
			g.Expect(sample.Items[1]).To(Equal(Item{}))
		})
	}
}

func TestDecodeErrors(t *testing.T) {
	for name, test := range map[string]struct{ raw, want string }{
		"no document":           {`"text"`, `configuration is not an object`},
		"list":                  {`[]`, `configuration is not an object`},
		"neither JSON nor YAML": {`{`, `configuration cannot be read as JSON or YAML: `},
		"kind missing":          {`{"apiVersion":"strict.test/v1"}`, `expected apiVersion "strict.test/v1" and kind "Sample", but got "strict.test/v1" and none`},
		"kind null":             {`{"apiVersion":null,"kind":""}`, `expected apiVersion "strict.test/v1" and kind "Sample", but got none and ""`},
		"kind in capitals":      {`{"apiVersion":"strict.test/v1","Kind":"Sample"}`, `expected apiVersion "strict.test/v1" and kind "Sample", but got "strict.test/v1" and none`},
		"other kind":            {`{"apiVersion":"strict.test/v2","kind":"Other"}`, `expected apiVersion "strict.test/v1" and kind "Sample", but got "strict.test/v2" and "Other"`},
		"kind of another type":  {`{"apiVersion":1,"kind":{}}`, `expected apiVersion "strict.test/v1" and kind "Sample", but got 1 and an object`},

		"unknown field":           {head + `"items":[{},{"foo":1}]}`, `decode Sample: items[1].foo: Forbidden: unknown field: expected one of ttl, size, enabled, items, words`},
		"unknown fields":          {head + `"foo":1,"items":[{"bar":1}]}`, `decode Sample: [items[0].bar: Forbidden: unknown field: expected one of ttl, size, enabled, items, words, foo: Forbidden: unknown field: expected one of kind, apiVersion, name, items, size, limit]`},
		"field in capitals":       {head + `"Name":"a"}`, `decode Sample: Name: Forbidden: unknown field: expected one of kind, apiVersion, name, items, size, limit`},
		"unknown field in YAML":   {"apiVersion: strict.test/v1\nkind: Sample\nitems: [{foo: 1}]", `decode Sample: items[0].foo: Forbidden: unknown field: expected one of ttl`},
		"duplicate field":         {head + `"items":[{"ttl":"1s","ttl":"1s"}]}`, `decode Sample: items[0].ttl: Duplicate value: keep the field once`},
		"duplicate field in YAML": {"apiVersion: strict.test/v1\nkind: Sample\nname: a\nname: b", `configuration cannot be read as JSON or YAML: yaml: unmarshal errors:` + "\n" + `  line 4: key "name" already set in map`},

		"list expected":       {head + `"items":{}}`, `decode Sample: items: Invalid value: expected a list, got an object`},
		"object expected":     {head + `"items":[{},"a"]}`, `decode Sample: items[1]: Invalid value: expected an object, got a string`},
		"string expected":     {head + `"name":[]}`, `decode Sample: name: Invalid value: expected a string, got a list`},
		"string in a list":    {head + `"items":[{"words":["a",1]}]}`, `decode Sample: items[0].words[1]: Invalid value: expected a string, got 1`},
		"bool expected":       {head + `"items":[{"enabled":"yes"}]}`, `decode Sample: items[0].enabled: Invalid value: expected true or false, got a string`},
		"integer expected":    {head + `"limit":1.5}`, `decode Sample: limit: Invalid value: expected an integer of at most 32 bits, got 1.5`},
		"integer too large":   {head + `"limit":4294967296}`, `decode Sample: limit: Invalid value: expected an integer of at most 32 bits, got 4294967296`},
		"duration malformed":  {head + `"items":[{"items":[{"ttl":"foo"}]}]}`, `decode Sample: items[0].items[0].ttl: Invalid value: time: invalid duration "foo"`},
		"duration no string":  {head + `"items":[{"ttl":5}]}`, `decode Sample: items[0].ttl: Invalid value: expected a string, got 5`},
		"quantity malformed":  {head + `"items":[{"size":"foo"}]}`, `decode Sample: items[0].size: Invalid value: quantities must match the regular expression`},
		"quantity in YAML":    {"apiVersion: strict.test/v1\nkind: Sample\nsize: foo", `decode Sample: size: Invalid value: quantities must match the regular expression`},
		"several values":      {head + `"name":true,"items":[{"ttl":"foo"}]}`, `decode Sample: [name: Invalid value: expected a string, got true, items[0].ttl: Invalid value: time: invalid duration "foo"]`},
		"huge exponent":       {head + `"size":"1e-99999999"}`, `decode Sample: size: Invalid value: the exponent of a quantity must not have more than 2 digits`},
		"huge in whitespace":  {head + `"size":" 1E+100000000 "}`, `decode Sample: size: Invalid value: the exponent of a quantity must not have more than 2 digits`},
		"huge number":         {head + `"size":1e-99999999}`, `decode Sample: size: Invalid value: the exponent of a quantity must not have more than 2 digits`},
		"huge, then no more":  {head + `"size":"1e-99999999","size":"1"}`, `decode Sample: size: Duplicate value: keep the field once`},
		"huge number in YAML": {"apiVersion: strict.test/v1\nkind: Sample\nsize: 1e-99999999x", `decode Sample: size: Invalid value: the exponent of a quantity must not have more than 2 digits`},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			_, err := decode(test.raw)
			g.Expect(err).To(MatchError(HavePrefix(test.want)))
		})
	}
}

func TestDecodeNothing(t *testing.T) {
	for _, raw := range []string{"", " \n", "null", " null "} {
		g := NewWithT(t)
		_, err := decode(raw)
		g.Expect(err).To(MatchError(strict.ErrEmpty), "%q", raw)
	}
}

func TestDecodeIsBounded(t *testing.T) {
	const depth = 100_000
	nested := func(open, value, end string) string {
		return strings.Repeat(open, depth) + value + strings.Repeat(end, depth)
	}
	for name, raw := range map[string]string{
		"document of lists":   nested("[", "", "]"),
		"document of objects": nested(`{"a":`, "1", "}"),
		"lists in a field":    head + `"items":` + nested("[", "", "]") + "}",
		"unknown field":       head + `"foo":` + nested(`{"a":`, "1", "}") + "}",
		"YAML":                "apiVersion: strict.test/v1\nkind: Sample\nitems: " + nested("[", "", "]"),
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			g.Expect(len(raw)).To(BeNumerically("<", strict.MaxSize))
			_, err := decode(raw)
			g.Expect(err).To(MatchError(ContainSubstring("exceeded max depth")))
		})
	}

	t.Run("type that contains itself", func(t *testing.T) {
		g := NewWithT(t)
		const depth = 1000
		_, err := decode(head + `"items":` + strings.Repeat(`[{"items":`, depth) + "1" + strings.Repeat("}]", depth) + "}")
		g.Expect(err).To(MatchError(HaveSuffix("items[0].items: Invalid value: expected a list, got 1")))
	})

	t.Run("size", func(t *testing.T) {
		g := NewWithT(t)
		_, err := decode(head + `"name":"` + strings.Repeat("a", strict.MaxSize) + `"}`)
		g.Expect(err).To(MatchError(MatchRegexp(`^configuration has \d+ bytes, at most 1048576 are allowed$`)))
	})
}
