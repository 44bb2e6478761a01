// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package pullthrough_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"github.com/opencontainers/go-digest"

	"github.com/gardener/gardener-extension-registry-cache/pkg/pullthrough"
)

func TestManyClientsCauseOneRequest(t *testing.T) {
	g := NewWithT(t)
	source := newOrigin(t)
	blob := source.add(1 << 20)
	manifest := source.tag("v1")
	cache := newCache(t, source)

	for kind, dgst := range map[string]digest.Digest{"blobs": blob, "manifests": manifest} {
		source.misbehave(func(http.ResponseWriter, *http.Request) bool { time.Sleep(50 * time.Millisecond); return false })
		var clients sync.WaitGroup
		got := make(chan string, 50)
		for range cap(got) {
			clients.Go(func() { got <- get(t, cache.url(kind, dgst.String())).digest() })
		}
		clients.Wait()
		for range cap(got) {
			g.Expect(<-got).To(Equal(dgst.String()))
		}
		g.Expect(source.asked()).To(Equal([]string{"GET /v2/library/app/" + kind + "/" + dgst.String()}))
	}
	g.Expect(cache.metric(t, "registry_proxy_misses_total", "blob")).To(BeEquivalentTo(1))
	g.Expect(cache.metric(t, "registry_proxy_hits_total", "blob")).To(BeEquivalentTo(49))
	g.Expect(cache.logs.String()).To(ContainSubstring(`"cache":"follow"`))
}

func TestHeadersComeWithThoseOfTheUpstream(t *testing.T) {
	g := NewWithT(t)
	source := newOrigin(t)
	blob := source.add(100 << 10)
	gate := source.gate(blob, false)
	cache := newCache(t, source)

	response := open(t, cache.url("blobs", blob.String()))
	g.Expect(response.status).To(Equal(http.StatusOK))
	g.Expect(response.length).To(BeEquivalentTo(100 << 10))
	g.Expect(response.header.Get("Docker-Content-Digest")).To(Equal(blob.String()))
	gate.open(t, 64<<10)
	// All but what is held back.
	got := make([]byte, 32<<10)
	_, err := io.ReadFull(response.body, got)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(got).To(Equal(gate.content[:32<<10]))
	gate.open(t, 100<<10)
	rest, err := io.ReadAll(response.body)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(append(got, rest...)).To(Equal(gate.content))
}

func TestSlowAndGoneClientsHarmNobody(t *testing.T) {
	g := NewWithT(t)
	source := newOrigin(t)
	// More than sockets buffer.
	blob := source.add(16 << 20)
	cache := newCache(t, source)

	slow := open(t, cache.url("blobs", blob.String()))
	gone := open(t, cache.url("blobs", blob.String()))
	_, err := io.CopyN(io.Discard, gone.body, 100)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(gone.body.Close()).To(Succeed())
	g.Expect(get(t, cache.url("blobs", blob.String())).digest()).To(Equal(blob.String()))
	cache.landed(t)

	// The slow one has it all, whatever becomes of the file.
	g.Expect(os.Remove(cache.blobFile(blob))).To(Succeed())
	content, err := io.ReadAll(slow.body)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(digest.FromBytes(content)).To(Equal(blob))
	g.Expect(source.asked()).To(HaveLen(1))
}

func TestFlightsOutliveTheirClients(t *testing.T) {
	g := NewWithT(t)
	source := newOrigin(t)
	blob := source.add(1 << 20)
	gate := source.gate(blob, false)
	cache := newCache(t, source)
	only := open(t, cache.url("blobs", blob.String()))
	g.Expect(only.body.Close()).To(Succeed())
	gate.open(t, 1<<20)
	cache.stored(t, blob)
}

func TestUnknownLength(t *testing.T) {
	g := NewWithT(t)
	source := newOrigin(t)
	blob := source.add(200 << 10)
	gate := source.gate(blob, true)
	cache := newCache(t, source)

	cold := open(t, cache.url("blobs", blob.String()), "Range", "bytes=10-20")
	g.Expect(cold.status).To(Equal(http.StatusOK), "a range of what has no end yet is all of it")
	g.Expect(cold.length).To(BeEquivalentTo(-1))
	gate.open(t, 200<<10)
	content, err := io.ReadAll(cold.body)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(digest.FromBytes(content)).To(Equal(blob))
	g.Expect(source.asked()).To(Equal([]string{"GET /v2/library/app/blobs/" + blob.String()}))

	cache.stored(t, blob)
	warm := get(t, cache.url("blobs", blob.String()))
	g.Expect(warm.header.Get("Content-Length")).To(Equal(fmt.Sprint(200 << 10)))
	g.Expect(warm.digest()).To(Equal(blob.String()))
}

func TestRanges(t *testing.T) {
	const size = 100_000
	for _, test := range []struct {
		name, header string
		status       int
		from, to     int
	}{
		{"beginning", "bytes=0-99", 206, 0, 100},
		{"middle", "bytes=500-1499", 206, 500, 1500},
		{"open end", "bytes=500-", 206, 500, size},
		{"suffix", "bytes=-500", 206, size - 500, size},
		{"last byte", "bytes=99999-99999", 206, size - 1, size},
		{"too long", "bytes=99000-200000", 206, 99_000, size},
		{"suffix longer than all", "bytes=-200000", 206, 0, size},
		{"behind the end", "bytes=100000-", 416, 0, 0},
		{"backwards", "bytes=500-0", 416, 0, 0},
		{"two ranges", "bytes=0-1,5-6", 200, 0, size},
		{"another unit", "lines=0-1", 200, 0, size},
		{"nonsense", "bytes=x-y", 200, 0, size},
	} {
		t.Run(test.name, func(t *testing.T) {
			source := newOrigin(t)
			blob := source.add(size)
			content := source.blobs[blob]
			cache := newCache(t, source)
			check := func(when string, got answer) {
				g := NewWithT(t)
				g.Expect(got.status).To(Equal(test.status), when)
				g.Expect(got.err).NotTo(HaveOccurred(), when)
				switch test.status {
				case http.StatusRequestedRangeNotSatisfiable:
					g.Expect(got.header.Get("Content-Range")).To(Equal("bytes */100000"), when)
					return
				case http.StatusPartialContent:
					g.Expect(got.header.Get("Content-Range")).To(Equal(fmt.Sprintf("bytes %d-%d/%d", test.from, test.to-1, size)), when)
				}
				g.Expect(got.header.Get("Content-Length")).To(Equal(fmt.Sprint(test.to-test.from)), when)
				g.Expect(got.body).To(Equal(content[test.from:test.to]), when)
			}
			// In flight: part of it is there.
			gate := source.gate(blob, false)
			results := make(chan answer, 2)
			for range cap(results) {
				go func() {
					a, err := try(t.Context(), newClient(t), http.MethodGet, cache.url("blobs", blob.String()), "Range", test.header)
					if err != nil {
						a.err = err
					}
					results <- a
				}()
			}
			gate.open(t, 50_000)
			gate.open(t, size)
			check("cold", <-results)
			check("in flight", <-results)
			cache.stored(t, blob)
			check("warm", get(t, cache.url("blobs", blob.String()), "Range", test.header))
			NewWithT(t).Expect(source.asked()).To(HaveLen(1))
		})
	}
}

func TestConditions(t *testing.T) {
	g := NewWithT(t)
	source := newOrigin(t)
	blob := source.add(1000)
	cache := newCache(t, source)
	url := cache.url("blobs", blob.String())
	g.Expect(get(t, url, "If-None-Match", `"`+blob.String()+`"`).status).To(Equal(http.StatusNotModified))
	g.Expect(get(t, url, "If-None-Match", `"sha256:other"`).status).To(Equal(http.StatusOK))
	g.Expect(get(t, url, "Range", "bytes=0-0", "If-Range", `"`+blob.String()+`"`).status).To(Equal(http.StatusPartialContent))
	g.Expect(get(t, url, "Range", "bytes=0-0", "If-Range", `"sha256:other"`).status).To(Equal(http.StatusOK))
}

func TestHead(t *testing.T) {
	g := NewWithT(t)
	source := newOrigin(t)
	blob, manifest := source.add(1000), source.tag("v1")
	cache := newCache(t, source)
	for _, when := range []string{"cold", "warm"} {
		for url, length := range map[string]int{
			cache.url("blobs", blob.String()):         1000,
			cache.url("manifests", manifest.String()): len(source.blobs[manifest]),
			cache.url("manifests", "v1"):              len(source.blobs[manifest]),
		} {
			got := do(t, http.MethodHead, url)
			g.Expect(got.status).To(Equal(http.StatusOK), when)
			g.Expect(got.header.Get("Content-Length")).To(Equal(fmt.Sprint(length)), when)
			g.Expect(got.header.Get("Docker-Content-Digest")).To(BeElementOf(blob.String(), manifest.String()), when)
			g.Expect(got.body).To(BeEmpty())
		}
		if when == "cold" {
			g.Expect(cache.blobFile(blob)).NotTo(BeAnExistingFile(), "who asks for the size does not want it fetched")
			g.Expect(source.asked()).To(ContainElement("HEAD /v2/library/app/blobs/" + blob.String()))
			get(t, cache.url("blobs", blob.String()))
			cache.stored(t, blob)
			source.asked()
		}
	}
	g.Expect(source.asked()).NotTo(ContainElement(ContainSubstring("/blobs/")))
	missing := do(t, http.MethodHead, cache.url("blobs", digest.FromString("none").String()))
	g.Expect(missing.status).To(Equal(http.StatusNotFound))
}

func TestBlobsAreSharedByRepositories(t *testing.T) {
	g := NewWithT(t)
	source := newOrigin(t)
	blob := source.add(1000)
	cache := newCache(t, source)
	g.Expect(get(t, cache.urlIn("one", "blobs", blob.String())).status).To(Equal(http.StatusOK))
	cache.stored(t, blob)
	source.tag("v1")
	g.Expect(get(t, cache.urlIn("other/one", "manifests", "v1")).status).To(Equal(http.StatusOK))
	source.asked()
	g.Expect(get(t, cache.urlIn("other/one", "blobs", blob.String())).digest()).To(Equal(blob.String()))
	g.Expect(source.asked()).To(BeEmpty())
	repositories := cache.root + "/docker/registry/v2/repositories/"
	g.Expect(repositories + "other/one/_layers/sha256/" + blob.Encoded() + "/link").To(BeAnExistingFile())
	g.Expect(get(t, cache.urlIn("made/up", "blobs", blob.String())).digest()).To(Equal(blob.String()))
	g.Expect(repositories+"made").NotTo(BeADirectory(), "the upstream has not said that it exists")
}

func TestRefusalOfOneRepositoryIsNotThatOfAnother(t *testing.T) {
	g := NewWithT(t)
	source := newOrigin(t)
	blob := source.add(1000)
	cache := newCache(t, source)
	asked, answer := make(chan struct{}), make(chan struct{})
	source.misbehave(func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.Contains(r.URL.Path, "/without/") {
			return false
		}
		close(asked)
		<-answer
		w.WriteHeader(http.StatusNotFound)
		return true
	})
	statuses := make(chan int, 2)
	go func() { statuses <- get(t, cache.urlIn("without", "blobs", blob.String())).status }()
	g.Eventually(asked, waitLimit).Should(BeClosed())
	go func() { statuses <- get(t, cache.urlIn("with", "blobs", blob.String())).status }()
	g.Eventually(func() float64 { return cache.metric(t, "registry_cache_followers") }, waitLimit).Should(BeEquivalentTo(1))
	close(answer)
	g.Expect([]int{<-statuses, <-statuses}).To(ConsistOf(http.StatusNotFound, http.StatusOK))
}

func TestClientsThatNeverRead(t *testing.T) {
	g := NewWithT(t)
	source := newOrigin(t)
	blob := source.add(8 << 20)
	cache := newCache(t, source)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var waiting sync.WaitGroup
	for range 200 {
		waiting.Go(func() {
			request, err := http.NewRequestWithContext(ctx, http.MethodGet, cache.url("blobs", blob.String()), nil)
			if err != nil {
				return
			}
			if response, err := newClient(t).Do(request); err == nil {
				<-ctx.Done()
				_ = response.Body.Close()
			}
		})
	}
	g.Eventually(func() float64 { return cache.metric(t, "registry_proxy_requests_total", "blob") }, waitLimit).Should(BeEquivalentTo(200))
	for range 3 {
		g.Expect(get(t, cache.url("blobs", blob.String())).digest()).To(Equal(blob.String()))
	}
	g.Expect(source.asked()).To(HaveLen(1))
	cancel()
	waiting.Wait()
}

func TestTwoCachesOnOneVolume(t *testing.T) {
	g := NewWithT(t)
	source := newOrigin(t)
	config := newConfig(t, source.URL)
	cache := startCache(t, config, quick)
	_, err := newServer(config)
	g.Expect(err).To(MatchError(MatchRegexp(`^storage.rootDirectory: lock volume: .*: another process uses this volume$`)))
	g.Expect(cache.stop()).To(Succeed())
	startCache(t, config, pullthrough.Limits{})
}
