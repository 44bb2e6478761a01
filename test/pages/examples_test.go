// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package pages

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"

	gardencorev1 "github.com/gardener/gardener/pkg/apis/core/v1"
	. "github.com/onsi/gomega"
	"github.com/pelletier/go-toml/v2"
	"helm.sh/helm/v4/pkg/chart/common/util"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"github.com/gardener/gardener-extension-registry-cache/charts"
	"github.com/gardener/gardener-extension-registry-cache/pkg/admission/judge"
	mirrorv1alpha1 "github.com/gardener/gardener-extension-registry-cache/pkg/apis/mirror/v1alpha1"
	"github.com/gardener/gardener-extension-registry-cache/pkg/apis/registry/v1alpha3"
)

type object = map[string]any

// No block of YAML is one that Gardener or our admission would refuse. Those of files
// in the folder example are tested there.
func TestExamplesAreAccepted(t *testing.T) {
	shoots := 0
	for _, block := range blocksOf(t, "yaml") {
		t.Run(block.String(), func(t *testing.T) {
			g := NewWithT(t)
			var example object
			g.Expect(yaml.UnmarshalStrict([]byte(block.Text), &example)).To(Succeed())
			if shoot, isShoot := shootOf(example); isShoot {
				shoots++
				g.Expect(problemsOf(g, shoot)).To(BeEmpty())
				return
			}
			expectOperators(g, example)
		})
	}
	NewWithT(t).Expect(shoots).To(BeNumerically(">=", 10), "the tests know Shoots when they see them")
}

func TestBadExamplesAreFound(t *testing.T) {
	for text, problem := range map[string]string{
		"caches: [{upstream: 'https://docker.io'}]": "must not have a scheme",
		"caches: [{upstream: docker.io, size: 1}]":  "unknown field",
		"mirrors: [{upstream: docker.io}]":          "at least one mirror is needed",
		"hosts: [{host: a.io}]":                     "must start with http",
		"extensions: [{type: registry-mirror}]":     "must be a MirrorConfig",
		"spec: {extensions: [{type: registry-cache, providerConfig: {apiVersion: registry.extensions.gardener.cloud/v1alpha3, kind: RegistryConfig, caches: [{upstream: a.io, secretReferenceName: b}]}}]}": "spec.resources of the Shoot has no entry",
	} {
		g := NewWithT(t)
		var example object
		g.Expect(yaml.UnmarshalStrict([]byte(text), &example)).To(Succeed())
		shoot, isShoot := shootOf(example)
		g.Expect(isShoot).To(BeTrue(), text)
		g.Expect(problemsOf(g, shoot)).To(ConsistOf(ContainSubstring(problem)), text)
	}
}

// shootOf makes a Shoot of a part of one, such as a list of caches. Only what has the
// Shoot's spec can have entries in its resources; a smaller part gets what it names.
func shootOf(example object) (shoot object, isShoot bool) {
	config := func(extensionType, apiVersion, kind string) object {
		config := object{"apiVersion": apiVersion, "kind": kind}
		maps.Copy(config, example)
		return object{"extensions": []any{object{"type": extensionType, "providerConfig": config}}, "resources": resourcesFor(example)}
	}
	spec, complete := example["spec"].(object)
	switch {
	case complete:
	case example["extensions"] != nil:
		spec = example
	case example["caches"] != nil:
		spec = config(v1alpha3.ExtensionType, v1alpha3.SchemeGroupVersion.String(), "RegistryConfig")
	case example["hosts"] != nil:
		example = object{"mirrors": []any{object{"upstream": "docker.io", "hosts": example["hosts"]}}}
		fallthrough
	case example["mirrors"] != nil:
		spec = config(mirrorv1alpha1.ExtensionType, mirrorv1alpha1.SchemeGroupVersion.String(), "MirrorConfig")
	default:
		return nil, false
	}
	return object{"apiVersion": "core.gardener.cloud/v1beta1", "kind": "Shoot", "spec": spec}, true
}

// resourcesFor are entries for all names of references in a value.
func resourcesFor(value any) []any {
	var resources []any
	switch value := value.(type) {
	case object:
		for _, key := range slices.Sorted(maps.Keys(value)) {
			if name, ok := value[key].(string); ok && strings.HasSuffix(strings.ToLower(key), "secretreferencename") {
				resources = append(resources, object{"name": name, "resourceRef": object{"apiVersion": "v1", "kind": "Secret", "name": name}})
			}
			resources = append(resources, resourcesFor(value[key])...)
		}
	case []any:
		for _, item := range value {
			resources = append(resources, resourcesFor(item)...)
		}
	}
	return resources
}

// problemsOf are what admission would say of a Shoot, of whose Secrets it knows
// nothing.
func problemsOf(g *WithT, example object) []string {
	raw, err := json.Marshal(example)
	g.Expect(err).NotTo(HaveOccurred())
	shoot, err := judge.DecodeShoot(raw)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(shoot.Spec.Extensions).NotTo(BeEmpty())
	found, _ := judge.Offline(shoot, func(string) *corev1.Secret { return nil })
	var problems []string
	for _, problem := range found {
		problems = append(problems, problem.Error())
	}
	return problems
}

// expectOperators expects what operators write: values of the charts, or a part of a
// ControllerDeployment.
func expectOperators(g *WithT, example object) {
	values := map[string]object{}
	for _, part := range slices.Sorted(maps.Keys(example)) {
		switch part {
		case "extension":
			values[charts.Controller] = example[part].(object)["values"].(object)
		case "admission":
			values[charts.AdmissionRuntime] = example[part].(object)["values"].(object)
		case "imageVectorOverwrite":
			values[charts.Controller] = example
		case "helm":
			raw, err := yaml.Marshal(example)
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(yaml.UnmarshalStrict(raw, &gardencorev1.ControllerDeployment{})).To(Succeed())
		default:
			g.Expect(part).To(BeEmpty(), "nobody knows what this is a part of")
		}
	}
	for chart, given := range values {
		schema, err := charts.Read(chart, "values.schema.json")
		g.Expect(err).NotTo(HaveOccurred())
		content, err := charts.Read(chart, "values.yaml")
		g.Expect(err).NotTo(HaveOccurred())
		defaults := object{}
		g.Expect(yaml.Unmarshal(content, &defaults)).To(Succeed())
		maps.Copy(defaults, given)
		g.Expect(util.ValidateAgainstSingleSchema(defaults, schema)).To(Succeed())
	}
}

func TestTOMLIsThatOfContainerd(t *testing.T) {
	for _, block := range blocksOf(t, "toml") {
		g := NewWithT(t)
		var hosts struct {
			Server string            `toml:"server"`
			Host   map[string]object `toml:"host"`
		}
		g.Expect(toml.NewDecoder(strings.NewReader(block.Text)).DisallowUnknownFields().Decode(&hosts)).To(Succeed(), "%s", block)
		g.Expect(hosts.Host).NotTo(BeEmpty(), "%s", block)
	}
}

// blocksOf returns the blocks of a language, of which there are some.
func blocksOf(t *testing.T, language string) []Block {
	g := NewWithT(t)
	pages, err := Read(root)
	g.Expect(err).NotTo(HaveOccurred())
	var blocks []Block
	for _, page := range pages {
		for _, block := range page.Blocks {
			if block.Language == language {
				blocks = append(blocks, block)
			}
		}
	}
	g.Expect(blocks).NotTo(BeEmpty())
	return blocks
}
