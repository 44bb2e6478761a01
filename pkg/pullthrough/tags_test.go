// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package pullthrough_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"github.com/gardener/gardener-extension-registry-cache/pkg/pullthrough"
)

func TestTags(t *testing.T) {
	g := NewWithT(t)
	source := newOrigin(t)
	first := source.tag("latest")
	cache := newCache(t, source)
	url := cache.url("manifests", "latest")

	g.Expect(do(t, http.MethodHead, url).header.Get("Docker-Content-Digest")).To(Equal(first.String()))
	g.Expect(get(t, cache.url("manifests", first.String())).digest()).To(Equal(first.String()))
	g.Expect(source.asked()).To(Equal([]string{"GET /v2/library/app/manifests/latest"}), "a first pull costs one request")
	g.Expect(cache.metric(t, "registry_proxy_misses_total", "manifest")).To(BeEquivalentTo(1))

	g.Expect(get(t, url).digest()).To(Equal(first.String()))
	g.Expect(source.asked()).To(Equal([]string{"HEAD /v2/library/app/manifests/latest"}), "which Docker Hub does not count")

	second := source.tag("latest")
	g.Expect(get(t, url).digest()).To(Equal(second.String()))

	source.mu.Lock()
	delete(source.tags, "latest")
	source.mu.Unlock()
	g.Expect(get(t, url).status).To(Equal(http.StatusNotFound))
	source.answer(http.StatusBadGateway)
	g.Expect(get(t, url).status).To(Equal(http.StatusServiceUnavailable), "what was deleted does not come back")
}

func TestConcurrentResolvesShareOneRequest(t *testing.T) {
	g := NewWithT(t)
	source := newOrigin(t)
	source.tag("latest")
	cache := newCache(t, source)
	for _, method := range []string{http.MethodGet, http.MethodHead} {
		source.asked()
		begun, answer := make(chan struct{}), make(chan struct{})
		begin := sync.OnceFunc(func() { close(begun) })
		var together atMost
		source.misbehave(func(http.ResponseWriter, *http.Request) bool {
			defer together.enter()()
			begin()
			<-answer
			return false
		})
		var clients sync.WaitGroup
		for range 20 {
			clients.Go(func() { g.Expect(get(t, cache.url("manifests", "latest")).status).To(Equal(http.StatusOK)) })
		}
		g.Eventually(begun, waitLimit).Should(BeClosed())
		time.Sleep(100 * time.Millisecond)
		close(answer)
		clients.Wait()
		g.Expect(together.most).To(Equal(1))
		// Who came only after the answer, on a slow machine, had to ask again.
		asked := source.asked()
		g.Expect(asked[0]).To(Equal(method + " /v2/library/app/manifests/latest"))
		g.Expect(len(asked)).To(BeNumerically("<", 20), "nobody shared")
	}
}

// atMost counts how many requests are there at the same time.
type atMost struct {
	mu        sync.Mutex
	now, most int
}

func (a *atMost) enter() (leave func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.now++
	a.most = max(a.most, a.now)
	return func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.now--
	}
}

func TestUpstreamsThatDoNotTellTheDigest(t *testing.T) {
	g := NewWithT(t)
	source := newOrigin(t)
	manifest := source.tag("latest")
	content := string(source.blobs[manifest])
	source.misbehave(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodGet {
			w.Header().Set("Content-Type", manifestType)
			_, _ = io.WriteString(w, content)
		}
		return true
	})
	cache := newCache(t, source)
	for range 2 {
		g.Expect(get(t, cache.url("manifests", "latest")).digest()).To(Equal(manifest.String()))
	}
	g.Expect(source.asked()).To(Equal([]string{
		"GET /v2/library/app/manifests/latest",
		"HEAD /v2/library/app/manifests/latest", "GET /v2/library/app/manifests/latest",
	}))
}

func TestStaleTags(t *testing.T) {
	for name, fail := range map[string]func(*origin){
		"500":                  func(o *origin) { o.answer(500) },
		"429":                  func(o *origin) { o.answer(429) },
		"429 with Retry-After": func(o *origin) { o.answer(429, "Retry-After", "1") },
		"503 with Retry-After": func(o *origin) {
			o.answer(503, "Retry-After", time.Now().Add(2*time.Second).UTC().Format(http.TimeFormat))
		},
		"gone": func(o *origin) { _ = o.Listener.Close(); o.CloseClientConnections() },
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			source := newOrigin(t)
			manifest := source.tag("latest")
			config := newConfig(t, source.URL)
			limits := quick
			limits.BreakerBase = 10 * time.Second // more than the requests below take
			cache := startCache(t, config, limits)
			get(t, cache.url("manifests", "latest"))
			fail(source)
			source.asked()
			for range 10 {
				g.Expect(get(t, cache.url("manifests", "latest")).digest()).To(Equal(manifest.String()))
			}
			g.Expect(len(source.asked())).To(BeNumerically("<=", 4), "it is left alone")
			g.Expect(cache.metric(t, "registry_cache_stale_tags_total")).To(BeEquivalentTo(10))
			g.Expect(cache.logs.String()).To(ContainSubstring(`"cache":"stale"`))
			g.Expect(cache.metric(t, "registry_cache_breaker_open", "manifest")).To(BeEquivalentTo(1))

			// Not only as long as the process lives.
			g.Expect(cache.stop()).To(Succeed())
			cache = startCache(t, config, quick)
			g.Expect(get(t, cache.url("manifests", "latest")).digest()).To(Equal(manifest.String()))

			if name != "gone" {
				moved := source.tag("latest")
				source.misbehave(nil)
				g.Eventually(func() string { return get(t, cache.url("manifests", "latest")).digest() }, waitLimit, "20ms").Should(Equal(moved.String()))
				g.Expect(cache.metric(t, "registry_cache_breaker_open", "manifest")).To(BeZero())
			}
		})
	}
}

func TestDeniedTagsAreNotStale(t *testing.T) {
	g := NewWithT(t)
	source := newOrigin(t)
	source.tag("latest")
	cache := newCache(t, source)
	get(t, cache.url("manifests", "latest"))
	for _, status := range []int{http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound} {
		source.answer(status)
		g.Expect(get(t, cache.url("manifests", "latest")).status).To(Equal(status))
	}
}

func TestRetryAfterIsHonoured(t *testing.T) {
	g := NewWithT(t)
	source := newOrigin(t)
	source.tag("latest")
	blob := source.add(10)
	cache := newCache(t, source)
	get(t, cache.url("manifests", "latest"))
	source.answer(http.StatusTooManyRequests, "Retry-After", "3600")
	get(t, cache.url("manifests", "latest"))
	source.misbehave(nil)
	source.asked()
	for range 5 {
		time.Sleep(quick.BreakerBase)
		g.Expect(get(t, cache.url("manifests", "latest")).status).To(Equal(http.StatusOK))
		g.Expect(get(t, cache.url("manifests", "unknown")).status).To(Equal(http.StatusServiceUnavailable))
	}
	g.Expect(source.asked()).To(BeEmpty())
	g.Expect(get(t, cache.url("blobs", blob.String())).status).To(Equal(http.StatusOK), "a limit of manifests is none of blobs")
}

func TestRateLimit(t *testing.T) {
	g := NewWithT(t)
	source := newOrigin(t)
	manifest := source.tag("latest")
	cache := newCache(t, source)
	g.Expect(cache.metric(t, "registry_cache_upstream_ratelimit_remaining")).To(BeEquivalentTo(-1))
	remaining := "76;w=21600"
	source.misbehave(func(w http.ResponseWriter, _ *http.Request) bool {
		w.Header().Set("ratelimit-remaining", remaining)
		return false
	})
	get(t, cache.url("manifests", "latest"))
	g.Expect(cache.metric(t, "registry_cache_upstream_ratelimit_remaining")).To(BeEquivalentTo(76))
	remaining = "0;w=21600"
	get(t, cache.url("manifests", "latest"))
	g.Expect(cache.metric(t, "registry_cache_upstream_ratelimit_remaining")).To(BeZero())

	source.asked()
	source.tag("latest")
	g.Expect(get(t, cache.url("manifests", "latest")).digest()).To(Equal(manifest.String()), "stale, without asking")
	g.Expect(source.asked()).To(BeEmpty())
	source.tag("v2")
	g.Expect(get(t, cache.url("manifests", "v2")).status).To(Equal(http.StatusOK), "what is not known has to be asked for")
}

// blackHole forwards to an address until it swallows all.
type blackHole struct {
	net.Listener
	mu        sync.Mutex
	swallows  bool
	forwarded []net.Conn
}

func newBlackHole(t *testing.T, target string) *blackHole {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	hole := &blackHole{Listener: listener}
	var running sync.WaitGroup
	running.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			hole.mu.Lock()
			hole.forwarded = append(hole.forwarded, conn)
			hole.mu.Unlock()
			running.Go(func() { hole.forward(conn, target) })
		}
	})
	t.Cleanup(func() {
		_ = listener.Close()
		hole.mu.Lock()
		for _, conn := range hole.forwarded {
			_ = conn.Close()
		}
		hole.mu.Unlock()
		running.Wait()
	})
	return hole
}

func (h *blackHole) swallow() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.swallows = true
}

func (h *blackHole) forward(conn net.Conn, target string) {
	up, err := net.Dial("tcp", target)
	if err != nil {
		return
	}
	defer func() { _ = up.Close() }()
	go func() {
		_, _ = io.Copy(conn, up)
		_ = conn.Close()
	}()
	buffer := make([]byte, 4096)
	for {
		n, err := conn.Read(buffer)
		if err != nil {
			return
		}
		h.mu.Lock()
		swallows := h.swallows
		h.mu.Unlock()
		if !swallows {
			_, _ = up.Write(buffer[:n])
		}
	}
}

func TestBlackHole(t *testing.T) {
	g := NewWithT(t)
	source := newOrigin(t)
	manifest := source.tag("latest")
	hole := newBlackHole(t, source.Listener.Addr().String())
	limits := pullthrough.Limits{Stale: 300 * time.Millisecond, ManifestHeader: time.Second, BreakerBase: time.Minute}
	cache := startCache(t, newConfig(t, "http://"+hole.Addr().String()), limits)
	get(t, cache.url("manifests", "latest"))

	hole.swallow()
	g.Expect(get(t, cache.url("manifests", "latest")).digest()).To(Equal(manifest.String()))
	for range 5 {
		g.Expect(get(t, cache.url("manifests", "latest")).digest()).To(Equal(manifest.String()))
	}
	// Nobody but the first has waited for the upstream.
	g.Expect(source.asked()).To(HaveLen(1), "when there was no hole yet")
	g.Eventually(func() float64 {
		return cache.metric(t, "registry_cache_upstream_responses_total", "manifest", "0")
	}, waitLimit).Should(BeEquivalentTo(1))
	g.Expect(cache.metric(t, "registry_cache_stale_tags_total")).To(BeEquivalentTo(6))
	g.Expect(get(t, cache.url("manifests", "unknown")).status).To(Equal(http.StatusServiceUnavailable))
}

func TestListings(t *testing.T) {
	g := NewWithT(t)
	source := newOrigin(t)
	subject := source.tag("v1")
	source.misbehave(func(w http.ResponseWriter, r *http.Request) bool {
		switch filepath.Base(r.URL.Path) {
		case "list":
			w.Header().Set("Content-Type", "application/json")
			w.Header().Set("Link", fmt.Sprintf(`<%s/v2/library/app/tags/list?n=1&last=v1>; rel="next"`, source.URL))
			_, _ = fmt.Fprintf(w, `{"name":"library/app","tags":["v1"],"query":%q}`, r.URL.RawQuery)
		case subject.String():
			w.Header().Set("Content-Type", "application/vnd.oci.image.index.v1+json")
			w.Header().Set("OCI-Filters-Applied", "artifactType")
			_, _ = fmt.Fprintf(w, `{"manifests":[], "annotations":{"query":%q}}`, r.URL.RawQuery)
		default:
			return false
		}
		return true
	})
	cache := newCache(t, source)
	tags := get(t, cache.url("tags", "list?ns=registry.example.com&n=1&last=v0"))
	g.Expect(tags.status).To(Equal(http.StatusOK))
	g.Expect(string(tags.body)).To(Equal(`{"name":"library/app","tags":["v1"],"query":"last=v0&n=1"}`))
	g.Expect(tags.header.Get("Link")).To(Equal(`</v2/library/app/tags/list?n=1&last=v1>; rel="next"`))
	g.Expect(tags.header.Get("Content-Type")).To(Equal("application/json"))

	url := cache.url("referrers", subject.String()+"?artifactType=application%2Fx&ns=registry.example.com")
	source.asked()
	for range 3 {
		referrers := get(t, url)
		g.Expect(referrers.status).To(Equal(http.StatusOK))
		g.Expect(string(referrers.body)).To(Equal(`{"manifests":[], "annotations":{"query":"artifactType=application%2Fx"}}`))
		g.Expect(referrers.header.Get("OCI-Filters-Applied")).To(Equal("artifactType"))
		g.Expect(referrers.header.Get("Content-Type")).To(Equal("application/vnd.oci.image.index.v1+json"))
	}
	g.Expect(source.asked()).To(HaveLen(1), "fresh for a while")
	get(t, cache.url("referrers", subject.String()))
	g.Expect(source.asked()).To(HaveLen(1), "another question")

	g.Expect(get(t, cache.url("referrers", "sha256:none")).status).To(Equal(http.StatusBadRequest))
	g.Expect(get(t, cache.urlIn("UPPER", "tags", "list")).status).To(Equal(http.StatusBadRequest))
	g.Expect(do(t, http.MethodHead, cache.url("tags", "list")).body).To(BeEmpty())
}

func TestReferrersOutliveTheirFreshnessWhileTheUpstreamFails(t *testing.T) {
	g := NewWithT(t)
	source := newOrigin(t)
	subject := source.tag("v1")
	limits := quick
	limits.Freshness = time.Nanosecond
	cache := startCache(t, newConfig(t, source.URL), limits)
	url := cache.url("referrers", subject.String())
	before := get(t, url)
	get(t, url)
	g.Expect(source.asked()).To(HaveLen(2))
	source.answer(http.StatusBadGateway)
	after := get(t, url)
	g.Expect(after.status).To(Equal(http.StatusOK))
	g.Expect(after.body).To(Equal(before.body))
	g.Expect(cache.logs.String()).To(ContainSubstring(`"cache":"stale"`))
}

func TestOnlyReadsAreAnswered(t *testing.T) {
	source := newOrigin(t)
	cache := newCache(t, source)
	blob := source.add(1)
	for _, request := range []struct{ method, path string }{
		{http.MethodPost, "blobs/uploads/"},
		{http.MethodPut, "blobs/uploads/x?digest=" + blob.String()},
		{http.MethodPatch, "blobs/uploads/x"},
		{http.MethodGet, "blobs/uploads/x"},
		{http.MethodPut, "manifests/v1"},
		{http.MethodDelete, "manifests/v1"},
		{http.MethodDelete, "blobs/" + blob.String()},
		{http.MethodPost, "tags/list"},
		{http.MethodDelete, "referrers/" + blob.String()},
	} {
		g := NewWithT(t)
		got := do(t, request.method, fmt.Sprintf("http://%s/v2/library/app/%s", cache.RegistryAddr(), request.path))
		g.Expect(got.status).To(Equal(http.StatusMethodNotAllowed), request.method+" "+request.path)
		g.Expect(string(got.body)).To(ContainSubstring(`"code":"UNSUPPORTED"`))
	}
	NewWithT(t).Expect(source.asked()).To(BeEmpty())
}

func TestClientsThatLeaveDoNotBreakOthers(t *testing.T) {
	g := NewWithT(t)
	source := newOrigin(t)
	manifest := source.tag("latest")
	begun, answer := make(chan struct{}), make(chan struct{})
	source.misbehave(func(http.ResponseWriter, *http.Request) bool { close(begun); <-answer; return false })
	cache := newCache(t, source)
	ctx, leave := context.WithCancel(t.Context())
	left := make(chan error, 1)
	go func() {
		_, err := try(ctx, newClient(t), http.MethodGet, cache.url("manifests", "latest"))
		left <- err
	}()
	g.Eventually(begun, waitLimit).Should(BeClosed())
	stayed := make(chan string, 1)
	go func() { stayed <- get(t, cache.url("manifests", "latest")).digest() }()
	leave()
	g.Expect(errors.Is(<-left, context.Canceled)).To(BeTrue())
	close(answer)
	g.Expect(<-stayed).To(Equal(manifest.String()))
}

func TestAMovedTagIsTheOldOneUntilItsManifestIsHere(t *testing.T) {
	g := NewWithT(t)
	source := newOrigin(t)
	before := source.tag("latest")
	cache := newCache(t, source)
	url := cache.url("manifests", "latest")
	get(t, url)
	after := source.tag("latest")
	// Docker Hub counts GET, and not HEAD.
	source.misbehave(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodHead {
			return false
		}
		w.WriteHeader(http.StatusTooManyRequests)
		return true
	})
	for range 3 {
		g.Expect(get(t, url).digest()).To(Equal(before.String()))
		time.Sleep(2 * quick.BreakerBase)
	}
	source.misbehave(nil)
	g.Eventually(func() string { return get(t, url).digest() }, waitLimit).Should(Equal(after.String()))
}

func TestSlowUpstreamsAreNotCutOff(t *testing.T) {
	g := NewWithT(t)
	source := newOrigin(t)
	known, other := source.tag("latest"), source.tag("other")
	limits := quick
	limits.Stale, limits.BreakerBase = 50*time.Millisecond, time.Minute
	cache := startCache(t, newConfig(t, source.URL), limits)
	get(t, cache.url("manifests", "latest"))
	moved := source.tag("latest")
	source.misbehave(func(_ http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodHead {
			time.Sleep(200 * time.Millisecond)
		}
		return false
	})
	g.Expect(get(t, cache.url("manifests", "latest")).digest()).To(Equal(known.String()), "in time, and stale")
	g.Expect(get(t, cache.url("manifests", "other")).digest()).To(Equal(other.String()), "what has to be waited for is")
	g.Eventually(func() string { return get(t, cache.url("manifests", "latest")).digest() }, waitLimit).Should(Equal(moved.String()))
}

func TestListingsThatFailAreNoReasonToLeaveManifestsAlone(t *testing.T) {
	for _, status := range []int{http.StatusInternalServerError, http.StatusNotImplemented, http.StatusTooManyRequests} {
		g := NewWithT(t)
		source := newOrigin(t)
		manifest := source.tag("v1")
		source.misbehave(func(w http.ResponseWriter, r *http.Request) bool {
			if !strings.Contains(r.URL.Path, "/referrers/") {
				return false
			}
			w.WriteHeader(status)
			return true
		})
		cache := newCache(t, source)
		for range 5 {
			g.Expect(get(t, cache.url("referrers", manifest.String())).status).To(Equal(http.StatusServiceUnavailable))
		}
		g.Expect(get(t, cache.url("manifests", "v1")).status).To(Equal(http.StatusOK))
	}
}

func TestAnOlderAnswerDoesNotRemoveATag(t *testing.T) {
	g := NewWithT(t)
	source := newOrigin(t)
	source.tag("latest")
	cache := newCache(t, source)
	get(t, cache.url("manifests", "latest"))
	pushed := source.tag("latest")
	// As for who asked for it by digest before it was pushed.
	source.misbehave(func(w http.ResponseWriter, r *http.Request) bool {
		if filepath.Base(r.URL.Path) != pushed.String() {
			return false
		}
		w.WriteHeader(http.StatusNotFound)
		return true
	})
	g.Expect(get(t, cache.url("manifests", "latest")).digest()).To(Equal(pushed.String()))
}

func TestUpstreamsWithoutHead(t *testing.T) {
	g := NewWithT(t)
	source := newOrigin(t)
	source.misbehave(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodHead {
			w.WriteHeader(http.StatusMethodNotAllowed)
		}
		return r.Method == http.MethodHead
	})
	cache := newCache(t, source)
	for range 2 {
		tagged := source.tag("latest")
		g.Expect(get(t, cache.url("manifests", "latest")).digest()).To(Equal(tagged.String()))
	}
}
