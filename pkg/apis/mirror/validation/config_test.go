// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package validation_test

import (
	"fmt"
	"strings"
	"testing"

	. "github.com/onsi/gomega"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	k8svalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	gardencorev1beta1 "github.com/gardener/gardener/pkg/apis/core/v1beta1"

	"github.com/gardener/gardener-extension-registry-cache/pkg/apis/mirror/v1alpha1"
	"github.com/gardener/gardener-extension-registry-cache/pkg/apis/mirror/validation"
)

var (
	providerConfig = field.NewPath("spec", "extensions").Index(0).Child("providerConfig")

	badHost = "the host is not valid: " + k8svalidation.IsDNS1123Subdomain("-")[0]
)

const (
	badPort      = "the port must be a number from 1 to 65535"
	badScheme    = "must start with http:// or https://"
	badIPv6      = "the host in brackets must be an IPv6 address without a zone"
	unparsable   = "is not a valid URL: must be a scheme, a host and optionally a port, for example https://registry.example.com:5000"
	hasUserInfo  = "must not have user info: remove what stands before the host, up to and including @"
	hasQuery     = "must not have a query: remove ? and what follows it"
	hasFragment  = "must not have a fragment: remove # and what follows it"
	hasDots      = "must not have . or .. as a segment of its path: write the path that is meant"
	badEncoding  = "must not have a % in its path that is not followed by two hexadecimal digits"
	badCharacter = "must not have control characters, nor the percent-encoded characters %, ? and #, in its path: containerd cannot request it"
)

// config returns a defaulted configuration of one upstream's mirrors.
func config(hosts ...v1alpha1.MirrorHost) *v1alpha1.MirrorConfig {
	return upstreams(v1alpha1.MirrorConfiguration{Upstream: "docker.io", Hosts: hosts})
}

// upstreams returns a defaulted configuration.
func upstreams(mirrors ...v1alpha1.MirrorConfiguration) *v1alpha1.MirrorConfig {
	config := &v1alpha1.MirrorConfig{Mirrors: mirrors}
	v1alpha1.SetObjectDefaults_MirrorConfig(config)
	return config
}

// mirror returns an upstream with one mirror.
func mirror(upstream string) v1alpha1.MirrorConfiguration {
	return v1alpha1.MirrorConfiguration{Upstream: upstream, Hosts: []v1alpha1.MirrorHost{{Host: "https://mirror.example.com"}}}
}

// urls returns mirrors with nothing but a URL.
func urls(values ...string) []v1alpha1.MirrorHost {
	hosts := make([]v1alpha1.MirrorHost, 0, len(values))
	for _, value := range values {
		hosts = append(hosts, v1alpha1.MirrorHost{Host: value})
	}
	return hosts
}

func numbered(count int) []v1alpha1.MirrorHost {
	hosts := make([]v1alpha1.MirrorHost, 0, count)
	for i := range count {
		hosts = append(hosts, v1alpha1.MirrorHost{Host: fmt.Sprintf("https://mirror-%d.example.com", i)})
	}
	return hosts
}

func capable(capabilities ...v1alpha1.MirrorHostCapability) v1alpha1.MirrorHost {
	return v1alpha1.MirrorHost{Host: "https://mirror.example.com", Capabilities: capabilities}
}

func overriding(url string) v1alpha1.MirrorHost {
	return v1alpha1.MirrorHost{Host: url, OverridePath: ptr.To(true)}
}

func invalid(path string, value any, detail string) *field.Error {
	return &field.Error{Type: field.ErrorTypeInvalid, Field: "spec.extensions[0].providerConfig." + path, BadValue: value, Detail: detail}
}

func duplicate(path string, value any) *field.Error {
	return &field.Error{Type: field.ErrorTypeDuplicate, Field: "spec.extensions[0].providerConfig." + path, BadValue: value}
}

func required(path, detail string) *field.Error {
	return &field.Error{Type: field.ErrorTypeRequired, Field: "spec.extensions[0].providerConfig." + path, BadValue: "", Detail: detail}
}

func tooLong(path string, limit int) *field.Error {
	return &field.Error{
		Type: field.ErrorTypeTooLong, Field: "spec.extensions[0].providerConfig." + path,
		BadValue: "<value omitted>", Detail: fmt.Sprintf("may not be more than %d bytes", limit),
	}
}

func unsupported(path, value string) *field.Error {
	return &field.Error{
		Type: field.ErrorTypeNotSupported, Field: "spec.extensions[0].providerConfig." + path,
		BadValue: v1alpha1.MirrorHostCapability(value), Detail: `supported values: "pull", "resolve"`,
	}
}

func TestValidateMirrorConfig(t *testing.T) {
	for name, config := range map[string]*v1alpha1.MirrorConfig{
		"defaults":             config(urls("https://mirror.example.com")...),
		"several upstreams":    upstreams(mirror("docker.io"), mirror("quay.io"), mirror("registry.example.com:5000"), mirror("localhost"), mirror("127.0.0.1:5000")),
		"several hosts":        config(urls("https://a.example.com", "https://b.example.com", "http://a.example.com", "https://a.example.com:8443", "https://a.example.com/A", "https://a.example.com/a")...),
		"most hosts":           config(numbered(99)...),
		"pull and resolve":     config(capable("pull", "resolve")),
		"resolve alone":        config(capable("resolve")),
		"no capabilities":      config(capable()),
		"override path":        config(overriding("https://harbor.example.com/v2/docker-hub")),
		"override without one": config(overriding("https://mirror.example.com")),
		"below and beside /v2": config(v1alpha1.MirrorHost{Host: "https://a.io"}, overriding("https://a.io/v2/a"), overriding("https://a.io/a")),
		"override set to false": config(v1alpha1.MirrorHost{
			Host: "https://mirror.example.com", OverridePath: ptr.To(false), CABundleSecretReferenceName: ptr.To("ca"),
		}),
		"http with a CA": config(v1alpha1.MirrorHost{Host: "http://mirror.example.com", CABundleSecretReferenceName: ptr.To("ca")}),
	} {
		t.Run(name, func(t *testing.T) {
			NewWithT(t).Expect(validation.ValidateMirrorConfig(config, providerConfig)).To(BeEmpty())
		})
	}
}

func TestValidateMirrorConfigURL(t *testing.T) {
	for _, value := range []string{
		"http://mirror.example.com", "https://mirror.example.com/", "https://mirror.example.com//", "https://localhost:5000", "http://10.0.0.1:1",
		"https://mirror.example.com:65535/path", "https://[2001:db8::1]:5000/path/", "https://[2001:DB8::1]", "http://[::ffff:10.0.0.1]",
		"https://mirror.example.com/v2/docker-hub", "https://mirror.example.com/a/v2/", "https://mirror.example.com/a//b",
		"https://mirror.example.com/.../a.b/..c", "https://mirror.example.com/~user/a@b/c:d/e+f", "https://mirror.example.com/%C3%BC/a%20b",
		"https://mirror.example.com/ü/a b", "https://mirror.example.com/%2Fa", `https://mirror.example.com/'"\|^`,
		"HTTPS://Mirror.Example.COM", "https://my_mirror.example.com", "https://_mirror.example.com_",
		"https://" + strings.Repeat("a", 253) + ":5000/" + strings.Repeat("a", 2048-8-253-6),
	} {
		t.Run(value, func(t *testing.T) {
			NewWithT(t).Expect(validation.ValidateMirrorConfig(config(urls(value)...), providerConfig)).To(BeEmpty())
		})
	}
}

func TestValidateMirrorConfigURLErrors(t *testing.T) {
	for value, problems := range map[string][]string{
		"mirror.example.com":                  {badScheme},
		"mirror.example.com:5000/path":        {badScheme},
		"ftp://mirror.example.com":            {badScheme},
		"//mirror.example.com":                {badScheme},
		"https:/mirror.example.com":           {badScheme},
		" https://mirror.example.com":         {badScheme},
		"https://":                            {badHost},
		"https:///path":                       {badHost},
		"https://:5000":                       {badHost},
		"https://-mirror.example.com":         {badHost},
		"https://mirror..example.com":         {badHost},
		"https://mirror.example.com.":         {badHost},
		"https://mirror.exämple.com":          {badHost},
		"https://mirror.example.com:port":     {unparsable},
		"https://mirror example.com":          {unparsable},
		"https://mirror.example.com\n":        {unparsable},
		"https://mirror%2Eexample.com":        {unparsable},
		"https://[2001:db8::1":                {unparsable},
		"https://2001:db8::1/path":            {unparsable},
		"https://[fe80::1%25eth0]/path":       {badIPv6},
		"https://mirror.example.com:":         {badPort},
		"https://mirror.example.com:/path":    {badPort},
		"https://mirror.example.com:0":        {badPort},
		"https://mirror.example.com:65536/a":  {badPort},
		"https://[::1]:65536":                 {badPort},
		"https://mirror.example.com?":         {hasQuery},
		"https://mirror.example.com?a=/b":     {hasQuery},
		"https://mirror.example.com/v2?ns=a":  {hasQuery},
		"https://mirror.example.com/v2#":      {hasFragment},
		"https://mirror.example.com#/a/../b":  {hasFragment},
		"https://mirror.example.com/.":        {hasDots},
		"https://mirror.example.com/./a":      {hasDots},
		"https://mirror.example.com/..":       {hasDots},
		"https://mirror.example.com/a/../b":   {hasDots},
		"https://mirror.example.com/a/%2E./b": {hasDots},
		"https://mirror.example.com/%2e%2e":   {hasDots},
		"https://mirror.example.com/a%2F..":   {hasDots},
		"https://mirror.example.com/%252e":    {badCharacter},
		"https://mirror.example.com/a%3Fb":    {badCharacter},
		"https://mirror.example.com/a%23b":    {badCharacter},
		"https://mirror.example.com/a%00":     {badCharacter},
		"https://mirror.example.com/a\nb":     {badCharacter},
		"https://mirror.example.com/a\x7f":    {badCharacter},
		"https://mirror.example.com/100%":     {badEncoding},
		"https://mirror.example.com/%zz/..":   {badEncoding},
		"ftp://-:0/../%25?a#b":                {badScheme, badCharacter, hasDots},
		"https://-:0/../%25?a#b":              {hasQuery, hasFragment, badHost, badPort, badCharacter, hasDots},
	} {
		t.Run(value, func(t *testing.T) {
			var want field.ErrorList
			// What follows a mark may be a token.
			shown := value
			if i := strings.IndexAny(value, "?#"); i >= 0 && i < len(value)-1 {
				shown = value[:i+1] + "***"
			}
			for _, problem := range problems {
				want = append(want, invalid("mirrors[0].hosts[0].host", shown, problem))
			}
			NewWithT(t).Expect(validation.ValidateMirrorConfig(config(urls(value)...), providerConfig)).To(Equal(want))
		})
	}

	t.Run("user info", func(t *testing.T) {
		for value, problem := range map[string]string{
			"https://user:secret@mirror.example.com/path":     hasUserInfo,
			"https://secret@mirror.example.com/path":          hasUserInfo,
			"https://user:sec/ret@mirror.example.com/path":    unparsable,
			"https://user:sec ret@mirror.example.com/path":    unparsable,
			"https://user:sec@ret@mirror.example.com/path":    hasUserInfo,
			"https://user:sec\nret@mirror.example.com/path":   unparsable,
			"https://user:secret%zz@mirror.example.com/path":  unparsable,
			"user:secret@mirror.example.com/path":             badScheme,
			"https://secret:443/of/user@mirror.example.com/.": hasDots,
		} {
			g := NewWithT(t)
			errs := validation.ValidateMirrorConfig(config(urls(value)...), providerConfig)
			g.Expect(errs).To(HaveLen(1), value)
			g.Expect(errs[0].Detail).To(Equal(problem), value)
			g.Expect(errs[0].BadValue).To(HavePrefix("***@mirror.example.com/"), value)
		}
	})
}

func TestValidateMirrorConfigErrors(t *testing.T) {
	const (
		noMirrors = "at least one upstream with its mirrors is needed: add one, or disable the extension"
		noHosts   = "at least one mirror is needed: add one, or remove the upstream"
		noURL     = "must be a URL, for example https://registry.example.com:5000"
	)

	for name, test := range map[string]struct {
		config *v1alpha1.MirrorConfig
		want   field.ErrorList
	}{
		"no mirrors":       {upstreams(), field.ErrorList{required("mirrors", noMirrors)}},
		"no hosts":         {config(), field.ErrorList{required("mirrors[0].hosts", noHosts)}},
		"too many hosts":   {config(numbered(100)...), field.ErrorList{{Type: field.ErrorTypeTooMany, Field: "spec.extensions[0].providerConfig.mirrors[0].hosts", BadValue: 100, Detail: "must have at most 99 items"}}},
		"no upstream":      {upstreams(mirror(""), mirror("")), field.ErrorList{required("mirrors[0].upstream", upstreamMissing), required("mirrors[1].upstream", upstreamMissing)}},
		"upstream a URL":   {upstreams(mirror("https://docker.io")), field.ErrorList{invalid("mirrors[0].upstream", "https://docker.io", "must not have a scheme: remove :// and what stands before it")}},
		"bad port":         {upstreams(mirror("docker.io:0")), field.ErrorList{invalid("mirrors[0].upstream", "docker.io:0", badPort)}},
		"long upstream":    {upstreams(mirror(strings.Repeat("a", 250) + ":50000")), field.ErrorList{tooLong("mirrors[0].upstream", 255)}},
		"upstream twice":   {upstreams(mirror("a.io"), mirror("b.io"), mirror("a.io")), field.ErrorList{duplicate("mirrors[2].upstream", "a.io")}},
		"no URL":           {config(urls("", "")...), field.ErrorList{required("mirrors[0].hosts[0].host", noURL), required("mirrors[0].hosts[1].host", noURL)}},
		"long URL":         {config(urls("https://a.io/" + strings.Repeat("a", 2048))...), field.ErrorList{tooLong("mirrors[0].hosts[0].host", 2048)}},
		"other capability": {config(capable("pull", "push", "Resolve", "")), field.ErrorList{unsupported("mirrors[0].hosts[0].capabilities[1]", "push"), unsupported("mirrors[0].hosts[0].capabilities[2]", "Resolve"), unsupported("mirrors[0].hosts[0].capabilities[3]", "")}},
		"capability twice": {config(capable("pull", "resolve", "pull")), field.ErrorList{duplicate("mirrors[0].hosts[0].capabilities[2]", v1alpha1.MirrorHostCapability("pull"))}},
		"host twice":       {config(urls("https://a.io", "https://b.io", "https://a.io")...), field.ErrorList{duplicate("mirrors[0].hosts[2].host", "https://a.io")}},
		"host spelt twice": {config(urls("https://a.io", "https://A.io:443/", "https://a.io/v2")...), nil},
		"invalid twice":    {config(urls("a.io", "a.io")...), field.ErrorList{invalid("mirrors[0].hosts[0].host", "a.io", badScheme), invalid("mirrors[0].hosts[1].host", "a.io", badScheme)}},
		"all at once": {
			upstreams(
				v1alpha1.MirrorConfiguration{Upstream: "a/b", Hosts: []v1alpha1.MirrorHost{{Host: "a"}, capable("push")}},
				v1alpha1.MirrorConfiguration{Upstream: "c"},
			),
			field.ErrorList{
				invalid("mirrors[0].upstream", "a/b", "must not have a path: remove / and what follows it"),
				invalid("mirrors[0].hosts[0].host", "a", badScheme),
				unsupported("mirrors[0].hosts[1].capabilities[0]", "push"),
				required("mirrors[1].hosts", noHosts),
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			NewWithT(t).Expect(validation.ValidateMirrorConfig(test.config, providerConfig)).To(Equal(test.want))
		})
	}
}

const upstreamMissing = "must be the host of a registry as it stands in image names, for example docker.io or registry.example.com:5000"

func TestValidateSecretReferences(t *testing.T) {
	resource := func(name, apiVersion, kind string) gardencorev1beta1.NamedResourceReference {
		return gardencorev1beta1.NamedResourceReference{
			Name:        name,
			ResourceRef: autoscalingv1.CrossVersionObjectReference{APIVersion: apiVersion, Kind: kind, Name: name + "-v1"},
		}
	}
	resources := []gardencorev1beta1.NamedResourceReference{
		resource("ca", "v1", "Secret"), resource("map", "v1", "ConfigMap"), resource("other", "example.com/v1", "Secret"),
	}
	with := func(names ...string) *v1alpha1.MirrorConfig {
		mirror := v1alpha1.MirrorConfiguration{Upstream: "docker.io", Hosts: urls("https://a.io")}
		for _, name := range names {
			mirror.Hosts = append(mirror.Hosts, v1alpha1.MirrorHost{Host: "https://" + name, CABundleSecretReferenceName: &name})
		}
		return upstreams(v1alpha1.MirrorConfiguration{Upstream: "a.io", Hosts: urls("https://a.io")}, mirror)
	}
	const (
		missing = "spec.resources of the Shoot has no entry of this name: add one whose resourceRef is the v1 Secret with the CA bundle, or correct the name"
		refers  = "the entry of this name in spec.resources of the Shoot must refer to apiVersion v1 and kind Secret, but refers to "
	)
	notFound := func(path, name string) *field.Error {
		return &field.Error{Type: field.ErrorTypeNotFound, Field: "spec.extensions[0].providerConfig." + path, BadValue: name, Detail: missing}
	}

	for name, test := range map[string]struct {
		config *v1alpha1.MirrorConfig
		want   field.ErrorList
	}{
		"no reference":          {with(), nil},
		"a Secret":              {with("ca", "ca"), nil},
		"missing":               {with("ca", "absent", ""), field.ErrorList{notFound("mirrors[1].hosts[2].caBundleSecretReferenceName", "absent"), notFound("mirrors[1].hosts[3].caBundleSecretReferenceName", "")}},
		"the Secret's own name": {with("ca-v1"), field.ErrorList{notFound("mirrors[1].hosts[1].caBundleSecretReferenceName", "ca-v1")}},
		"no Secret": {with("map", "other"), field.ErrorList{
			invalid("mirrors[1].hosts[1].caBundleSecretReferenceName", "map", refers+`v1 and ConfigMap (name "map-v1")`),
			invalid("mirrors[1].hosts[2].caBundleSecretReferenceName", "other", refers+`example.com/v1 and Secret (name "other-v1")`),
		}},
	} {
		t.Run(name, func(t *testing.T) {
			NewWithT(t).Expect(validation.ValidateSecretReferences(test.config, resources, providerConfig)).To(Equal(test.want))
		})
	}
}

func BenchmarkValidateMirrorConfig(b *testing.B) {
	mirrors := make([]v1alpha1.MirrorConfiguration, 0, 50)
	for i := range cap(mirrors) {
		mirrors = append(mirrors, v1alpha1.MirrorConfiguration{Upstream: fmt.Sprintf("registry-%d.example.com", i), Hosts: numbered(4)})
	}
	config := upstreams(mirrors...)
	for b.Loop() {
		if errs := validation.ValidateMirrorConfig(config, providerConfig); len(errs) > 0 {
			b.Fatal(errs)
		}
	}
}
