// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package pullthrough_test

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"github.com/opencontainers/go-digest"

	"github.com/gardener/gardener-extension-registry-cache/pkg/apis/config/v1alpha1"
	"github.com/gardener/gardener-extension-registry-cache/pkg/cacheserver"
	"github.com/gardener/gardener-extension-registry-cache/pkg/pullthrough"
)

func newServer(config *v1alpha1.CacheConfiguration) (*cacheserver.Server, error) {
	return cacheserver.New(config, slog.New(slog.DiscardHandler), cacheserver.Options{})
}

// isBlob says whether a request is for content of a blob.
func isBlob(r *http.Request) bool {
	return r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/blobs/")
}

// cut breaks a response off after so many bytes of content.
func cut(w http.ResponseWriter, content []byte, after int) {
	_, _ = w.Write(content[:after])
	_ = http.NewResponseController(w).Flush()
	panic(http.ErrAbortHandler)
}

func TestWrongContentIsNeverComplete(t *testing.T) {
	const size = 100 << 10
	for _, algorithm := range []digest.Algorithm{digest.SHA256, digest.SHA512} {
		for name, wrong := range map[string]func(content []byte) []byte{
			"garbage":       func([]byte) []byte { return []byte(strings.Repeat("x", size)) },
			"one bit":       func(c []byte) []byte { c[0] ^= 1; return c },
			"the last bit":  func(c []byte) []byte { c[len(c)-1] ^= 1; return c },
			"too short":     func(c []byte) []byte { return c[:len(c)-1] },
			"too long":      func(c []byte) []byte { return append(c, 'x') },
			"nothing":       func([]byte) []byte { return nil },
			"small garbage": func([]byte) []byte { return []byte("<html>Welcome to the Wi-Fi</html>") },
		} {
			t.Run(string(algorithm)+"/"+name, func(t *testing.T) {
				g := NewWithT(t)
				source := newOrigin(t)
				content := []byte(strings.Repeat(t.Name(), size/len(t.Name())+1))[:size]
				blob := source.put(algorithm, content)
				source.misbehave(func(w http.ResponseWriter, r *http.Request) bool {
					_, _ = w.Write(wrong([]byte(strings.Clone(string(content)))))
					return isBlob(r)
				})
				cache := newCache(t, source)
				got, err := try(t.Context(), newClient(t), http.MethodGet, cache.url("blobs", blob.String()))
				g.Expect(err != nil || got.err != nil || got.status == http.StatusServiceUnavailable).To(BeTrue(), "a broken transfer, not %d bytes", len(got.body))
				g.Eventually(func() float64 { return cache.metric(t, "registry_cache_digest_mismatches_total", "blob") }, waitLimit).Should(BeEquivalentTo(1))
				g.Eventually(cache.logs.String, waitLimit).Should(MatchRegexp(`"level":"ERROR","msg":"Dropped a blob`))
				if err == nil && got.status == http.StatusOK {
					g.Eventually(cache.logs.String, waitLimit).Should(ContainSubstring(`"complete":false`))
				}
				g.Expect(cache.blobFile(blob)).NotTo(BeAnExistingFile())
				g.Expect(filepath.Glob(filepath.Join(cache.root, "registry-cache/spool/*"))).To(BeEmpty())

				source.misbehave(nil)
				again := get(t, cache.url("blobs", blob.String()))
				g.Expect(again.err).NotTo(HaveOccurred())
				g.Expect(again.body).To(Equal(content))
			})
		}
	}
}

func TestBrokenTransfersGoOn(t *testing.T) {
	const size = 100_000
	for _, after := range []int{0, 1, 31_999, 32 << 10, 32<<10 + 1, 65_536, 99_000, size - 1} {
		for name, upstream := range map[string]struct{ ranges, length bool }{
			"with ranges": {true, true}, "without ranges": {false, true}, "chunked": {true, false}, "chunked, without ranges": {false, false},
		} {
			t.Run(fmt.Sprintf("%s/after %d", name, after), func(t *testing.T) {
				g := NewWithT(t)
				source := newOrigin(t)
				blob := source.add(size)
				content := source.blobs[blob]
				var asked atomic.Int64
				source.misbehave(func(w http.ResponseWriter, r *http.Request) bool {
					if !isBlob(r) {
						return false
					}
					if !upstream.ranges {
						r.Header.Del("Range")
					}
					if asked.Add(1) == 1 {
						w.Header().Set("Etag", `"`+blob.String()+`"`)
						if upstream.length {
							w.Header().Set("Content-Length", strconv.Itoa(size))
						} else {
							_ = http.NewResponseController(w).Flush()
						}
						cut(w, content, after)
					}
					return false
				})
				cache := newCache(t, source)
				g.Expect(get(t, cache.url("blobs", blob.String())).digest()).To(Equal(blob.String()))
				g.Expect(asked.Load()).To(BeEquivalentTo(2))
				if upstream.ranges {
					sent := source.blobBytes.Load()
					g.Expect(sent).To(BeEquivalentTo(size-after), "only the rest")
				}
				cache.stored(t, blob)
			})
		}
	}
}

func TestManyInterruptions(t *testing.T) {
	g := NewWithT(t)
	const size = 4 << 20
	source := newOrigin(t)
	blob := source.add(size)
	content := source.blobs[blob]
	source.misbehave(func(w http.ResponseWriter, r *http.Request) bool {
		var from int
		if _, err := fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-", &from); err == nil {
			w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, size-1, size))
			w.Header().Set("Content-Length", strconv.Itoa(size-from))
			w.WriteHeader(http.StatusPartialContent)
		} else {
			w.Header().Set("Content-Length", strconv.Itoa(size))
		}
		if rest := content[from:]; len(rest) > 300_000 {
			cut(w, rest, 300_000)
		}
		_, _ = w.Write(content[from:])
		return true
	})
	cache := newCache(t, source)
	g.Expect(get(t, cache.url("blobs", blob.String())).digest()).To(Equal(blob.String()))
	g.Expect(cache.metric(t, "registry_cache_resumes_total")).To(BeNumerically(">=", 13))
}

func TestInterruptionsWithoutProgressEnd(t *testing.T) {
	g := NewWithT(t)
	source := newOrigin(t)
	blob := source.add(100_000)
	source.misbehave(func(w http.ResponseWriter, _ *http.Request) bool {
		w.Header().Set("Content-Length", "100000")
		cut(w, source.blobs[blob], 50_000)
		return true
	})
	cache := newCache(t, source)
	got := get(t, cache.url("blobs", blob.String()))
	g.Expect(got.err).To(HaveOccurred())
	g.Expect(source.blobs[blob]).To(HavePrefix(string(got.body)))
	g.Expect(source.asked()).To(HaveLen(6), "the first and five more")
	g.Expect(cache.blobFile(blob)).NotTo(BeAnExistingFile())
}

func TestAFailedFlightIsGoneOnWith(t *testing.T) {
	const size = 200_000
	for name, changed := range map[string]bool{"unchanged": false, "changed": true} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			source := newOrigin(t)
			blob := source.add(size)
			content := source.blobs[blob]
			source.misbehave(func(w http.ResponseWriter, r *http.Request) bool {
				if r.Header.Get("Range") != "" {
					w.WriteHeader(http.StatusBadGateway)
					return true
				}
				sent := content
				w.Header().Set("Etag", `"`+blob.String()+`"`)
				if changed {
					sent = make([]byte, size)
					w.Header().Set("Etag", `"another"`)
				}
				w.Header().Set("Content-Length", strconv.Itoa(size))
				cut(w, sent, 150_000)
				return true
			})
			cache := newCache(t, source)
			g.Expect(get(t, cache.url("blobs", blob.String())).err).To(HaveOccurred())

			source.misbehave(nil)
			source.asked()
			before := source.blobBytes.Load()
			g.Eventually(func() string { return get(t, cache.url("blobs", blob.String())).digest() }, waitLimit).Should(Equal(blob.String()))
			// The origin counts what it has sent, which the client may have before.
			fetched := func() int64 { return source.blobBytes.Load() - before }
			if changed {
				g.Eventually(fetched, waitLimit).Should(BeNumerically(">=", size))
			} else {
				g.Eventually(fetched, waitLimit).Should(BeEquivalentTo(50_000))
			}
		})
	}
}

func TestUpstreamFailures(t *testing.T) {
	dead := deadAddress(t)
	for _, test := range []struct {
		name   string
		fail   func(*origin)
		status int
	}{
		{"500", func(o *origin) { o.answer(500) }, 503},
		{"502", func(o *origin) { o.answer(502) }, 503},
		{"429", func(o *origin) { o.answer(429) }, 503},
		{"429 with Retry-After", func(o *origin) { o.answer(429, "Retry-After", "60") }, 503},
		{"400", func(o *origin) { o.answer(400) }, 503},
		{"401", func(o *origin) { o.answer(401) }, 401},
		{"401 loop, Basic", func(o *origin) { o.answer(401, "Www-Authenticate", `Basic realm="x"`) }, 401},
		{"401 loop, Bearer", func(o *origin) {
			o.misbehave(func(w http.ResponseWriter, r *http.Request) bool {
				if r.URL.Path == "/token" {
					_, _ = io.WriteString(w, `{"token":"useless"}`)
					return true
				}
				w.Header().Set("Www-Authenticate", fmt.Sprintf(`Bearer realm="%s/token",service="s"`, o.URL))
				w.WriteHeader(401)
				return true
			})
		}, 401},
		{"403", func(o *origin) { o.answer(403) }, 403},
		{"404", func(o *origin) { o.answer(404) }, 404},
		{"redirect to a dead host", func(o *origin) { o.answer(307, "Location", "http://"+dead+"/x") }, 503},
		{"redirect without end", func(o *origin) { o.answer(307, "Location", "/v2/again") }, 503},
		{"redirect to nowhere", func(o *origin) { o.answer(307, "Location", "http://"+nowhere+"/x") }, 503},
		{"connection cut", func(o *origin) {
			o.misbehave(func(http.ResponseWriter, *http.Request) bool { panic(http.ErrAbortHandler) })
		}, 503},
		{"no HTTP", func(o *origin) {
			o.misbehave(func(w http.ResponseWriter, _ *http.Request) bool {
				conn, _, err := w.(http.Hijacker).Hijack()
				if err == nil {
					_, _ = io.WriteString(conn, "SSH-2.0-OpenSSH_9.2\r\n")
					_ = conn.Close()
				}
				return true
			})
		}, 503},
	} {
		t.Run(test.name, func(t *testing.T) {
			g := NewWithT(t)
			source := newOrigin(t)
			blob, manifest := source.add(1000), source.tag("v1")
			cache := newCache(t, source)
			test.fail(source)
			for _, url := range []string{
				cache.url("blobs", blob.String()), cache.url("manifests", manifest.String()), cache.url("manifests", "v1"),
				cache.url("tags", "list"), cache.url("referrers", manifest.String()),
			} {
				got := get(t, url)
				g.Expect(got.status).To(Equal(test.status), url)
				g.Expect(got.header.Get("Content-Type")).To(HavePrefix("application/json"), url)
				g.Expect(string(got.body)).To(MatchRegexp(`^\{"errors":\[\{"code":"[A-Z_]+","message":"`), url)
			}
			g.Expect(len(source.asked())).To(BeNumerically("<", 60))
			source.misbehave(nil)
			if test.name != "429 with Retry-After" {
				g.Eventually(func() int { return get(t, cache.url("manifests", "v1")).status }, waitLimit).Should(Equal(http.StatusOK))
			}
		})
	}
}

// deadAddress returns an address that refuses connections until the test ends: that
// of a socket that does not listen, so that nobody else gets it.
func deadAddress(t *testing.T) string {
	t.Helper()
	g := NewWithT(t)
	socket, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	g.Expect(err).NotTo(HaveOccurred())
	t.Cleanup(func() { _ = syscall.Close(socket) })
	g.Expect(syscall.Bind(socket, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}})).To(Succeed())
	name, err := syscall.Getsockname(socket)
	g.Expect(err).NotTo(HaveOccurred())
	return fmt.Sprintf("127.0.0.1:%d", name.(*syscall.SockaddrInet4).Port)
}

// nowhere is no host. The machine's resolver is not asked for it: no part of a name
// may have more than 63 characters.
var nowhere = strings.Repeat("x", 64) + ".invalid"

func TestUpstreamThatCannotBeReached(t *testing.T) {
	untrusted := httptest.NewTLSServer(http.NotFoundHandler())
	untrusted.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	t.Cleanup(untrusted.Close)
	for name, url := range map[string]string{
		"refused": "http://" + deadAddress(t),
		"no name": "http://" + nowhere,
		"no TLS":  untrusted.URL,
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			cache := startCache(t, newConfig(t, url), quick)
			began := time.Now()
			g.Expect(get(t, cache.url("blobs", digest.FromString("x").String())).status).To(Equal(http.StatusServiceUnavailable))
			g.Expect(get(t, cache.url("manifests", "v1")).status).To(Equal(http.StatusServiceUnavailable))
			g.Expect(time.Since(began)).To(BeNumerically("<", 15*time.Second))
			g.Expect(get(t, "http://"+cache.DebugAddr().String()+"/debug/health").status).To(Equal(http.StatusOK))
		})
	}
}

func TestStalls(t *testing.T) {
	const size = 100_000
	for name, drip := range map[string]bool{"nothing": false, "one byte at a time": true} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			source := newOrigin(t)
			blob := source.add(size)
			var asked atomic.Int64
			source.misbehave(func(w http.ResponseWriter, r *http.Request) bool {
				if asked.Add(1) > 1 {
					return false
				}
				w.Header().Set("Content-Length", strconv.Itoa(size))
				w.Header().Set("Etag", `"`+blob.String()+`"`)
				for i := range size {
					if i < 10 || drip {
						_, _ = w.Write(source.blobs[blob][i : i+1])
						_ = http.NewResponseController(w).Flush()
					}
					select {
					case <-r.Context().Done():
						return true
					case <-time.After(10 * time.Millisecond):
					}
				}
				return true
			})
			limits := quick
			limits.StallWindow = 200 * time.Millisecond
			cache := startCache(t, newConfig(t, source.URL), limits)
			g.Expect(get(t, cache.url("blobs", blob.String())).digest()).To(Equal(blob.String()))
			// A machine that is busy may seem to stall too.
			g.Expect(asked.Load()).To(BeNumerically(">=", 2))
		})
	}
}

func TestHangingUpstream(t *testing.T) {
	g := NewWithT(t)
	source := newOrigin(t)
	blob := source.add(10)
	manifest := source.tag("v1")
	limits := quick
	limits.ManifestHeader, limits.BlobHeader = 200*time.Millisecond, 300*time.Millisecond
	cache := startCache(t, newConfig(t, source.URL), limits)
	header := func(_ http.ResponseWriter, r *http.Request) bool { <-r.Context().Done(); return true }
	body := func(w http.ResponseWriter, r *http.Request) bool {
		w.Header().Set("Content-Length", "100")
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
		return true
	}
	for _, hang := range []func(http.ResponseWriter, *http.Request) bool{header, body} {
		source.misbehave(hang)
		for _, url := range []string{cache.url("manifests", manifest.String()), cache.url("manifests", "v1"), cache.url("tags", "list")} {
			g.Expect(get(t, url).status).To(Equal(http.StatusServiceUnavailable))
		}
	}
	source.misbehave(header)
	g.Eventually(func() int { return get(t, cache.url("blobs", blob.String())).status }, waitLimit).Should(Equal(http.StatusServiceUnavailable))
}

func TestWrongManifests(t *testing.T) {
	g := NewWithT(t)
	source := newOrigin(t)
	manifest := source.tag("v1")
	cache := newCache(t, source)
	source.misbehave(func(w http.ResponseWriter, _ *http.Request) bool {
		w.Header().Set("Docker-Content-Digest", manifest.String())
		_, _ = io.WriteString(w, `{"schemaVersion":2}`)
		return true
	})
	for _, reference := range []string{"v1", manifest.String()} {
		g.Expect(get(t, cache.url("manifests", reference)).status).To(Equal(http.StatusServiceUnavailable))
	}
	g.Expect(cache.metric(t, "registry_cache_digest_mismatches_total", "manifest")).To(BeEquivalentTo(2))
	source.misbehave(nil)
	g.Expect(get(t, cache.url("manifests", "v1")).digest()).To(Equal(manifest.String()))

	// Somebody, or a crash of the machine, has emptied the file.
	g.Expect(os.Truncate(cache.blobFile(manifest), 0)).To(Succeed())
	g.Expect(get(t, cache.url("manifests", manifest.String())).digest()).To(Equal(manifest.String()))
}

func TestLargeManifestsAreRefused(t *testing.T) {
	g := NewWithT(t)
	source := newOrigin(t)
	for size, status := range map[int]int{4 << 20: http.StatusOK, 9 << 20: http.StatusServiceUnavailable} {
		manifest := source.put(digest.SHA256, []byte(`{"schemaVersion":2,"x":"`+strings.Repeat("x", size)+`"}`))
		g.Expect(get(t, newCache(t, source).url("manifests", manifest.String())).status).To(Equal(status))
	}
}

func TestMediaTypes(t *testing.T) {
	for _, test := range []struct{ name, sent, content, want string }{
		{"Docker schema 2", "application/vnd.docker.distribution.manifest.v2+json", `{"schemaVersion":2}`, "application/vnd.docker.distribution.manifest.v2+json"},
		{"Docker list", "application/vnd.docker.distribution.manifest.list.v2+json", `{"manifests":[]}`, "application/vnd.docker.distribution.manifest.list.v2+json"},
		{"OCI index", "application/vnd.oci.image.index.v1+json", `{"schemaVersion":2,"manifests":[] }`, "application/vnd.oci.image.index.v1+json"},
		{"OCI artifact", "application/vnd.oci.image.manifest.v1+json", `{ "artifactType":"application/x", "mediaType":"application/vnd.oci.image.manifest.v1+json"}`, "application/vnd.oci.image.manifest.v1+json"},
		{"unknown", "application/vnd.example.thing+json; charset=utf-8", "{\n\t\"odd\" : 1.0e+1 }\n", "application/vnd.example.thing+json"},
		{"no JSON", "application/vnd.example.blob", "\x00\x01", "application/vnd.example.blob"},
		{"none, index", "", `{"manifests":[]}`, "application/vnd.oci.image.index.v1+json"},
		{"none, own", "application/json", `{"mediaType":"application/vnd.own"}`, "application/vnd.own"},
	} {
		t.Run(test.name, func(t *testing.T) {
			g := NewWithT(t)
			source := newOrigin(t)
			manifest := source.put(digest.SHA256, []byte(test.content))
			source.misbehave(func(w http.ResponseWriter, r *http.Request) bool {
				if path.Base(r.URL.Path) != manifest.String() {
					return false
				}
				w.Header()["Content-Type"] = nil
				if test.sent != "" {
					w.Header().Set("Content-Type", test.sent)
				}
				_, _ = io.WriteString(w, test.content)
				return true
			})
			config := newConfig(t, source.URL)
			cache := startCache(t, config, quick)
			for _, when := range []string{"cold", "warm", "after a restart"} {
				if when == "after a restart" {
					g.Expect(cache.stop()).To(Succeed())
					cache = startCache(t, config, quick)
				}
				got := get(t, cache.url("manifests", manifest.String()))
				g.Expect(got.status).To(Equal(http.StatusOK), when)
				g.Expect(string(got.body)).To(Equal(test.content), when)
				g.Expect(got.header.Get("Content-Type")).To(Equal(test.want), when)
			}
			g.Expect(source.asked()).To(HaveLen(1))
		})
	}
}

func TestErrorsThatNeverEnd(t *testing.T) {
	g := NewWithT(t)
	source := newOrigin(t)
	blob := source.add(1000)
	limits := quick
	limits.ManifestHeader, limits.BlobHeader = 200*time.Millisecond, 200*time.Millisecond
	cache := startCache(t, newConfig(t, source.URL), limits)
	status := http.StatusNotFound
	source.misbehave(func(w http.ResponseWriter, r *http.Request) bool {
		w.Header().Set("Content-Length", "100")
		w.WriteHeader(status)
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
		return true
	})
	g.Expect(get(t, cache.url("blobs", blob.String())).status).To(Equal(http.StatusNotFound), "the status is there")
	status = http.StatusInternalServerError
	g.Expect(get(t, cache.url("blobs", blob.String())).status).To(Equal(http.StatusServiceUnavailable))
	g.Expect(get(t, cache.url("manifests", "v1")).status).To(Equal(http.StatusServiceUnavailable))
	source.misbehave(nil)
	g.Eventually(func() string { return get(t, cache.url("blobs", blob.String())).digest() }, waitLimit).Should(Equal(blob.String()))
}

func TestMoreThanPromised(t *testing.T) {
	g := NewWithT(t)
	source := newOrigin(t)
	blob := source.add(1000)
	content := source.blobs[blob]
	// Chunked, so that only Content-Range tells the size.
	source.misbehave(func(w http.ResponseWriter, r *http.Request) bool {
		w.Header().Set("Content-Range", "bytes 0-999/1000")
		w.WriteHeader(http.StatusPartialContent)
		_ = http.NewResponseController(w).Flush()
		_, _ = w.Write(append([]byte{content[0] ^ 1}, content[1:]...))
		_, _ = w.Write(make([]byte, 100<<10))
		return true
	})
	cache := newCache(t, source)
	for range 5 {
		got, err := try(t.Context(), newClient(t), http.MethodGet, cache.url("blobs", blob.String()))
		g.Expect(err != nil || got.err != nil).To(BeTrue(), "%d bytes", len(got.body))
	}
	g.Expect(cache.blobFile(blob)).NotTo(BeAnExistingFile())
}

func TestFollowersOfAFailedFlightGetNothingOfTheNext(t *testing.T) {
	g := NewWithT(t)
	const size = 8 << 20
	source := newOrigin(t)
	blob := source.add(size)
	content := source.blobs[blob]
	first := true
	source.misbehave(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Header.Get("Range") != "" && first {
			w.WriteHeader(http.StatusBadGateway)
			return true
		}
		w.Header().Set("Etag", fmt.Sprintf("\"%t\"", first))
		_ = http.NewResponseController(w).Flush()
		if first {
			cut(w, content, size/2)
		}
		_, _ = w.Write(content)
		return true
	})
	cache := newCache(t, source)
	slow := open(t, cache.url("blobs", blob.String()))
	g.Eventually(func() float64 { return cache.metric(t, "registry_cache_flights_total", "failed") }, waitLimit).Should(BeEquivalentTo(1))
	first = false
	// The upstream has changed, so it begins again.
	g.Expect(get(t, cache.url("blobs", blob.String())).digest()).To(Equal(blob.String()))
	got, err := io.ReadAll(slow.body)
	g.Expect(err).To(HaveOccurred(), "complete, with %d bytes", len(got))
}

func TestCutBehindTheLastByte(t *testing.T) {
	g := NewWithT(t)
	source := newOrigin(t)
	blob := source.add(100_000)
	source.misbehave(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Header.Get("Range") == "" {
			_ = http.NewResponseController(w).Flush() // chunked
			cut(w, source.blobs[blob], 100_000)
		}
		return false
	})
	cache := newCache(t, source)
	g.Expect(get(t, cache.url("blobs", blob.String())).digest()).To(Equal(blob.String()))
	cache.stored(t, blob)
}

func TestFlightsOutliveABlipOfTheUpstream(t *testing.T) {
	g := NewWithT(t)
	source := newOrigin(t)
	cut, end := make(chan struct{}), make(chan struct{})
	source.misbehave(func(w http.ResponseWriter, r *http.Request) bool {
		switch {
		case isClosed(end):
			return false
		case isClosed(cut):
			w.WriteHeader(http.StatusServiceUnavailable)
			return true
		}
		dgst := digest.Digest(path.Base(r.URL.Path))
		source.mu.Lock()
		content := source.blobs[dgst]
		source.mu.Unlock()
		w.Header().Set("Content-Length", strconv.Itoa(len(content)))
		_, _ = w.Write(content[:100_000])
		_ = http.NewResponseController(w).Flush()
		<-cut
		panic(http.ErrAbortHandler)
	})
	limits := pullthrough.Limits{Backoff: 20 * time.Millisecond}
	cache := startCache(t, newConfig(t, source.URL), limits)
	results := make(chan bool, 6)
	for range cap(results) {
		blob := source.add(200_000)
		go func() { results <- get(t, cache.url("blobs", blob.String())).digest() == blob.String() }()
	}
	g.Eventually(func() float64 { return cache.metric(t, "registry_cache_spool_bytes") }, waitLimit).Should(BeNumerically(">=", 600_000))
	close(cut)
	g.Eventually(func() float64 {
		return cache.metric(t, "registry_cache_upstream_responses_total", "blob", "503")
	}, waitLimit).Should(BeNumerically(">=", 6), "all of them were refused")
	close(end)
	for range cap(results) {
		g.Expect(<-results).To(BeTrue())
	}
}

func isClosed(channel <-chan struct{}) bool {
	select {
	case <-channel:
		return true
	default:
		return false
	}
}

func TestShortcutsThatFailAreNoReasonToFail(t *testing.T) {
	const size = 20 << 20
	for name, rest := range map[string]func(w http.ResponseWriter, content []byte, from int){
		"refused":   func(w http.ResponseWriter, _ []byte, _ int) { w.WriteHeader(http.StatusServiceUnavailable) },
		"all of it": func(w http.ResponseWriter, content []byte, _ int) { _, _ = w.Write(content) },
		"cut again and again": func(w http.ResponseWriter, content []byte, from int) {
			w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, size-1, size))
			w.Header().Set("Content-Length", strconv.Itoa(size-from))
			w.WriteHeader(http.StatusPartialContent)
			cut(w, content[from:], 10)
		},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			source := newOrigin(t)
			blob := source.add(size)
			content := source.blobs[blob]
			goOn := make(chan struct{})
			var shortcuts atomic.Int64
			source.misbehave(func(w http.ResponseWriter, r *http.Request) bool {
				var from int
				if _, err := fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-", &from); err == nil {
					shortcuts.Add(1)
					rest(w, content, from)
					return true
				}
				w.Header().Set("Content-Length", strconv.Itoa(size))
				_, _ = w.Write(content[:100_000])
				_ = http.NewResponseController(w).Flush()
				<-goOn
				_, _ = w.Write(content[100_000:])
				return true
			})
			cache := newCache(t, source)
			ends := make(chan answer, 3)
			for range cap(ends) {
				go func() {
					end, err := try(t.Context(), newClient(t), http.MethodGet, cache.url("blobs", blob.String()), "Range", "bytes=-1000")
					end.err = errors.Join(end.err, err)
					ends <- end
				}()
			}
			g.Eventually(shortcuts.Load, waitLimit).Should(BeNumerically(">=", cap(ends)), "all of them have tried")
			close(goOn)
			for range cap(ends) {
				end := <-ends
				g.Expect(end.err).NotTo(HaveOccurred())
				g.Expect(end.body).To(Equal(content[size-1000:]))
			}
		})
	}
}

func TestBrokenManifests(t *testing.T) {
	g := NewWithT(t)
	source := newOrigin(t)
	manifest := source.tag("v1")
	content := source.blobs[manifest]
	cache := newCache(t, source)
	for _, after := range []int{0, 1, len(content) - 1} {
		source.misbehave(func(w http.ResponseWriter, _ *http.Request) bool {
			w.Header().Set("Content-Length", strconv.Itoa(len(content)))
			cut(w, content, after)
			return true
		})
		g.Expect(get(t, cache.url("manifests", manifest.String())).status).To(Equal(http.StatusServiceUnavailable))
		source.misbehave(nil)
	}
	g.Eventually(func() string { return get(t, cache.url("manifests", manifest.String())).digest() }, waitLimit).Should(Equal(manifest.String()))
}

func TestFarRangesDoNotWaitForTheFlight(t *testing.T) {
	g := NewWithT(t)
	const size = 20 << 20
	source := newOrigin(t)
	blob := source.add(size)
	content := source.blobs[blob]
	source.misbehave(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Header.Get("Range") != "" {
			return false
		}
		w.Header().Set("Content-Length", strconv.Itoa(size))
		_, _ = w.Write(content[:100_000])
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
		return true
	})
	cache := startCache(t, newConfig(t, source.URL), pullthrough.Limits{})
	whole := open(t, cache.url("blobs", blob.String()))
	end := get(t, cache.url("blobs", blob.String()), "Range", "bytes=-1000")
	g.Expect(end.status).To(Equal(http.StatusPartialContent))
	g.Expect(end.body).To(Equal(content[size-1000:]))
	g.Expect(whole.body.Close()).To(Succeed())
}
