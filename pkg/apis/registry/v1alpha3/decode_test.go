// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package v1alpha3_test

import (
	"encoding/json"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/gardener/gardener-extension-registry-cache/pkg/apis/registry/v1alpha3"
	"github.com/gardener/gardener-extension-registry-cache/pkg/apis/strict"
)

const head = `{"apiVersion":"registry.extensions.gardener.cloud/v1alpha3","kind":"RegistryConfig"`

func TestDecodeDefaults(t *testing.T) {
	g := NewWithT(t)
	config, err := v1alpha3.Decode([]byte(head + `,"caches":[{"upstream":"docker.io"},{"upstream":"a.io:5000","volume":{},"garbageCollection":{},"http":{},"highAvailability":{}}]}`))
	g.Expect(err).NotTo(HaveOccurred())

	defaults := func(upstream, remoteURL string) v1alpha3.RegistryCache {
		return v1alpha3.RegistryCache{
			Upstream:          upstream,
			RemoteURL:         &remoteURL,
			Volume:            &v1alpha3.Volume{Size: ptr.To(resource.MustParse("10Gi"))},
			GarbageCollection: &v1alpha3.GarbageCollection{TTL: &metav1.Duration{Duration: 168 * time.Hour}},
			HTTP:              &v1alpha3.HTTP{TLS: ptr.To(true)},
			HighAvailability:  &v1alpha3.HighAvailability{Enabled: ptr.To(false)},
		}
	}
	g.Expect(config.Caches).To(Equal([]v1alpha3.RegistryCache{
		defaults("docker.io", "https://registry-1.docker.io"),
		defaults("a.io:5000", "https://a.io:5000"),
	}))
}

func TestDecodeKeepsWhatIsSet(t *testing.T) {
	g := NewWithT(t)
	config, err := v1alpha3.Decode([]byte(`
apiVersion: registry.extensions.gardener.cloud/v1alpha3
kind: RegistryConfig
caches:
- upstream: docker.io
  remoteURL: https://mirror.gcr.io
  volume: {size: 100Gi, storageClassName: premium}
  garbageCollection: {ttl: 0s}
  secretReferenceName: docker-creds
  proxy: {httpProxy: "http://proxy:80", httpsProxy: "http://proxy:81"}
  http: {tls: false}
  highAvailability: {enabled: true}
  serviceNameSuffix: hub
`))
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(config.Caches).To(Equal([]v1alpha3.RegistryCache{{
		Upstream:            "docker.io",
		RemoteURL:           ptr.To("https://mirror.gcr.io"),
		Volume:              &v1alpha3.Volume{Size: ptr.To(resource.MustParse("100Gi")), StorageClassName: ptr.To("premium")},
		GarbageCollection:   &v1alpha3.GarbageCollection{TTL: &metav1.Duration{}},
		SecretReferenceName: ptr.To("docker-creds"),
		Proxy:               &v1alpha3.Proxy{HTTPProxy: ptr.To("http://proxy:80"), HTTPSProxy: ptr.To("http://proxy:81")},
		HTTP:                &v1alpha3.HTTP{TLS: ptr.To(false)},
		HighAvailability:    &v1alpha3.HighAvailability{Enabled: ptr.To(true)},
		ServiceNameSuffix:   ptr.To("hub"),
	}}))
}

func TestDecodeErrors(t *testing.T) {
	for name, test := range map[string]struct{ raw, want string }{
		"nothing":          {``, strict.ErrEmpty.Error()},
		"not an object":    {`"docker.io"`, `configuration is not an object`},
		"no kind":          {`{}`, `expected apiVersion "registry.extensions.gardener.cloud/v1alpha3" and kind "RegistryConfig", but got none and none`},
		"the status":       {`{"apiVersion":"registry.extensions.gardener.cloud/v1alpha3","kind":"RegistryStatus"}`, `expected apiVersion "registry.extensions.gardener.cloud/v1alpha3" and kind "RegistryConfig", but got "registry.extensions.gardener.cloud/v1alpha3" and "RegistryStatus"`},
		"duplicate field":  {head + `,"caches":[{"upstream":"a.io","upstream":"a.io"}]}`, `decode RegistryConfig: caches[0].upstream: Duplicate value: keep the field once`},
		"caches an object": {head + `,"caches":{"upstream":"a.io"}}`, `decode RegistryConfig: caches: Invalid value: expected a list, got an object`},
		"malformed size":   {head + `,"caches":[{"upstream":"a.io","volume":{"size":"foo"}}]}`, `decode RegistryConfig: caches[0].volume.size: Invalid value: ` + resource.ErrFormatWrong.Error()},
		"endless size":     {head + `,"caches":[{"upstream":"a.io","volume":{"size":"1e-99999999"}}]}`, `decode RegistryConfig: caches[0].volume.size: Invalid value: the exponent of a quantity must not have more than 2 digits`},
		"malformed ttl":    {head + `,"caches":[{"upstream":"a.io"},{"upstream":"b.io","garbageCollection":{"ttl":"foo"}}]}`, `decode RegistryConfig: caches[1].garbageCollection.ttl: Invalid value: time: invalid duration "foo"`},
		"tls a string":     {head + `,"caches":[{"upstream":"a.io","http":{"tls":"yes"}}]}`, `decode RegistryConfig: caches[0].http.tls: Invalid value: expected true or false, got a string`},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			config, err := v1alpha3.Decode([]byte(test.raw))
			g.Expect(err).To(MatchError(test.want))
			g.Expect(config).To(BeNil())
		})
	}
}

func TestDecodeUnknownField(t *testing.T) {
	g := NewWithT(t)
	config, err := v1alpha3.Decode([]byte(head + `,"caches":[{"upstream":"a.io","volume":{"sise":"1Gi"}}]}`))
	g.Expect(err).To(MatchError("decode RegistryConfig: caches[0].volume.sise: Forbidden: unknown field: expected one of size, storageClassName"))
	g.Expect(config.Caches[0].Upstream).To(Equal("a.io"), "what else there is can be judged too")
}

func TestStatusRoundTrip(t *testing.T) {
	g := NewWithT(t)
	status := &v1alpha3.RegistryStatus{
		CASecretName: ptr.To("ca-extension-registry-cache-1234"),
		Caches:       []v1alpha3.RegistryCacheStatus{{Upstream: "a.io:5000", Endpoint: "https://[2001:db8::1]:5000", RemoteURL: "https://a.io:5000"}},
	}
	encoded, err := v1alpha3.EncodeStatus(status)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(encoded.Raw).To(MatchJSON(`{"apiVersion":"registry.extensions.gardener.cloud/v1alpha3","kind":"RegistryStatus",
		"caSecretName":"ca-extension-registry-cache-1234",
		"caches":[{"upstream":"a.io:5000","endpoint":"https://[2001:db8::1]:5000","remoteURL":"https://a.io:5000"}]}`))
	g.Expect(status.TypeMeta).To(BeZero(), "is not changed by its encoding")

	decoded, err := v1alpha3.DecodeStatus(encoded.Raw)
	g.Expect(err).NotTo(HaveOccurred())
	decoded.TypeMeta = metav1.TypeMeta{}
	g.Expect(decoded).To(Equal(status))

	_, err = v1alpha3.DecodeStatus(nil)
	g.Expect(err).To(MatchError(strict.ErrEmpty))
}

// FuzzDecode looks for input that makes Decode panic or hang, and for a
// configuration that is another one after a round trip.
func FuzzDecode(f *testing.F) {
	f.Fuzz(func(t *testing.T, raw []byte) {
		config, err := v1alpha3.Decode(raw)
		if err != nil {
			return
		}
		g := NewWithT(t)
		config.SetGroupVersionKind(v1alpha3.SchemeGroupVersion.WithKind("RegistryConfig"))
		encoded, err := json.Marshal(config)
		g.Expect(err).NotTo(HaveOccurred())
		again, err := v1alpha3.Decode(encoded)
		g.Expect(err).NotTo(HaveOccurred())
		again.SetGroupVersionKind(config.GroupVersionKind())
		g.Expect(equality.Semantic.DeepEqual(again, config)).To(BeTrue(), "%s", encoded)
	})
}
