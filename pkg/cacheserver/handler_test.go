// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package cacheserver

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"github.com/gardener/gardener-extension-registry-cache/pkg/apis/config/v1alpha1"
	"github.com/gardener/gardener-extension-registry-cache/test/process"
)

func serveHandler(t *testing.T, handler http.HandlerFunc) (*httptest.Server, *process.Logs) {
	t.Helper()
	out := &process.Logs{}
	server := httptest.NewServer(newRegistryHandler(handler, "query-value", time.Minute, NewLogger(v1alpha1.Log{}, out)))
	t.Cleanup(server.Close)
	return server, out
}

func TestOnlyReadsAreServed(t *testing.T) {
	cache := startCache(t, newConfig(t, "http://127.0.0.1:1"), Options{})
	for _, test := range []struct{ method, path string }{
		{http.MethodPost, "/v2/library/app/blobs/uploads/"},
		{http.MethodPost, "/v2/library/app/blobs/uploads"},
		{http.MethodGet, "/v2/library/app/blobs/uploads/0f9d2ad6-5a6d-4d3a-8f0a-0d5a0a3f7d01"},
		{http.MethodPatch, "/v2/library/app/blobs/uploads/0f9d2ad6-5a6d-4d3a-8f0a-0d5a0a3f7d01"},
		{http.MethodPut, "/v2/library/app/manifests/v1"},
		{http.MethodDelete, "/v2/library/app/manifests/sha256:" + strings.Repeat("0", 64)},
		{http.MethodDelete, "/v2/library/app/blobs/sha256:" + strings.Repeat("0", 64)},
		{http.MethodOptions, "/v2/"},
	} {
		t.Run(test.method+" "+test.path, func(t *testing.T) {
			g := NewWithT(t)
			status, body := do(t, test.method, "http://"+cache.host()+test.path)
			g.Expect(status).To(Equal(http.StatusMethodNotAllowed))
			var answer struct {
				Errors []struct{ Code, Message string }
			}
			g.Expect(json.Unmarshal([]byte(body), &answer)).To(Succeed())
			g.Expect(answer.Errors).To(HaveLen(1))
			g.Expect(answer.Errors[0].Code).To(Equal("UNSUPPORTED"))
			g.Expect(answer.Errors[0].Message).NotTo(BeEmpty())
		})
	}
}

func TestTooManyRequestsIsNeverAnswered(t *testing.T) {
	g := NewWithT(t)
	server, out := serveHandler(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTooManyRequests) })
	status, _ := get(t, server.URL+"/v2/a/manifests/b")
	g.Expect(status).To(Equal(http.StatusServiceUnavailable))
	g.Eventually(out.Lines).WithArguments(`"status":503`).Should(HaveLen(1))
}

func TestResponsesAreStreamed(t *testing.T) {
	g := NewWithT(t)
	received := make(chan struct{})
	server, out := serveHandler(t, func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "first")
		w.(http.Flusher).Flush()
		<-received
		_, _ = io.WriteString(w, " second")
	})
	response, err := newClient(t).Get(server.URL + "/v2/")
	g.Expect(err).NotTo(HaveOccurred())
	first := make([]byte, 5)
	_, err = io.ReadFull(response.Body, first)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(string(first)).To(Equal("first"), "before the handler has ended")
	close(received)
	rest, err := io.ReadAll(response.Body)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(response.Body.Close()).To(Succeed())
	g.Expect(string(rest)).To(Equal(" second"))
	g.Expect(out.String()).To(BeEmpty(), "a health probe is logged at debug only")
}

func TestRequestsAreLogged(t *testing.T) {
	g := NewWithT(t)
	server, out := serveHandler(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "content") })
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL+"/v2/a/manifests/b?ns=query-value", nil)
	g.Expect(err).NotTo(HaveOccurred())
	request.Header.Set("Authorization", "Bearer header-value")
	request.Header.Set("User-Agent", "containerd/2")
	response, err := newClient(t).Do(request)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(response.Body.Close()).To(Succeed())

	g.Eventually(out.String).ShouldNot(BeEmpty())
	var line map[string]any
	g.Expect(json.Unmarshal([]byte(out.String()), &line)).To(Succeed())
	g.Expect(line).To(SatisfyAll(
		HaveKeyWithValue("level", "INFO"),
		HaveKeyWithValue("msg", "Request"),
		HaveKeyWithValue("method", "GET"),
		HaveKeyWithValue("path", "/v2/a/manifests/b"),
		HaveKeyWithValue("status", BeEquivalentTo(200)),
		HaveKeyWithValue("bytes", BeEquivalentTo(7)),
		HaveKeyWithValue("seconds", BeNumerically(">", 0)),
		HaveKeyWithValue("remote", HavePrefix("127.0.0.1:")),
		HaveKeyWithValue("userAgent", "containerd/2"),
	))
	g.Expect(out.String()).NotTo(ContainSubstring("-value"))
}

func TestFailedProbesAreLogged(t *testing.T) {
	g := NewWithT(t)
	server, out := serveHandler(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) })
	get(t, server.URL+"/v2/")
	g.Eventually(out.Lines).WithArguments(`"status":500`).Should(HaveLen(1))
}
