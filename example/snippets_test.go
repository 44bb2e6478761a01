// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package example_test

import (
	"encoding/json"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	. "github.com/onsi/gomega"

	mirrorv1alpha1 "github.com/gardener/gardener-extension-registry-cache/pkg/apis/mirror/v1alpha1"
	"github.com/gardener/gardener-extension-registry-cache/pkg/apis/registry/v1alpha3"
)

// snippets returns the examples of Shoots.
func snippets(g *WithT) []string {
	files, err := filepath.Glob("shoot*.yaml")
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(files).NotTo(BeEmpty())
	return files
}

func TestShootsAreAccepted(t *testing.T) {
	for _, file := range snippets(NewWithT(t)) {
		t.Run(file, func(t *testing.T) {
			NewWithT(t).Expect(problemsOf(t, filepath.Join("..", file), nil)).To(BeEmpty())
		})
	}
}

// A field without an example is one that nobody finds.
func TestShootsShowEveryField(t *testing.T) {
	g := NewWithT(t)
	shown := map[string]map[string]bool{v1alpha3.ExtensionType: {}, mirrorv1alpha1.ExtensionType: {}}
	for _, file := range snippets(g) {
		_, shoot := readAdmissionExample(g, filepath.Join("..", file))
		for _, extension := range shoot.Spec.Extensions {
			var config any
			g.Expect(json.Unmarshal(extension.ProviderConfig.Raw, &config)).To(Succeed())
			collect("", config, shown[extension.Type])
		}
	}
	for extensionType, config := range map[string]any{v1alpha3.ExtensionType: v1alpha3.RegistryConfig{}, mirrorv1alpha1.ExtensionType: mirrorv1alpha1.MirrorConfig{}} {
		fields := fieldsOf("", reflect.TypeOf(config))
		g.Expect(fields).NotTo(BeEmpty())
		for _, field := range fields {
			g.Expect(shown[extensionType]).To(HaveKey(field), extensionType)
		}
	}
}

// collect adds the paths of all values that have no values below them.
func collect(path string, value any, paths map[string]bool) {
	switch value := value.(type) {
	case map[string]any:
		for name, field := range value {
			collect(path+"."+name, field, paths)
		}
	case []any:
		for _, item := range value {
			collect(path, item, paths)
		}
	default:
		paths[path] = true
	}
}

// fieldsOf returns the same paths of a type of ours.
func fieldsOf(path string, t reflect.Type) []string {
	for slices.Contains([]reflect.Kind{reflect.Pointer, reflect.Slice}, t.Kind()) {
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct || !strings.HasPrefix(t.PkgPath(), "github.com/gardener/gardener-extension-registry-cache/") {
		return []string{path}
	}
	var fields []string
	for i := range t.NumField() {
		name, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
		if name != "" {
			fields = append(fields, fieldsOf(path+"."+name, t.Field(i).Type)...)
		}
	}
	return fields
}
