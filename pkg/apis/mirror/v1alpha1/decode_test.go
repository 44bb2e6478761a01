// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package v1alpha1_test

import (
	"encoding/json"
	"testing"

	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/utils/ptr"

	"github.com/gardener/gardener-extension-registry-cache/pkg/apis/mirror/v1alpha1"
	"github.com/gardener/gardener-extension-registry-cache/pkg/apis/strict"
)

const head = `{"apiVersion":"mirror.extensions.gardener.cloud/v1alpha1","kind":"MirrorConfig"`

func TestDecodeDefaults(t *testing.T) {
	g := NewWithT(t)
	config, err := v1alpha1.Decode([]byte(head + `,"mirrors":[
		{"upstream":"docker.io","hosts":[{"host":"https://a"},{"host":"https://b","capabilities":null}]},
		{"upstream":"a.io","hosts":[{"host":"https://c","capabilities":[]}]}]}`))
	g.Expect(err).NotTo(HaveOccurred())

	pull := []v1alpha1.MirrorHostCapability{"pull"}
	g.Expect(config.Mirrors).To(Equal([]v1alpha1.MirrorConfiguration{
		{Upstream: "docker.io", Hosts: []v1alpha1.MirrorHost{{Host: "https://a", Capabilities: pull}, {Host: "https://b", Capabilities: pull}}},
		{Upstream: "a.io", Hosts: []v1alpha1.MirrorHost{{Host: "https://c", Capabilities: pull}}},
	}))
}

func TestDecodeKeepsWhatIsSet(t *testing.T) {
	g := NewWithT(t)
	config, err := v1alpha1.Decode([]byte(`
apiVersion: mirror.extensions.gardener.cloud/v1alpha1
kind: MirrorConfig
mirrors:
- upstream: docker.io
  hosts:
  - host: https://harbor.example.com/v2/docker-hub
    capabilities: [resolve, pull]
    caBundleSecretReferenceName: harbor-ca
    overridePath: true
  - host: http://mirror.example.com:5000
    capabilities: [resolve]
    overridePath: false
`))
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(config.Mirrors).To(Equal([]v1alpha1.MirrorConfiguration{{Upstream: "docker.io", Hosts: []v1alpha1.MirrorHost{
		{
			Host:                        "https://harbor.example.com/v2/docker-hub",
			Capabilities:                []v1alpha1.MirrorHostCapability{v1alpha1.MirrorHostCapabilityResolve, v1alpha1.MirrorHostCapabilityPull},
			CABundleSecretReferenceName: ptr.To("harbor-ca"),
			OverridePath:                ptr.To(true),
		},
		{
			Host:         "http://mirror.example.com:5000",
			Capabilities: []v1alpha1.MirrorHostCapability{v1alpha1.MirrorHostCapabilityResolve},
			OverridePath: ptr.To(false),
		},
	}}}))
}

func TestDecodeErrors(t *testing.T) {
	for name, test := range map[string]struct{ raw, want string }{
		"nothing":             {``, strict.ErrEmpty.Error()},
		"no kind":             {`{}`, `expected apiVersion "mirror.extensions.gardener.cloud/v1alpha1" and kind "MirrorConfig", but got none and none`},
		"a RegistryConfig":    {`{"apiVersion":"registry.extensions.gardener.cloud/v1alpha3","kind":"RegistryConfig"}`, `expected apiVersion "mirror.extensions.gardener.cloud/v1alpha1" and kind "MirrorConfig", but got "registry.extensions.gardener.cloud/v1alpha3" and "RegistryConfig"`},
		"duplicate field":     {head + `,"mirrors":[{"upstream":"a.io","hosts":[{"host":"https://a","host":"https://b"}]}]}`, `decode MirrorConfig: mirrors[0].hosts[0].host: Duplicate value: keep the field once`},
		"hosts of strings":    {head + `,"mirrors":[{"upstream":"a.io","hosts":["https://a"]}]}`, `decode MirrorConfig: mirrors[0].hosts[0]: Invalid value: expected an object, got a string`},
		"capabilities a word": {head + `,"mirrors":[{"upstream":"a.io","hosts":[{"host":"https://a","capabilities":"pull"}]}]}`, `decode MirrorConfig: mirrors[0].hosts[0].capabilities: Invalid value: expected a list, got a string`},
		"overridePath a path": {head + `,"mirrors":[{"upstream":"a.io","hosts":[{"host":"https://a","overridePath":"/v2"}]}]}`, `decode MirrorConfig: mirrors[0].hosts[0].overridePath: Invalid value: expected true or false, got a string`},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			config, err := v1alpha1.Decode([]byte(test.raw))
			g.Expect(err).To(MatchError(test.want))
			g.Expect(config).To(BeNil())
		})
	}
}

func TestDecodeUnknownField(t *testing.T) {
	g := NewWithT(t)
	config, err := v1alpha1.Decode([]byte(head + `,"mirrors":[{"upstream":"a.io","hosts":[{"url":"https://a"}]}]}`))
	g.Expect(err).To(MatchError("decode MirrorConfig: mirrors[0].hosts[0].url: Forbidden: unknown field: expected one of host, capabilities, caBundleSecretReferenceName, overridePath"))
	g.Expect(config.Mirrors[0].Upstream).To(Equal("a.io"), "what else there is can be judged too")
}

// FuzzDecode looks for input that makes Decode panic or hang, and for a
// configuration that is another one after a round trip.
func FuzzDecode(f *testing.F) {
	f.Fuzz(func(t *testing.T, raw []byte) {
		config, err := v1alpha1.Decode(raw)
		if err != nil {
			return
		}
		g := NewWithT(t)
		config.SetGroupVersionKind(v1alpha1.SchemeGroupVersion.WithKind("MirrorConfig"))
		encoded, err := json.Marshal(config)
		g.Expect(err).NotTo(HaveOccurred())
		again, err := v1alpha1.Decode(encoded)
		g.Expect(err).NotTo(HaveOccurred())
		again.SetGroupVersionKind(config.GroupVersionKind())
		g.Expect(equality.Semantic.DeepEqual(again, config)).To(BeTrue(), "%s", encoded)
	})
}
