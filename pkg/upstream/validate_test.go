// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package upstream_test

import (
	"regexp"
	"strings"
	"testing"

	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/gardener/gardener-extension-registry-cache/pkg/upstream"
)

var (
	badHost = "the host is not valid: " + validation.IsDNS1123Subdomain("-")[0]
	tooLong = "the host is not valid: " + validation.MaxLenError(253)
)

// token is what may be one in a URL, and is not repeated.
var token = regexp.MustCompile(`([?#]).+`)

const badPort = "the port must be a number from 1 to 65535"

func TestValidate(t *testing.T) {
	for _, value := range []string{
		"docker.io", "localhost", "localhost:5000", "registry.example.com:1", "registry.example.com:65535",
		"127.0.0.1:5000", "10.0.0.1", "a", "my-registry.example.com", "1.registry", strings.Repeat("a", 250) + ":5000",
	} {
		t.Run(value, func(t *testing.T) {
			NewWithT(t).Expect(upstream.Validate(value, field.NewPath("upstream"))).To(BeEmpty())
		})
	}
}

func TestValidateErrors(t *testing.T) {
	const scheme = "must not have a scheme: remove :// and what stands before it"
	const path = "must not have a path: remove / and what follows it"

	for value, problems := range map[string][]string{
		"https://docker.io":       {scheme},
		"http://docker.io:80":     {scheme},
		"docker.io/library":       {path},
		"docker.io/":              {path},
		"Docker.io":               {badHost},
		"docker_io":               {badHost},
		".docker.io":              {badHost},
		"docker.io.":              {badHost},
		"docker..io":              {badHost},
		"docker io":               {badHost},
		"docker.io\n":             {badHost},
		"-docker.io":              {badHost},
		"*.pkg.dev":               {badHost},
		":5000":                   {badHost},
		"docker.io:":              {badPort},
		"docker.io:0":             {badPort},
		"docker.io:05000":         {badPort},
		"docker.io:65536":         {badPort},
		"docker.io:-1":            {badPort},
		"docker.io:+1":            {badPort},
		"docker.io:https":         {badPort},
		"docker.io:99999999999":   {badPort},
		"docker.io:5000:5000":     {badPort},
		"Docker.io:0":             {badHost, badPort},
		"[2001:db8::1]:5000":      {badHost, badPort},
		strings.Repeat("a", 254):  {tooLong},
		strings.Repeat("A", 254):  {tooLong, badHost},
		strings.Repeat("a.", 127): {tooLong, badHost},
	} {
		t.Run(value, func(t *testing.T) {
			NewWithT(t).Expect(upstream.Validate(value, field.NewPath("upstream"))).To(Equal(invalid("upstream", value, problems)))
		})
	}

	t.Run("empty", func(t *testing.T) {
		NewWithT(t).Expect(upstream.Validate("", field.NewPath("upstream"))).To(Equal(field.ErrorList{{
			Type: field.ErrorTypeRequired, Field: "upstream", BadValue: "",
			Detail: "must be the host of a registry as it stands in image names, for example docker.io or registry.example.com:5000",
		}}))
	})
	t.Run("too long for a directory", func(t *testing.T) {
		errs := upstream.Validate(strings.Repeat("a", 250)+":65535", field.NewPath("upstream"))
		NewWithT(t).Expect(errs.ToAggregate()).To(MatchError("upstream: Too long: may not be more than 255 bytes"))
	})
	t.Run("reserved", func(t *testing.T) {
		errs := upstream.Validate("registry-hosts.sh", field.NewPath("upstream"))
		NewWithT(t).Expect(errs.ToAggregate()).To(MatchError(ContainSubstring("is reserved: nodes have a file of this name")))
	})
	t.Run("password", func(t *testing.T) {
		for _, value := range []string{"user:secret@docker.io", "https://user:secret@docker.io", "user:secret@docker.io/library"} {
			errs := upstream.Validate(value, nil)
			g := NewWithT(t)
			g.Expect(errs).NotTo(BeEmpty())
			g.Expect(errs.ToAggregate().Error()).To(And(ContainSubstring(`"***@docker.io`), Not(ContainSubstring("secret"))))
		}
	})
}

func TestValidateURL(t *testing.T) {
	for _, value := range []string{
		"https://docker.io", "http://docker.io", "https://docker.io/", "https://localhost:5000", "http://localhost:5000/",
		"https://registry.example.com:1", "https://registry.example.com:65535", "http://127.0.0.1:5000", "https://10.0.0.1",
		"https://[2001:db8::1]", "https://[2001:db8::1]:5000/", "http://[::1]:80", "https://" + strings.Repeat("a", 253) + ":5000",
	} {
		t.Run(value, func(t *testing.T) {
			NewWithT(t).Expect(upstream.ValidateURL(value, field.NewPath("remoteURL"))).To(BeEmpty())
		})
	}
}

func TestValidateURLErrors(t *testing.T) {
	const (
		scheme     = "must start with http:// or https://"
		unparsable = "is not a valid URL: must be a scheme, a host and optionally a port, for example https://registry.example.com:5000"
		userInfo   = "must not have user info: remove what stands before the host, up to and including @"
		path       = "must not have a path: remove what follows the host and port"
		fragment   = "must not have a fragment: remove # and what follows it"
		query      = "must not have a query: remove ? and what follows it"
		badIPv6    = "the host in brackets must be an IPv6 address without a zone"
	)
	for value, problems := range map[string][]string{
		"docker.io":                           {scheme},
		"docker.io:5000":                      {scheme},
		"ftp://docker.io":                     {scheme},
		"HTTPS://docker.io":                   {scheme},
		"https:docker.io":                     {scheme},
		"https:/docker.io":                    {scheme},
		"//docker.io":                         {scheme},
		" https://docker.io":                  {scheme},
		"https://docker.io:port":              {unparsable},
		"https://docker.io\n":                 {unparsable},
		"https://docker io":                   {unparsable},
		"https://[2001:db8::1":                {unparsable},
		"https://2001:db8::1":                 {unparsable},
		"https://docker%2Eio":                 {unparsable},
		"https://":                            {badHost},
		"https:///":                           {badHost},
		"https://:5000":                       {badHost},
		"https://Docker.io":                   {badHost},
		"https://docker_io":                   {badHost},
		"https://docker.io.":                  {badHost},
		"https://" + strings.Repeat("a", 254): {tooLong},
		"https://[fe80::1%25eth0]":            {badIPv6},
		"https://docker.io:":                  {badPort},
		"https://docker.io:0":                 {badPort},
		"https://docker.io:65536":             {badPort},
		"https://[::1]:65536":                 {badPort},
		"https://docker.io/v2":                {path},
		"https://docker.io//":                 {path},
		"https://docker.io/%2F":               {path},
		"https://docker.io?":                  {query},
		"https://docker.io?ns=a":              {query},
		"https://docker.io/?ns=a":             {query},
		"https://docker.io#":                  {fragment},
		"https://docker.io/#a?b":              {fragment},
		"https://Docker.io:0/v2?a=b#c":        {path, query, fragment, badHost, badPort},
	} {
		t.Run(value, func(t *testing.T) {
			NewWithT(t).Expect(upstream.ValidateURL(value, field.NewPath("remoteURL"))).To(Equal(invalid("remoteURL", token.ReplaceAllString(value, "$1***"), problems)))
		})
	}

	t.Run("empty", func(t *testing.T) {
		NewWithT(t).Expect(upstream.ValidateURL("", field.NewPath("remoteURL"))).To(Equal(field.ErrorList{{
			Type: field.ErrorTypeRequired, Field: "remoteURL", BadValue: "", Detail: "must be a URL, for example https://registry.example.com:5000",
		}}))
	})
	t.Run("user info", func(t *testing.T) {
		for _, value := range []string{"https://user:secret@docker.io", "https://secret@docker.io", "https://secret:@docker.io"} {
			NewWithT(t).Expect(upstream.ValidateURL(value, field.NewPath("remoteURL"))).To(Equal(invalid("remoteURL", "***@docker.io", []string{userInfo})))
		}
	})
	t.Run("user info that does not parse", func(t *testing.T) {
		const value = "https://user:sec ret@docker.io"
		NewWithT(t).Expect(upstream.ValidateURL(value, field.NewPath("remoteURL"))).To(Equal(invalid("remoteURL", "***@docker.io", []string{unparsable})))
	})
}

func invalid(path, value string, problems []string) field.ErrorList {
	var errs field.ErrorList
	for _, problem := range problems {
		errs = append(errs, &field.Error{Type: field.ErrorTypeInvalid, Field: path, BadValue: value, Detail: problem})
	}
	return errs
}
