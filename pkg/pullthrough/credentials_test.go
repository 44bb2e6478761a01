// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package pullthrough_test

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	. "github.com/onsi/gomega"
)

const keyFile = `{"type":"service_account","private_key":"-----BEGIN PRIVATE KEY-----\nMIIE: @#%/?\n"}`

// withCredentials starts a cache that has credentials.
func withCredentials(t *testing.T, o *origin, username, password string) *cache {
	t.Helper()
	config := newConfig(t, o.URL)
	config.CredentialsDir = t.TempDir()
	writeCredentials(t, config.CredentialsDir, username, password)
	return startCache(t, config, quick)
}

func writeCredentials(t *testing.T, dir, username, password string) {
	t.Helper()
	for name, value := range map[string]string{"username": username, "password": password} {
		NewWithT(t).Expect(os.WriteFile(filepath.Join(dir, name), []byte(value), 0o600)).To(Succeed())
	}
}

// tokens is a token service, and an upstream that wants its tokens.
type tokens struct {
	*httptest.Server
	username, password string
	// methods are those that it knows.
	methods []string
	// valid is the token of today.
	valid  atomic.Value
	issued atomic.Int64

	mu       sync.Mutex
	requests []string
}

func newTokens(t *testing.T, o *origin, username, password string, methods ...string) *tokens {
	t.Helper()
	s := &tokens{username: username, password: password, methods: methods}
	s.valid.Store("first")
	s.Server = httptest.NewServer(s)
	t.Cleanup(s.Close)
	o.misbehave(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Header.Get("Authorization") == "Bearer "+s.valid.Load().(string) {
			return false
		}
		w.Header().Set("Www-Authenticate", fmt.Sprintf(`Bearer realm="%s/token",service="origin",scope="repository:library/app:pull"`, s.URL))
		w.WriteHeader(http.StatusUnauthorized)
		return true
	})
	return s
}

func (s *tokens) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	s.requests = append(s.requests, r.Method+" "+r.URL.Path)
	s.mu.Unlock()
	if !strings.Contains(strings.Join(s.methods, " "), r.Method) {
		w.WriteHeader(http.StatusMethodNotAllowed)
		return
	}
	username, password, _ := r.BasicAuth()
	scope := r.URL.Query().Get("scope")
	if r.Method == http.MethodPost {
		username, password, scope = r.PostFormValue("username"), r.PostFormValue("password"), r.PostFormValue("scope")
	}
	if username != s.username || password != s.password || scope != "repository:library/app:pull" {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	s.issued.Add(1)
	_ = json.NewEncoder(w).Encode(map[string]string{"access_token": s.valid.Load().(string)})
}

func TestCredentials(t *testing.T) {
	for _, account := range []struct{ username, password string }{
		{"", ""}, {"alice", "secret"}, {"_json_key", keyFile}, {"robot$x+y", `p:ä "quoted"`},
	} {
		for _, way := range []string{"Basic", "GET", "POST"} {
			if account.username == "" && way != "GET" {
				continue
			}
			t.Run(account.username+"/"+way, func(t *testing.T) {
				g := NewWithT(t)
				source := newOrigin(t)
				blob := source.add(1000)
				manifest := source.tag("v1")
				if way == "Basic" {
					source.misbehave(func(w http.ResponseWriter, r *http.Request) bool {
						if username, password, _ := r.BasicAuth(); username == account.username && password == account.password {
							return false
						}
						w.Header().Set("Www-Authenticate", `Basic realm="origin"`)
						w.WriteHeader(http.StatusUnauthorized)
						return true
					})
				} else {
					newTokens(t, source, account.username, account.password, way)
				}
				var cache *cache
				if account.username == "" {
					cache = newCache(t, source)
				} else {
					cache = withCredentials(t, source, account.username, account.password)
				}
				g.Expect(get(t, cache.url("manifests", "v1")).digest()).To(Equal(manifest.String()))
				g.Expect(get(t, cache.url("blobs", blob.String())).digest()).To(Equal(blob.String()))
				challenges := 1
				if way == "POST" {
					// The token service is first asked by GET, which most know.
					challenges = 2
				}
				g.Expect(source.asked()).To(HaveLen(2 + challenges))
				if account.password != "" {
					for _, secret := range []string{account.password, "PRIVATE KEY", base64.StdEncoding.EncodeToString([]byte(account.username + ":" + account.password)), "first"} {
						g.Expect(cache.logs.String()).NotTo(ContainSubstring(secret))
					}
				}
			})
		}
	}
}

func TestExpiredTokensAreRenewed(t *testing.T) {
	g := NewWithT(t)
	source := newOrigin(t)
	source.tag("v1")
	service := newTokens(t, source, "", "", http.MethodGet)
	cache := newCache(t, source)
	g.Expect(get(t, cache.url("manifests", "v1")).status).To(Equal(http.StatusOK))
	service.valid.Store("second")
	g.Expect(get(t, cache.url("manifests", "v1")).status).To(Equal(http.StatusOK))
	g.Expect(service.issued.Load()).To(BeEquivalentTo(2))
}

func TestWrongCredentials(t *testing.T) {
	g := NewWithT(t)
	source := newOrigin(t)
	blob := source.add(10)
	newTokens(t, source, "alice", "right", http.MethodGet)
	cache := withCredentials(t, source, "alice", "wrong")
	g.Expect(get(t, cache.url("blobs", blob.String())).status).To(Equal(http.StatusUnauthorized))
	g.Expect(get(t, cache.url("manifests", "v1")).status).To(Equal(http.StatusUnauthorized))
	g.Expect(cache.metric(t, "registry_cache_breaker_open")).To(BeZero(), "the upstream works")
}

func TestCredentialsStayWithTheUpstream(t *testing.T) {
	g := NewWithT(t)
	source := newOrigin(t)
	blob := source.add(1000)
	content := source.blobs[blob]
	var leaked atomic.Int64
	// Another port of the same host: net/http would send credentials there.
	storage := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "" || r.Header.Get("Cookie") != "" {
			leaked.Add(1)
		}
		switch r.URL.Path {
		case "/challenge":
			w.Header().Set("Www-Authenticate", `Basic realm="storage"`)
			w.WriteHeader(http.StatusUnauthorized)
		case "/bearer":
			w.Header().Set("Www-Authenticate", fmt.Sprintf(`Bearer realm="http://%s/token"`, r.Host))
			w.WriteHeader(http.StatusUnauthorized)
		default:
			_, _ = w.Write(content)
		}
	}))
	t.Cleanup(storage.Close)
	location := "/content?signature=very-secret"
	source.misbehave(func(w http.ResponseWriter, r *http.Request) bool {
		if _, _, ok := r.BasicAuth(); !ok {
			w.Header().Set("Www-Authenticate", `Basic realm="origin"`)
			w.WriteHeader(http.StatusUnauthorized)
			return true
		}
		http.Redirect(w, r, storage.URL+location, http.StatusTemporaryRedirect)
		return true
	})
	cache := withCredentials(t, source, "alice", "secret")
	g.Expect(get(t, cache.url("blobs", blob.String())).digest()).To(Equal(blob.String()))
	cache.landed(t)
	g.Expect(os.Remove(cache.blobFile(blob))).To(Succeed())
	for _, path := range []string{"/challenge", "/bearer"} {
		location = path + "?signature=very-secret"
		g.Expect(get(t, cache.url("blobs", blob.String())).status).To(Equal(http.StatusUnauthorized))
	}
	g.Expect(leaked.Load()).To(BeZero())
	g.Expect(cache.logs.String()).NotTo(ContainSubstring("very-secret"))
}

// An upstream could otherwise have the cache ask what only the pod reaches, such as
// the metadata service of a cloud, and pass it on as a manifest.
func TestRedirectsToTheMachineItselfAreNotFollowed(t *testing.T) {
	g := NewWithT(t)
	var asked atomic.Int64
	inside := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		_, _ = io.WriteString(w, `{"token":"very-secret"}`)
	}))
	t.Cleanup(inside.Close)
	_, port, err := net.SplitHostPort(inside.Listener.Addr().String())
	g.Expect(err).NotTo(HaveOccurred())

	// The upstream of the test is at 127.0.0.1, and so may lead there. Linux takes the
	// first of these for the same.
	for _, host := range []string{"0.0.0.0", "169.254.169.254", "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe", "fe80::1"} {
		url := "http://" + net.JoinHostPort(host, port) + "/x"
		for kind, lead := range map[string]func(*origin){
			"storage":       func(o *origin) { o.answer(http.StatusTemporaryRedirect, "Location", url) },
			"token service": func(o *origin) { o.answer(http.StatusUnauthorized, "Www-Authenticate", `Bearer realm="`+url+`"`) },
		} {
			source := newOrigin(t)
			lead(source)
			cache := newCache(t, source)
			// More often than it takes for an upstream that fails to be left alone.
			for range 5 {
				got := get(t, cache.url("manifests", "v1"))
				g.Expect(got.status).To(Equal(http.StatusServiceUnavailable), "%s at %s", kind, host)
				g.Expect(string(got.body)).NotTo(ContainSubstring("very-secret"), "%s at %s", kind, host)
			}
			g.Expect(cache.logs.String()).To(ContainSubstring("not asked, for the upstream leads to an address of the machine itself"), "%s at %s", kind, host)
			source.misbehave(nil)
			source.tag("v1")
			g.Expect(get(t, cache.url("manifests", "v1")).status).To(Equal(http.StatusOK), "others are not concerned")
		}
	}
	g.Expect(asked.Load()).To(BeZero())
}

func TestCredentialsRotateUnderLoad(t *testing.T) {
	g := NewWithT(t)
	source := newOrigin(t)
	var valid atomic.Value
	valid.Store("secret-0")
	source.misbehave(func(w http.ResponseWriter, r *http.Request) bool {
		_, password, _ := r.BasicAuth()
		// The one of before works for a while, as it does where credentials rotate.
		if current := valid.Load().(string); password == current || password == previous(current) {
			return false
		}
		w.Header().Set("Www-Authenticate", `Basic realm="origin"`)
		w.WriteHeader(http.StatusUnauthorized)
		return true
	})
	dir := t.TempDir()
	swapCredentials(t, dir, "alice", "secret-0")
	config := newConfig(t, source.URL)
	config.CredentialsDir = dir
	cache := startCache(t, config, quick)
	var load sync.WaitGroup
	failures := make(chan string, 1000)
	done := make(chan struct{})
	for range 4 {
		load.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				blob := source.add(100_000)
				if got := get(t, cache.url("blobs", blob.String())); got.digest() != blob.String() {
					failures <- fmt.Sprint(got.status, got.err)
				}
			}
		})
	}
	for i := 1; i <= 5; i++ {
		// Longer than a request takes, which may begin with those of before.
		time.Sleep(100 * time.Millisecond)
		valid.Store(fmt.Sprintf("secret-%d", i))
		swapCredentials(t, dir, "alice", fmt.Sprintf("secret-%d", i))
		g.Eventually(func() int { return strings.Count(cache.logs.String(), "Credentials changed") }, waitLimit, "2ms").Should(Equal(i))
	}
	close(done)
	load.Wait()
	close(failures)
	for failure := range failures {
		t.Error(failure)
	}
	g.Expect(cache.logs.String()).NotTo(ContainSubstring("secret-"))
}

// swapCredentials replaces the credentials as the kubelet does those of a mounted
// Secret: all files at once, by a link to their folder.
func swapCredentials(t *testing.T, dir, username, password string) {
	t.Helper()
	g := NewWithT(t)
	data, err := os.MkdirTemp(dir, "..2026_")
	g.Expect(err).NotTo(HaveOccurred())
	writeCredentials(t, data, username, password)
	g.Expect(os.Symlink(filepath.Base(data), filepath.Join(dir, "..data_tmp"))).To(Succeed())
	g.Expect(os.Rename(filepath.Join(dir, "..data_tmp"), filepath.Join(dir, "..data"))).To(Succeed())
	for _, name := range []string{"username", "password"} {
		if err := os.Symlink(filepath.Join("..data", name), filepath.Join(dir, name)); !errors.Is(err, os.ErrExist) {
			g.Expect(err).NotTo(HaveOccurred())
		}
	}
}

func previous(password string) string {
	var number int
	_, _ = fmt.Sscanf(password, "secret-%d", &number)
	return fmt.Sprintf("secret-%d", number-1)
}
