// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package v1alpha1_test

import (
	"reflect"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/gardener/gardener-extension-registry-cache/pkg/apis/config/v1alpha1"
	"github.com/gardener/gardener-extension-registry-cache/pkg/apis/strict"
)

func TestDecodeCacheConfiguration(t *testing.T) {
	g := NewWithT(t)
	config, err := v1alpha1.DecodeCacheConfiguration([]byte(`
apiVersion: config.registry.extensions.gardener.cloud/v1alpha1
kind: CacheConfiguration
upstream: docker.io
remoteURL: https://registry-1.docker.io
`))
	g.Expect(err).NotTo(HaveOccurred())
	config.TypeMeta = metav1.TypeMeta{}
	g.Expect(config).To(Equal(&v1alpha1.CacheConfiguration{
		Upstream:  "docker.io",
		RemoteURL: "https://registry-1.docker.io",
		Storage:   v1alpha1.Storage{RootDirectory: "/var/lib/registry"},
		GarbageCollection: v1alpha1.GarbageCollection{
			TTL: &metav1.Duration{Duration: 168 * time.Hour}, HighWatermark: ptr.To[int32](90), LowWatermark: ptr.To[int32](80),
		},
		Server: v1alpha1.Server{Address: ":5000"},
		Debug:  v1alpha1.Debug{Address: ":5001"},
		Log:    v1alpha1.Log{Level: "info", Format: "json"},
	}))
}

func TestDecodeCacheConfigurationErrors(t *testing.T) {
	const head = "apiVersion: config.registry.extensions.gardener.cloud/v1alpha1\nkind: CacheConfiguration\n"
	for name, test := range map[string]struct{ raw, want string }{
		"unknown field":  {head + "server: {port: 5000}", `decode CacheConfiguration: server.port: Forbidden: unknown field: expected one of address, tls, shutdownDelay`},
		"wrong type":     {head + "garbageCollection: {highWatermark: 90%}", `decode CacheConfiguration: garbageCollection.highWatermark: Invalid value: expected an integer of at most 32 bits, got a string`},
		"wrong value":    {head + "garbageCollection: {ttl: 7d}", `decode CacheConfiguration: garbageCollection.ttl: Invalid value: time: unknown unit "d" in duration "7d"`},
		"not an object":  {head + "log: debug", `decode CacheConfiguration: log: Invalid value: expected an object, got a string`},
		"another kind":   {"apiVersion: v1\nkind: Secret", `expected apiVersion "config.registry.extensions.gardener.cloud/v1alpha1" and kind "CacheConfiguration", but got "v1" and "Secret"`},
		"an empty file":  {"\n", strict.ErrEmpty.Error()},
		"no YAML at all": {"\t", strict.ErrEmpty.Error()},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			config, err := v1alpha1.DecodeCacheConfiguration([]byte(test.raw))
			g.Expect(err).To(MatchError(test.want))
			if name != "unknown field" {
				g.Expect(config).To(BeNil())
			}
		})
	}
}

func TestCacheConfigurationRoundTrip(t *testing.T) {
	everything := &v1alpha1.CacheConfiguration{
		Upstream:       "registry.example.com:5000",
		RemoteURL:      "http://[2001:db8::1]:5000",
		CredentialsDir: "/etc/@robot/#x: {y} [z] &a *b !c %d 'e' \"f\" \\g | > ",
		Storage:        v1alpha1.Storage{RootDirectory: "@/#"},
		GarbageCollection: v1alpha1.GarbageCollection{
			TTL: &metav1.Duration{}, HighWatermark: ptr.To[int32](100), LowWatermark: ptr.To[int32](1),
		},
		Server: v1alpha1.Server{Address: "[::1]:0", TLS: &v1alpha1.TLS{CertFile: "null", KeyFile: "0x1F\nno"}},
		Debug:  v1alpha1.Debug{Address: "12:30:45"},
		Log:    v1alpha1.Log{Level: "true", Format: "~"},
	}
	defaults := &v1alpha1.CacheConfiguration{Upstream: "1.5", RemoteURL: "https://1.5"}
	v1alpha1.SetObjectDefaults_CacheConfiguration(defaults)

	for name, config := range map[string]*v1alpha1.CacheConfiguration{"everything": everything, "defaults": defaults} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			before := config.DeepCopy()

			raw, err := v1alpha1.EncodeCacheConfiguration(config)
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(config).To(Equal(before), "is not changed by its encoding")

			decoded, err := v1alpha1.DecodeCacheConfiguration(raw)
			g.Expect(err).NotTo(HaveOccurred())
			decoded.TypeMeta = metav1.TypeMeta{}
			g.Expect(decoded).To(Equal(config))
		})
	}
}

func TestEncodeIsStable(t *testing.T) {
	g := NewWithT(t)
	raw, err := v1alpha1.EncodeCacheConfiguration(&v1alpha1.CacheConfiguration{Upstream: "docker.io", RemoteURL: "https://registry-1.docker.io"})
	g.Expect(err).NotTo(HaveOccurred())
	// Another text for the same configuration would be a needless change of every
	// deployed cache.
	g.Expect(string(raw)).To(Equal(`apiVersion: config.registry.extensions.gardener.cloud/v1alpha1
debug: {}
garbageCollection: {}
kind: CacheConfiguration
log: {}
remoteURL: https://registry-1.docker.io
server: {}
storage: {}
upstream: docker.io
`))
}

// FuzzDecodeCacheConfiguration decodes anything: it is a configuration that can be
// written and read again, or an error.
func FuzzDecodeCacheConfiguration(f *testing.F) {
	const head = "apiVersion: config.registry.extensions.gardener.cloud/v1alpha1\nkind: CacheConfiguration\n"
	for _, raw := range []string{
		head + "upstream: docker.io\nremoteURL: https://registry-1.docker.io\n",
		head + "garbageCollection: {ttl: 168h, highWatermark: 90, lowWatermark: 80}\nserver: {tls: {certFile: a, keyFile: b}}\n",
		head + "garbageCollection: {ttl: -1s, highWatermark: 2147483647}\ndebug: {profiling: true}\n",
		head + "log: {level: loud}\nlog: {level: info}\n",
		head + "storage: &a {rootDirectory: x}\ncredentialsDir: *a\n",
		"{", "[]", "null", "\x00", "a: &a [*a]",
	} {
		f.Add([]byte(raw))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		config, err := v1alpha1.DecodeCacheConfiguration(raw)
		if err != nil {
			return
		}
		encoded, err := v1alpha1.EncodeCacheConfiguration(config)
		if err != nil {
			t.Fatal(err)
		}
		again, err := v1alpha1.DecodeCacheConfiguration(encoded)
		if err != nil {
			t.Fatalf("%s\n%s", err, encoded)
		}
		// The file says which version it has, however it was written.
		config.TypeMeta, again.TypeMeta = metav1.TypeMeta{}, metav1.TypeMeta{}
		if !reflect.DeepEqual(config, again) {
			t.Fatalf("%+v is %+v when it is read again", config, again)
		}
	})
}
