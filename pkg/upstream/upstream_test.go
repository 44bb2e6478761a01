// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package upstream_test

import (
	"strings"
	"testing"

	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/utils/ptr"

	"github.com/gardener/gardener-extension-registry-cache/pkg/upstream"
)

func TestNames(t *testing.T) {
	// The hashes are of `printf UPSTREAM | sha256sum`.
	for value, want := range map[string]struct{ label, resourceName string }{
		"docker.io":                 {"docker.io", "registry-docker-io"},
		"registry.example.com:5000": {"registry.example.com-5000", "registry-registry-example-com-5000"},
		"127.0.0.1:5000":            {"127.0.0.1-5000", "registry-127-0-0-1-5000"},
		"localhost":                 {"localhost", "registry-localhost"},
		// 43 and 44 characters
		"a123456789.b123456789.c123456789.d123456.io":  {"a123456789.b123456789.c123456789.d123456.io", "registry-a123456789-b123456789-c123456789-d123456-io"},
		"a123456789.b123456789.c123456789.d1234567.io": {"a123456789.b123456789.c123456789.d123-8e75b", "registry-a123456789-b123456789-c123456789-d123-8e75b"},
		// The hash is of the upstream as it is, with the colon.
		"a123456789.b123456789.c123456789.d123.io:5000": {"a123456789.b123456789.c123456789.d123-61330", "registry-a123456789-b123456789-c123456789-d123-61330"},
	} {
		t.Run(value, func(t *testing.T) {
			g := NewWithT(t)
			g.Expect(upstream.Label(value)).To(Equal(want.label))
			g.Expect(upstream.ResourceName(value)).To(Equal(want.resourceName))
			g.Expect(upstream.ServiceName(value, nil)).To(Equal(want.resourceName))
			g.Expect(upstream.ServiceName(value, ptr.To("static"))).To(Equal("registry-static"))
			g.Expect(validation.IsValidLabelValue(want.label)).To(BeEmpty())
			g.Expect(validation.IsDNS1035Label(want.resourceName)).To(BeEmpty())
		})
	}
}

func TestNamesOfTheLongestUpstream(t *testing.T) {
	g := NewWithT(t)
	longest := strings.Repeat("a", 249) + ":65535"
	g.Expect(upstream.Validate(longest, nil)).To(BeEmpty())
	g.Expect(upstream.Label(longest)).To(HaveLen(43))
	g.Expect(upstream.ResourceName(longest)).To(HaveLen(52))
}

func TestRemoteURL(t *testing.T) {
	for value, want := range map[string]string{
		"docker.io":            "https://registry-1.docker.io",
		"quay.io":              "https://quay.io",
		"registry.example:443": "https://registry.example:443",
		"registry-1.docker.io": "https://registry-1.docker.io",
	} {
		g := NewWithT(t)
		g.Expect(upstream.RemoteURL(value)).To(Equal(want))
	}
}

func TestEndpoint(t *testing.T) {
	for _, test := range []struct{ scheme, ip, want string }{
		{"https", "10.4.246.205", "https://10.4.246.205:5000"},
		{"http", "10.4.246.205", "http://10.4.246.205:5000"},
		{"https", "2001:db8::1", "https://[2001:db8::1]:5000"},
	} {
		g := NewWithT(t)
		g.Expect(upstream.Endpoint(test.scheme, test.ip, "5000")).To(Equal(test.want))
	}
}
