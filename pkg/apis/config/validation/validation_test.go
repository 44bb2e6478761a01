// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package validation_test

import (
	"testing"
	"time"

	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	"github.com/gardener/gardener-extension-registry-cache/pkg/apis/config/v1alpha1"
	"github.com/gardener/gardener-extension-registry-cache/pkg/apis/config/validation"
)

type mutate func(*v1alpha1.CacheConfiguration)

func configuration(mutate mutate) *v1alpha1.CacheConfiguration {
	config := &v1alpha1.CacheConfiguration{Upstream: "a.io", RemoteURL: "https://a.io"}
	v1alpha1.SetObjectDefaults_CacheConfiguration(config)
	mutate(config)
	return config
}

func watermarks(low, high int32) mutate {
	return func(c *v1alpha1.CacheConfiguration) {
		c.GarbageCollection.LowWatermark, c.GarbageCollection.HighWatermark = ptr.To(low), ptr.To(high)
	}
}

func ttl(value time.Duration) mutate {
	return func(c *v1alpha1.CacheConfiguration) { c.GarbageCollection.TTL = &metav1.Duration{Duration: value} }
}

func addresses(server, debug string) mutate {
	return func(c *v1alpha1.CacheConfiguration) { c.Server.Address, c.Debug.Address = server, debug }
}

func tls(certFile, keyFile string) mutate {
	return func(c *v1alpha1.CacheConfiguration) {
		c.Server.TLS = &v1alpha1.TLS{CertFile: certFile, KeyFile: keyFile}
	}
}

func log(level v1alpha1.LogLevel, format v1alpha1.LogFormat) mutate {
	return func(c *v1alpha1.CacheConfiguration) { c.Log.Level, c.Log.Format = level, format }
}

func TestValidateCacheConfiguration(t *testing.T) {
	for name, mutate := range map[string]mutate{
		"defaults":           func(*v1alpha1.CacheConfiguration) {},
		"upstream with port": func(c *v1alpha1.CacheConfiguration) { c.Upstream = "127.0.0.1:5000" },
		"remoteURL http":     func(c *v1alpha1.CacheConfiguration) { c.RemoteURL = "http://127.0.0.1:5000/" },
		"credentials":        func(c *v1alpha1.CacheConfiguration) { c.CredentialsDir = "/etc/@robot #1" },
		"root":               func(c *v1alpha1.CacheConfiguration) { c.Storage.RootDirectory = "/data" },
		"ttl zero":           ttl(0),
		"watermarks widest":  watermarks(1, 100),
		"watermarks closest": watermarks(99, 100),
		"addresses with IP":  addresses("127.0.0.1:5000", "[::1]:5001"),
		"free ports":         addresses("127.0.0.1:0", ":0"),
		"host names":         addresses("localhost:65535", "registry-cache.example:1"),
		"tls":                tls("/tls/tls.crt", "/tls/tls.key"),
		"log debug, text":    log("debug", "text"),
		"log warn, json":     log("warn", "json"),
		"log error":          log("error", "json"),
	} {
		t.Run(name, func(t *testing.T) {
			NewWithT(t).Expect(validation.ValidateCacheConfiguration(configuration(mutate))).To(BeEmpty())
		})
	}
}

func TestValidateCacheConfigurationErrors(t *testing.T) {
	invalid := func(path string, value any, detail string) *field.Error {
		return &field.Error{Type: field.ErrorTypeInvalid, Field: path, BadValue: value, Detail: detail}
	}
	const (
		badAddress  = "must be host:port or :port, with an IPv6 address in brackets"
		badHost     = "the host must be empty, an IP address or a host name"
		badPort     = "the port must be a number from 0 to 65535"
		percentage  = "must be a percentage from 1 to 100"
		order       = "must be lower than highWatermark"
		notAbsolute = "must be an absolute path"
	)
	noCert := &field.Error{Type: field.ErrorTypeRequired, Field: "server.tls.certFile", BadValue: "", Detail: "must be the path of a certificate; remove tls to serve plain HTTP"}
	noKey := &field.Error{Type: field.ErrorTypeRequired, Field: "server.tls.keyFile", BadValue: "", Detail: "must be the path of the certificate's key; remove tls to serve plain HTTP"}
	noLevel := &field.Error{Type: field.ErrorTypeNotSupported, Field: "log.level", BadValue: v1alpha1.LogLevel("trace"), Detail: `supported values: "debug", "info", "warn", "error"`}
	noFormat := &field.Error{Type: field.ErrorTypeNotSupported, Field: "log.format", BadValue: v1alpha1.LogFormat("XML"), Detail: `supported values: "json", "text"`}

	for name, test := range map[string]struct {
		mutate mutate
		want   field.ErrorList
	}{
		"upstream":               {func(c *v1alpha1.CacheConfiguration) { c.Upstream = "https://a.io" }, field.ErrorList{invalid("upstream", "https://a.io", "must not have a scheme: remove :// and what stands before it")}},
		"remoteURL":              {func(c *v1alpha1.CacheConfiguration) { c.RemoteURL = "a.io" }, field.ErrorList{invalid("remoteURL", "a.io", "must start with http:// or https://")}},
		"credentialsDir":         {func(c *v1alpha1.CacheConfiguration) { c.CredentialsDir = "credentials" }, field.ErrorList{invalid("credentialsDir", "credentials", notAbsolute)}},
		"rootDirectory":          {func(c *v1alpha1.CacheConfiguration) { c.Storage.RootDirectory = "./data" }, field.ErrorList{invalid("storage.rootDirectory", "./data", notAbsolute)}},
		"ttl":                    {ttl(-time.Second), field.ErrorList{invalid("garbageCollection.ttl", "-1s", "must not be negative; 0s disables the deletion by age")}},
		"watermarks equal":       {watermarks(80, 80), field.ErrorList{invalid("garbageCollection.lowWatermark", int32(80), order)}},
		"watermarks swapped":     {watermarks(90, 80), field.ErrorList{invalid("garbageCollection.lowWatermark", int32(90), order)}},
		"watermark zero":         {watermarks(0, 80), field.ErrorList{invalid("garbageCollection.lowWatermark", int32(0), percentage)}},
		"watermark too high":     {watermarks(80, 101), field.ErrorList{invalid("garbageCollection.highWatermark", int32(101), percentage)}},
		"watermarks bad":         {watermarks(101, -1), field.ErrorList{invalid("garbageCollection.highWatermark", int32(-1), percentage), invalid("garbageCollection.lowWatermark", int32(101), percentage)}},
		"addresses without port": {addresses("5000", "localhost"), field.ErrorList{invalid("server.address", "5000", badAddress), invalid("debug.address", "localhost", badAddress)}},
		"addresses bare IPv6":    {addresses("::1:5000", ":5001:5001"), field.ErrorList{invalid("server.address", "::1:5000", badAddress), invalid("debug.address", ":5001:5001", badAddress)}},
		"ports bad":              {addresses(":65536", ":https"), field.ErrorList{invalid("server.address", ":65536", badPort), invalid("debug.address", ":https", badPort)}},
		"ports bad, too":         {addresses(":", ":-1"), field.ErrorList{invalid("server.address", ":", badPort), invalid("debug.address", ":-1", badPort)}},
		"hosts bad":              {addresses("a_b:1", "http://a:x"), field.ErrorList{invalid("server.address", "a_b:1", badHost), invalid("debug.address", "http://a:x", badAddress)}},
		"tls without cert":       {tls("", "/key"), field.ErrorList{noCert}},
		"tls without key":        {tls("/cert", ""), field.ErrorList{noKey}},
		"tls empty":              {tls("", ""), field.ErrorList{noCert, noKey}},
		"shutdownDelay":          {func(c *v1alpha1.CacheConfiguration) { c.Server.ShutdownDelay.Duration = -time.Second }, field.ErrorList{invalid("server.shutdownDelay", "-1s", "must not be negative")}},
		"log":                    {log("trace", "XML"), field.ErrorList{noLevel, noFormat}},
		"all at once": {func(c *v1alpha1.CacheConfiguration) {
			c.RemoteURL = "a.io"
			ttl(-1)(c)
			log("trace", "json")(c)
		}, field.ErrorList{
			invalid("remoteURL", "a.io", "must start with http:// or https://"),
			invalid("garbageCollection.ttl", "-1ns", "must not be negative; 0s disables the deletion by age"),
			noLevel,
		}},
	} {
		t.Run(name, func(t *testing.T) {
			NewWithT(t).Expect(validation.ValidateCacheConfiguration(configuration(test.mutate))).To(Equal(test.want))
		})
	}
}
