// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

// Package conformance runs the conformance suite of the OCI distribution
// specification on the cache server: its checks of pulls, of what the suite has
// pushed to the upstream. The suite is a program of its own, named by
// TEST_ASSET_CONFORMANCE.
package conformance

import (
	"context"
	"io"
	"log/slog"
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"github.com/sirupsen/logrus"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/gardener/gardener-extension-registry-cache/pkg/apis/config/v1alpha1"
	"github.com/gardener/gardener-extension-registry-cache/pkg/cacheserver"
	"github.com/gardener/gardener-extension-registry-cache/test/process"
	upstreamtest "github.com/gardener/gardener-extension-registry-cache/test/upstream"
)

func TestMain(m *testing.M) {
	// What distribution logs before the first cache takes its log over.
	logrus.SetOutput(io.Discard)
	m.Run()
}

// subject is an upstream, with what the suite can check on it.
type subject struct {
	upstream func(*testing.T) *url.URL
	// settings are the suite's.
	settings []string
	// pulls are the checks of pulls that have to pass, by kind. They are all that
	// the suite has with these settings.
	pulls map[string]int
	// skipped are the only checks that need not pass.
	skipped []skipped
}

// skipped are checks that the suite skips, with the reason that it has to give.
type skipped struct{ name, reason *regexp.Regexp }

// notDeleted says that neither the cache nor the upstreams delete anything. The
// suite asks the cache to, and takes a 405 for what it is.
var notDeleted = skipped{regexp.MustCompile(`/(tag|manifest|blob)-delete$`), regexp.MustCompile(`^registry returned status 405$`)}

// open turns on all that the suite can check: also what will be in the next
// version of the specification, such as that answers name the digest, and images
// of which not all is there.
var open = subject{
	upstream: startOpenRegistry,
	settings: []string{"OCI_VERSION=dev", "OCI_DATA_SPARSE=true"},
	pulls: map[string]int{
		"ping": 1, "tags of an empty repository": 1, "referrers of nothing": 1,
		"missing blob": 2, "missing manifest by digest": 1, "missing manifest by tag": 1, "invalid digest": 1,
		"blob HEAD": 113, "blob GET": 113, "blob range": 12,
		"manifest HEAD by tag": 29, "manifest HEAD by digest": 48, "manifest GET by tag": 29, "manifest GET by digest": 48,
		"tags": 21, "referrers": 3,
	},
	skipped: []skipped{notDeleted},
}

// stock turns off what cannot be pushed to a stock distribution registry, which
// keeps content by its sha256, wants all that a manifest refers to but layers of
// hosts that it was told of, and has no referrers.
var stock = subject{
	upstream: startDistribution,
	settings: []string{
		"OCI_VERSION=dev", "OCI_DATA_SHA512=false", "OCI_DATA_NONDISTRIBUTABLE=false",
		"OCI_API_REFERRER=false", "OCI_API_MANIFESTS_TAG_PARAM=false", "OCI_API_BLOBS_MOUNT_ANONYMOUS=false",
	},
	pulls: map[string]int{
		"ping": 1, "tags of an empty repository": 1,
		"missing blob": 1, "missing manifest by digest": 1, "missing manifest by tag": 1, "invalid digest": 1,
		"blob HEAD": 74, "blob GET": 74, "blob range": 6,
		"manifest HEAD by tag": 18, "manifest HEAD by digest": 35, "manifest GET by tag": 18, "manifest GET by digest": 35,
		"tags": 16,
	},
	skipped: []skipped{
		notDeleted,
		{regexp.MustCompile(`/referrers$`), regexp.MustCompile(`api Referrers is disabled in the configuration`)},
		// These are checks of pushes.
		{regexp.MustCompile(`/blob-mount-anonymous$`), regexp.MustCompile(`api Blob anonymous mount is disabled in the configuration`)},
		{regexp.MustCompile(`/blob-post-only$`), regexp.MustCompile(`^registry does not support content in the POST, fallback to PUT$`)},
	},
}

// TestUpstreams shows that a check that fails on a cache of these registries
// fails because of the cache.
func TestUpstreams(t *testing.T) {
	tests := []struct {
		name    string
		subject subject
	}{
		{"a registry that takes everything", open},
		{"a stock registry", stock},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			expectConformance(t, test.subject, run(t, test.subject.upstream(t), test.subject.settings...))
		})
	}
}

func TestCache(t *testing.T) {
	tests := []struct {
		name    string
		subject subject
		// cold is whether the cache is first asked by a check of pulls.
		cold bool
	}{
		{"cold, of a registry that takes everything", open, true},
		{"warm, of a registry that takes everything", open, false},
		{"cold, of a stock registry", stock, true},
		{"warm, of a stock registry", stock, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			upstream := test.subject.upstream(t)
			registry := startSplit(t, upstream, startCache(t, upstream), test.cold)
			result := run(t, registry.url, test.subject.settings...)

			expectCode(t, result, `^sha\d+ blobs/get-missing$`, "BLOB_UNKNOWN")
			expectCode(t, result, `^missing-manifest/`, "MANIFEST_UNKNOWN")
			expectCode(t, result, `/(tag|manifest|blob)-delete$`, "UNSUPPORTED")
			expectConformance(t, test.subject, result)
			NewWithT(t).Expect(registry.pulls.Load()).To(BeNumerically(">=", sum(test.subject.pulls)))
		})
	}
}

// expectConformance expects that all checks of pulls ran and passed, and that
// nothing else failed. Each failure is shown with its requests.
func expectConformance(t *testing.T, s subject, result report) {
	t.Helper()
	g := NewWithT(t)
	for _, c := range result.checks {
		if c.Status != "passed" && !s.skips(c) {
			t.Errorf("%s: %s: %s\n%s", c.Name, c.Status, c.Errors, c.Log)
		}
	}
	g.Expect(result.passedPulls()).To(Equal(s.pulls))
	g.Expect(result.exitCode).To(Equal(0), result.output)
}

func (s subject) skips(c check) bool {
	return c.Status == "skipped" && slices.ContainsFunc(s.skipped, func(known skipped) bool {
		return known.name.MatchString(c.Name) && (known.reason.MatchString(c.Errors) || c.Errors == "" && known.reason.MatchString(c.Log))
	})
}

// expectCode expects an error code in the answers to the checks of that name,
// which the suite does not look at.
func expectCode(t *testing.T, result report, name, code string) {
	t.Helper()
	found := result.named(name)
	NewWithT(t).Expect(found).NotTo(BeEmpty(), name)
	for _, c := range found {
		if !strings.Contains(c.Log, `"code":"`+code+`"`) {
			t.Errorf("%s: no error of code %s\n%s", c.Name, code, c.Log)
		}
	}
}

func sum(counts map[string]int) int {
	total := 0
	for count := range maps.Values(counts) {
		total += count
	}
	return total
}

// startDistribution starts a stock registry.
func startDistribution(t *testing.T) *url.URL {
	t.Helper()
	g := NewWithT(t)
	registry, err := upstreamtest.Start(t.TempDir(), "", "")
	g.Expect(err).NotTo(HaveOccurred())
	t.Cleanup(func() { g.Expect(registry.Close()).To(Succeed()) })
	return parseURL(t, registry.URL())
}

// startCache starts a cache of an upstream. If the test fails, the end of its log
// is shown.
func startCache(t *testing.T, upstream *url.URL) *url.URL {
	t.Helper()
	g := NewWithT(t)
	log, err := process.CreateLog(t.TempDir(), "cache")
	g.Expect(err).NotTo(HaveOccurred())
	server, err := cacheserver.New(&v1alpha1.CacheConfiguration{
		Upstream:          "registry.example.com",
		RemoteURL:         upstream.String(),
		Storage:           v1alpha1.Storage{RootDirectory: t.TempDir()},
		GarbageCollection: v1alpha1.GarbageCollection{TTL: &metav1.Duration{Duration: time.Hour}},
		Server:            v1alpha1.Server{Address: "127.0.0.1:0"},
		Debug:             v1alpha1.Debug{Address: "127.0.0.1:0"},
	}, slog.New(slog.NewTextHandler(log, nil)), cacheserver.Options{})
	g.Expect(err).NotTo(HaveOccurred())

	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- server.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		g.Expect(<-done).To(Succeed())
		if t.Failed() {
			t.Log(process.Tail(log.Name()))
		}
	})
	return parseURL(t, "http://"+server.RegistryAddr().String())
}

func parseURL(t *testing.T, raw string) *url.URL {
	t.Helper()
	parsed, err := url.Parse(raw)
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	return parsed
}
