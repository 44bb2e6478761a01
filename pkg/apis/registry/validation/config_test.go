// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package validation_test

import (
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	k8svalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	gardencorev1beta1 "github.com/gardener/gardener/pkg/apis/core/v1beta1"

	"github.com/gardener/gardener-extension-registry-cache/pkg/apis/registry/v1alpha3"
	"github.com/gardener/gardener-extension-registry-cache/pkg/apis/registry/validation"
)

var providerConfig = field.NewPath("spec", "extensions").Index(0).Child("providerConfig")

var (
	badSubdomain = k8svalidation.IsDNS1123Subdomain("-")[0]
	badLabel     = k8svalidation.IsDNS1123Label("-")[0]
)

const (
	badPort   = "the port must be a number from 1 to 65535"
	badScheme = "must start with http:// or https://"
	hasPath   = "must not have a path: remove what follows the host and port"
)

// config returns a defaulted configuration of caches that mutate may change.
func config(upstreams []string, mutate ...func([]v1alpha3.RegistryCache)) *v1alpha3.RegistryConfig {
	config := &v1alpha3.RegistryConfig{}
	for _, upstream := range upstreams {
		config.Caches = append(config.Caches, v1alpha3.RegistryCache{Upstream: upstream})
	}
	v1alpha3.SetObjectDefaults_RegistryConfig(config)
	for _, m := range mutate {
		m(config.Caches)
	}
	return config
}

// one returns a function that changes the first cache.
func one(mutate func(*v1alpha3.RegistryCache)) func([]v1alpha3.RegistryCache) {
	return func(caches []v1alpha3.RegistryCache) { mutate(&caches[0]) }
}

func remoteURL(value string) func([]v1alpha3.RegistryCache) {
	return one(func(cache *v1alpha3.RegistryCache) { cache.RemoteURL = &value })
}

func size(value string) func([]v1alpha3.RegistryCache) {
	return one(func(cache *v1alpha3.RegistryCache) { cache.Volume.Size = ptr.To(resource.MustParse(value)) })
}

func storageClass(name string) func([]v1alpha3.RegistryCache) {
	return one(func(cache *v1alpha3.RegistryCache) { cache.Volume.StorageClassName = &name })
}

func ttl(value time.Duration) func([]v1alpha3.RegistryCache) {
	return one(func(cache *v1alpha3.RegistryCache) { cache.GarbageCollection.TTL = &metav1.Duration{Duration: value} })
}

func proxy(httpProxy, httpsProxy *string) func([]v1alpha3.RegistryCache) {
	return one(func(cache *v1alpha3.RegistryCache) {
		cache.Proxy = &v1alpha3.Proxy{HTTPProxy: httpProxy, HTTPSProxy: httpsProxy}
	})
}

func suffixes(values ...string) func([]v1alpha3.RegistryCache) {
	return func(caches []v1alpha3.RegistryCache) {
		for i, value := range values {
			if value != "unset" {
				caches[i].ServiceNameSuffix = &value
			}
		}
	}
}

func secretReferences(names ...string) func([]v1alpha3.RegistryCache) {
	return func(caches []v1alpha3.RegistryCache) {
		for i, name := range names {
			caches[i].SecretReferenceName = &name
		}
	}
}

func invalid(path string, value any, detail string) *field.Error {
	return &field.Error{Type: field.ErrorTypeInvalid, Field: "spec.extensions[0].providerConfig." + path, BadValue: value, Detail: detail}
}

func duplicate(path, value string) *field.Error {
	return &field.Error{Type: field.ErrorTypeDuplicate, Field: "spec.extensions[0].providerConfig." + path, BadValue: value}
}

func required(path, detail string) *field.Error {
	return &field.Error{Type: field.ErrorTypeRequired, Field: "spec.extensions[0].providerConfig." + path, BadValue: "", Detail: detail}
}

func TestValidateRegistryConfig(t *testing.T) {
	for name, config := range map[string]*v1alpha3.RegistryConfig{
		"defaults":                config([]string{"docker.io"}),
		"several":                 config([]string{"docker.io", "quay.io", "registry.example.com:5000", "127.0.0.1:5000", "localhost"}),
		"remoteURL https":         config([]string{"a.io"}, remoteURL("https://registry.example.com")),
		"remoteURL http":          config([]string{"a.io"}, remoteURL("http://registry.example.com:5000")),
		"remoteURL lone slash":    config([]string{"a.io"}, remoteURL("https://registry.example.com/")),
		"remoteURL IPv6":          config([]string{"a.io"}, remoteURL("https://[2001:db8::1]:5000")),
		"smallest size":           config([]string{"a.io"}, size("1")),
		"storage class":           config([]string{"a.io"}, storageClass("premium.csi")),
		"ttl disabled":            config([]string{"a.io"}, ttl(0)),
		"ttl short":               config([]string{"a.io"}, ttl(time.Nanosecond)),
		"no proxy":                config([]string{"a.io"}, proxy(nil, nil)),
		"proxies":                 config([]string{"a.io"}, proxy(ptr.To("http://proxy:3128"), ptr.To("https://10.0.0.1:3128/"))),
		"without TLS":             config([]string{"a.io"}, one(func(cache *v1alpha3.RegistryCache) { cache.HTTP.TLS = ptr.To(false) })),
		"highly available":        config([]string{"a.io"}, one(func(cache *v1alpha3.RegistryCache) { cache.HighAvailability.Enabled = ptr.To(true) })),
		"longest suffix":          config([]string{"a.io"}, suffixes(strings.Repeat("a", 54))),
		"suffix with digits":      config([]string{"a.io"}, suffixes("1-a-2")),
		"suffix as default":       config([]string{"a.io"}, suffixes("a-io")),
		"suffixes unique":         config([]string{"a.io", "b.io"}, suffixes("a", "b")),
		"suffix of a free name":   config([]string{"a.io", "b.io"}, suffixes("b-io", "a-io")),
		"upstreams of one prefix": config([]string{"a.io", "a.io:5000", "a.io:50", "b.a.io"}),
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			g.Expect(validation.ValidateRegistryConfig(config, providerConfig)).To(BeEmpty())
			g.Expect(validation.ValidateRegistryConfigUpdate(config, config, providerConfig)).To(BeEmpty())
		})
	}
}

func TestValidateRegistryConfigErrors(t *testing.T) {
	type errors = field.ErrorList
	upstreamRequired := "must be the host of a registry as it stands in image names, for example docker.io or registry.example.com:5000"
	scheme := "must not have a scheme: remove :// and what stands before it"

	for name, test := range map[string]struct {
		config *v1alpha3.RegistryConfig
		want   errors
	}{
		"no cache": {config(nil), errors{required("caches", "at least one cache is needed: add one, or disable the extension")}},

		"upstream missing":     {config([]string{""}), errors{required("caches[0].upstream", upstreamRequired)}},
		"upstreams missing":    {config([]string{"", ""}), errors{required("caches[0].upstream", upstreamRequired), required("caches[1].upstream", upstreamRequired)}},
		"upstream with scheme": {config([]string{"a.io", "https://b.io"}), errors{invalid("caches[1].upstream", "https://b.io", scheme)}},
		"upstream malformed":   {config([]string{"A.io"}), errors{invalid("caches[0].upstream", "A.io", "the host is not valid: "+badSubdomain)}},
		"upstream port":        {config([]string{"a.io:0"}), errors{invalid("caches[0].upstream", "a.io:0", badPort)}},
		"upstream twice":       {config([]string{"a.io", "b.io", "a.io"}), errors{duplicate("caches[2].upstream", "a.io")}},
		"upstreams collide": {config([]string{"foo.bar", "a.io", "foo-bar"}), errors{invalid("caches[2].upstream", "foo-bar",
			`the objects of the caches of "foo.bar" and "foo-bar" would have the same name "registry-foo-bar": remove one of the two caches`)}},
		"upstreams collide by port": {config([]string{"foo.bar-5000", "foo.bar:5000"}), errors{invalid("caches[1].upstream", "foo.bar:5000",
			`the objects of the caches of "foo.bar-5000" and "foo.bar:5000" would have the same name "registry-foo-bar-5000": remove one of the two caches`)}},
		"upstreams collide with suffixes": {config([]string{"foo.bar", "foo-bar"}, suffixes("a", "b")), errors{invalid("caches[1].upstream", "foo-bar",
			`the objects of the caches of "foo.bar" and "foo-bar" would have the same name "registry-foo-bar": remove one of the two caches`)}},

		"remoteURL without scheme":  {config([]string{"a.io"}, remoteURL("b.io")), errors{invalid("caches[0].remoteURL", "b.io", badScheme)}},
		"remoteURL with path":       {config([]string{"a.io"}, remoteURL("https://b.io/v2")), errors{invalid("caches[0].remoteURL", "https://b.io/v2", hasPath)}},
		"remoteURL with user info":  {config([]string{"a.io"}, remoteURL("https://u:secret@b.io")), errors{invalid("caches[0].remoteURL", "***@b.io", "must not have user info: remove what stands before the host, up to and including @")}},
		"remoteURL with query":      {config([]string{"a.io"}, remoteURL("https://b.io?a=b")), errors{invalid("caches[0].remoteURL", "https://b.io?***", "must not have a query: remove ? and what follows it")}},
		"remoteURL with fragment":   {config([]string{"a.io"}, remoteURL("https://b.io#a")), errors{invalid("caches[0].remoteURL", "https://b.io#***", "must not have a fragment: remove # and what follows it")}},
		"remoteURL with a bad port": {config([]string{"a.io"}, remoteURL("https://b.io:65536")), errors{invalid("caches[0].remoteURL", "https://b.io:65536", badPort)}},
		"remoteURL empty":           {config([]string{"a.io"}, remoteURL("")), errors{required("caches[0].remoteURL", "must be a URL, for example https://registry.example.com:5000")}},
		"upstream and remoteURL": {config([]string{"a.io:0"}, remoteURL("b.io")), errors{
			invalid("caches[0].upstream", "a.io:0", badPort), invalid("caches[0].remoteURL", "b.io", badScheme),
		}},

		"size zero":               {config([]string{"a.io"}, size("0")), errors{invalid("caches[0].volume.size", "0", "must be greater than 0")}},
		"size negative":           {config([]string{"a.io"}, size("-1Gi")), errors{invalid("caches[0].volume.size", "-1Gi", "must be greater than 0")}},
		"storage class malformed": {config([]string{"a.io"}, storageClass("Fast")), errors{invalid("caches[0].volume.storageClassName", "Fast", "must be the name of a StorageClass: "+badSubdomain)}},
		"storage class empty":     {config([]string{"a.io"}, storageClass("")), errors{invalid("caches[0].volume.storageClassName", "", "must be the name of a StorageClass: "+badSubdomain)}},
		"ttl negative":            {config([]string{"a.io"}, ttl(-time.Second)), errors{invalid("caches[0].garbageCollection.ttl", "-1s", "must not be negative; 0s disables the deletion by age")}},
		"proxies": {config([]string{"a.io"}, proxy(ptr.To("proxy:3128"), ptr.To("https://proxy/path"))), errors{
			invalid("caches[0].proxy.httpProxy", "proxy:3128", badScheme), invalid("caches[0].proxy.httpsProxy", "https://proxy/path", hasPath),
		}},

		"suffix too long":      {config([]string{"a.io"}, suffixes(strings.Repeat("a", 55))), errors{invalid("caches[0].serviceNameSuffix", strings.Repeat("a", 55), "must be no more than 54 characters")}},
		"suffix far too long":  {config([]string{"a.io"}, suffixes(strings.Repeat("a", 64))), errors{invalid("caches[0].serviceNameSuffix", strings.Repeat("a", 64), "must be no more than 54 characters")}},
		"suffix malformed":     {config([]string{"a.io"}, suffixes("A")), errors{invalid("caches[0].serviceNameSuffix", "A", badLabel)}},
		"suffix with a dot":    {config([]string{"a.io"}, suffixes("a.b")), errors{invalid("caches[0].serviceNameSuffix", "a.b", "must not contain dots")}},
		"suffix empty":         {config([]string{"a.io"}, suffixes("")), errors{invalid("caches[0].serviceNameSuffix", "", badLabel)}},
		"suffix ends in a bar": {config([]string{"a.io"}, suffixes("a-")), errors{invalid("caches[0].serviceNameSuffix", "a-", badLabel)}},
		"suffix twice":         {config([]string{"a.io", "b.io", "c.io"}, suffixes("x", "y", "x")), errors{duplicate("caches[2].serviceNameSuffix", "x")}},
		"suffix collides with a later cache": {config([]string{"a.io", "b.io"}, suffixes("b-io")), errors{invalid("caches[0].serviceNameSuffix", "b-io",
			`the Service of the cache of "a.io" would have the same name "registry-b-io" as the one of "b.io": choose another suffix`)}},
		"suffix collides with an earlier cache": {config([]string{"a.io", "b.io"}, suffixes("unset", "a-io")), errors{invalid("caches[1].serviceNameSuffix", "a-io",
			`the Service of the cache of "b.io" would have the same name "registry-a-io" as the one of "a.io": choose another suffix`)}},

		"all at once": {config([]string{"a.io:0", "b.io", "b.io"}, size("0"), ttl(-1), suffixes("b-io")), errors{
			invalid("caches[0].upstream", "a.io:0", badPort),
			invalid("caches[0].volume.size", "0", "must be greater than 0"),
			invalid("caches[0].garbageCollection.ttl", "-1ns", "must not be negative; 0s disables the deletion by age"),
			duplicate("caches[2].upstream", "b.io"),
			invalid("caches[0].serviceNameSuffix", "b-io", `the Service of the cache of "a.io:0" would have the same name "registry-b-io" as the one of "b.io": choose another suffix`),
		}},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			g.Expect(validation.ValidateRegistryConfig(test.config, providerConfig)).To(Equal(test.want))
			g.Expect(validation.ValidateRegistryConfigUpdate(test.config, config([]string{"other.io"}), providerConfig)).To(Equal(test.want))
		})
	}
}

func TestValidateRegistryConfigWithoutPath(t *testing.T) {
	g := NewWithT(t)
	errs := validation.ValidateRegistryConfig(config([]string{"a.io:0"}), nil)
	g.Expect(errs).To(Equal(field.ErrorList{{Type: field.ErrorTypeInvalid, Field: "caches[0].upstream", BadValue: "a.io:0", Detail: badPort}}))
}

func TestValidateRegistryConfigUpdate(t *testing.T) {
	const shrinks = "must not shrink: set 10Gi or more, or remove the cache and add it again in a second update, which deletes its content"
	const classChanges = "is immutable: leave it %, or remove the cache and add it again in a second update, which deletes its content"
	leave := func(class string) string { return strings.Replace(classChanges, "%", class, 1) }
	a := []string{"a.io"}

	for name, test := range map[string]struct {
		before, after *v1alpha3.RegistryConfig
		want          field.ErrorList
	}{
		"size grows": {config(a), config(a, size("11Gi")), nil},
		"another upstream whose objects have the same names": {config([]string{"foo.bar.io"}), config([]string{"foo-bar.io"}), field.ErrorList{invalid("caches[0].upstream", "foo-bar.io",
			`the cache's objects would have the same name "registry-foo-bar-io" as those of the cache of "foo.bar.io", with the content of that: remove the cache of "foo.bar.io" first, and add this one in a second update`)}},
		"size in another unit":   {config(a), config(a, size("10240Mi")), nil},
		"size shrinks":           {config(a), config(a, size("9Gi")), field.ErrorList{invalid("caches[0].volume.size", "9Gi", shrinks)}},
		"size becomes zero":      {config(a), config(a, size("0")), field.ErrorList{invalid("caches[0].volume.size", "0", "must be greater than 0"), invalid("caches[0].volume.size", "0", shrinks)}},
		"class is set":           {config(a), config(a, storageClass("fast")), field.ErrorList{invalid("caches[0].volume.storageClassName", "fast", leave("unset"))}},
		"class is unset":         {config(a, storageClass("fast")), config(a), field.ErrorList{invalid("caches[0].volume.storageClassName", "", leave(`"fast"`))}},
		"class changes":          {config(a, storageClass("fast")), config(a, storageClass("slow")), field.ErrorList{invalid("caches[0].volume.storageClassName", "slow", leave(`"fast"`))}},
		"class stays":            {config(a, storageClass("fast")), config(a, storageClass("fast")), nil},
		"ttl is switched off":    {config(a), config(a, ttl(0)), nil},
		"ttl is switched on":     {config(a, ttl(0)), config(a, ttl(time.Hour)), nil},
		"the rest changes":       {config(a), config(a, remoteURL("http://b.io"), suffixes("x"), secretReferences("s"), proxy(ptr.To("http://p"), nil)), nil},
		"added":                  {config(a), config([]string{"b.io", "a.io"}, size("1Gi"), storageClass("fast")), nil},
		"removed":                {config([]string{"b.io", "a.io"}, size("20Gi"), storageClass("fast")), config(a), nil},
		"replaced":               {config([]string{"b.io"}, size("20Gi"), storageClass("fast")), config(a), nil},
		"moved":                  {config([]string{"a.io", "b.io"}, size("20Gi")), config([]string{"b.io", "a.io"}, func(c []v1alpha3.RegistryCache) { c[1].Volume.Size = ptr.To(resource.MustParse("20Gi")) }), nil},
		"shrinks where it moved": {config([]string{"b.io", "a.io"}), config([]string{"a.io", "b.io"}, size("9Gi")), field.ErrorList{invalid("caches[0].volume.size", "9Gi", shrinks)}},
	} {
		t.Run(name, func(t *testing.T) {
			NewWithT(t).Expect(validation.ValidateRegistryConfigUpdate(test.after, test.before, providerConfig)).To(Equal(test.want))
		})
	}
}

func TestValidateSecretReferences(t *testing.T) {
	resources := []gardencorev1beta1.NamedResourceReference{
		{Name: "creds", ResourceRef: autoscalingv1.CrossVersionObjectReference{APIVersion: "v1", Kind: "Secret", Name: "my-creds"}},
		{Name: "config", ResourceRef: autoscalingv1.CrossVersionObjectReference{APIVersion: "v1", Kind: "ConfigMap", Name: "my-config"}},
		{Name: "beta", ResourceRef: autoscalingv1.CrossVersionObjectReference{APIVersion: "v1beta1", Kind: "Secret", Name: "my-secret"}},
	}
	const missing = "spec.resources of the Shoot has no entry of this name: add one whose resourceRef is the v1 Secret with the credentials, or correct the name"
	notFound := func(path, name string) *field.Error {
		return &field.Error{Type: field.ErrorTypeNotFound, Field: "spec.extensions[0].providerConfig." + path, BadValue: name, Detail: missing}
	}
	two := []string{"a.io", "b.io"}

	for name, test := range map[string]struct {
		config *v1alpha3.RegistryConfig
		want   field.ErrorList
	}{
		"none":             {config(two), nil},
		"found":            {config(two, secretReferences("creds")), nil},
		"shared":           {config(two, secretReferences("creds", "creds")), nil},
		"missing":          {config(two, secretReferences("creds", "nope")), field.ErrorList{notFound("caches[1].secretReferenceName", "nope")}},
		"name of Secret":   {config(two, secretReferences("my-creds")), field.ErrorList{notFound("caches[0].secretReferenceName", "my-creds")}},
		"empty":            {config(two, secretReferences("")), field.ErrorList{notFound("caches[0].secretReferenceName", "")}},
		"all at once":      {config(two, secretReferences("x", "y")), field.ErrorList{notFound("caches[0].secretReferenceName", "x"), notFound("caches[1].secretReferenceName", "y")}},
		"other kind":       {config(two, secretReferences("config")), field.ErrorList{invalid("caches[0].secretReferenceName", "config", `the entry of this name in spec.resources of the Shoot must refer to apiVersion v1 and kind Secret, but refers to v1 and ConfigMap (name "my-config")`)}},
		"other apiVersion": {config(two, secretReferences("beta")), field.ErrorList{invalid("caches[0].secretReferenceName", "beta", `the entry of this name in spec.resources of the Shoot must refer to apiVersion v1 and kind Secret, but refers to v1beta1 and Secret (name "my-secret")`)}},
	} {
		t.Run(name, func(t *testing.T) {
			NewWithT(t).Expect(validation.ValidateSecretReferences(test.config, resources, providerConfig)).To(Equal(test.want))
		})
	}
}
