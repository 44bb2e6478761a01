// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package cacheserver

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"
	. "github.com/onsi/gomega"
	"github.com/opencontainers/go-digest"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"k8s.io/utils/ptr"

	"github.com/gardener/gardener-extension-registry-cache/pkg/apis/config/v1alpha1"
	"github.com/gardener/gardener-extension-registry-cache/pkg/apis/inventory"
	"github.com/gardener/gardener-extension-registry-cache/pkg/pullthrough"
	upstreamtest "github.com/gardener/gardener-extension-registry-cache/test/upstream"
)

func TestPullColdAndWarm(t *testing.T) {
	g := NewWithT(t)
	source := newUpstream(t, "", "")
	push(t, source, tagName)
	before := source.Counts()
	cache := startCache(t, newConfig(t, source.URL()+"/"), Options{})

	g.Expect(pull(t, cache.host(), tagName)).To(Succeed())
	g.Expect(source.Since(before).Blobs).To(BeEquivalentTo(4), "three layers and the config, once each")

	cache.settle(t)
	before = source.Counts()
	g.Expect(pull(t, cache.host(), tagName)).To(Succeed())
	g.Expect(source.Since(before).Blobs).To(BeZero())
}

func TestPullIndex(t *testing.T) {
	g := NewWithT(t)
	source := newUpstream(t, "", "")
	index, err := random.Index(10<<10, 2, 2)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(remote.WriteIndex(imageReference(t, source.Host(), tagName), index)).To(Succeed())
	cache := startCache(t, newConfig(t, source.URL()), Options{})

	var before upstreamtest.Counts
	for range 2 {
		before = source.Counts()
		pulled, err := remote.Index(imageReference(t, cache.host(), tagName), remote.WithTransport(newClient(t).Transport))
		g.Expect(err).NotTo(HaveOccurred())
		manifest, err := pulled.IndexManifest()
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(manifest.Manifests).To(HaveLen(2))
		for _, child := range manifest.Manifests {
			image, err := pulled.Image(child.Digest)
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(upstreamtest.ReadImage(image)).To(Succeed())
		}
		cache.settle(t)
	}
	g.Expect(source.Since(before).Blobs).To(BeZero())
}

func TestStorageLayoutIsThatOfDistribution(t *testing.T) {
	g := NewWithT(t)
	source := newUpstream(t, "", "")
	image := push(t, source, tagName)
	config := newConfig(t, source.URL())
	cache := startCache(t, config, Options{})
	g.Expect(pull(t, cache.host(), tagName)).To(Succeed())

	digest, err := image.Digest()
	g.Expect(err).NotTo(HaveOccurred())
	root := filepath.Join(config.Storage.RootDirectory, "docker", "registry", "v2")
	g.Expect(filepath.Join(root, "blobs", "sha256", digest.Hex[:2], digest.Hex, "data")).To(BeAnExistingFile())
	g.Expect(filepath.Join(root, "repositories", repositoryName, "_manifests", "tags", tagName, "current", "link")).To(BeAnExistingFile())
}

func TestOtherUpstreamsAreNotServed(t *testing.T) {
	g := NewWithT(t)
	source := newUpstream(t, "", "")
	image := push(t, source, tagName)
	config := newConfig(t, source.URL())
	cache := startCache(t, config, Options{})
	manifest := "http://" + cache.host() + "/v2/" + repositoryName + "/manifests/" + tagName

	for _, url := range []string{blobURL(t, cache.host(), image), manifest} {
		status, _ := get(t, url+"?ns="+config.Upstream)
		g.Expect(status).To(Equal(http.StatusOK))
		status, body := get(t, url+"?ns=elsewhere.example.com")
		g.Expect(status).To(Equal(http.StatusNotFound))
		g.Expect(body).To(ContainSubstring("the cache of another upstream"))
	}
	g.Expect(cache.logs.Lines("elsewhere.example.com")).To(BeEmpty(), "query values do not belong into the log")
}

func TestUpstreamDown(t *testing.T) {
	source := newUpstream(t, "", "")
	image := push(t, source, tagName)
	digest, err := image.Digest()
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	config := newConfig(t, source.URL())
	warm := startCache(t, config, Options{})
	NewWithT(t).Expect(pull(t, warm.host(), tagName)).To(Succeed())
	warm.settle(t)
	NewWithT(t).Expect(source.Close()).To(Succeed())

	check := func(t *testing.T, cache *cache) {
		g := NewWithT(t)
		g.Expect(pull(t, cache.host(), digest.String())).To(Succeed())
		g.Expect(pull(t, cache.host(), tagName)).To(Succeed(), "the last known digest of the tag")
		status, body := get(t, blobURL(t, cache.host(), image))
		g.Expect(status).To(Equal(http.StatusOK))
		g.Expect(body).NotTo(BeEmpty())
		status, body = get(t, "http://"+cache.host()+"/v2/"+repositoryName+"/blobs/sha256:"+strings.Repeat("0", 64))
		g.Expect(status).To(Equal(http.StatusServiceUnavailable))
		g.Expect(body).To(ContainSubstring("UNAVAILABLE"))
		status, _ = get(t, "http://"+cache.DebugAddr().String()+"/debug/health")
		g.Expect(status).To(Equal(http.StatusOK))
	}
	t.Run("while serving", func(t *testing.T) { check(t, warm) })

	NewWithT(t).Expect(warm.stop()).To(Succeed())
	t.Run("at start", func(t *testing.T) {
		check(t, startCache(t, config, Options{}))
	})
	t.Run("unresolvable at start", func(t *testing.T) {
		config := config.DeepCopy()
		config.RemoteURL = "https://registry.invalid"
		check(t, startCache(t, config, Options{}))
	})
}

func TestUpstreamComesUpAfterTheCache(t *testing.T) {
	g := NewWithT(t)
	source := newUpstream(t, "", "")
	push(t, source, tagName)
	overloaded := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) })
	source.Intercept(func(http.Handler) http.Handler { return overloaded })
	cache := startCache(t, newConfig(t, source.URL()), Options{Limits: pullthrough.Limits{BreakerBase: 50 * time.Millisecond}})
	manifest := func() int { return manifestStatus(t, cache, tagName) }
	g.Expect(manifest()).To(Equal(http.StatusServiceUnavailable))

	source.Intercept(nil)
	g.Eventually(manifest, waitLimit).Should(Equal(http.StatusOK))
}

func TestUpstreamAnswersTooManyRequests(t *testing.T) {
	g := NewWithT(t)
	source := newUpstream(t, "", "")
	image := push(t, source, tagName)
	cache := startCache(t, newConfig(t, source.URL()), Options{})
	limited := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusTooManyRequests)
		_, _ = io.WriteString(w, `{"errors":[{"code":"TOOMANYREQUESTS","message":"slow down"}]}`)
	})
	source.Intercept(func(http.Handler) http.Handler { return limited })

	status, _ := get(t, blobURL(t, cache.host(), image))
	g.Expect(status).To(Equal(http.StatusServiceUnavailable))
	digest, err := image.Digest()
	g.Expect(err).NotTo(HaveOccurred())
	for _, ref := range []string{tagName, digest.String()} {
		g.Expect(manifestStatus(t, cache, ref)).To(BeElementOf(http.StatusServiceUnavailable, http.StatusNotFound), ref)
	}
}

func manifestStatus(t *testing.T, cache *cache, ref string) int {
	t.Helper()
	g := NewWithT(t)
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+cache.host()+"/v2/"+repositoryName+"/manifests/"+ref, nil)
	g.Expect(err).NotTo(HaveOccurred())
	request.Header.Set("Accept", string(types.DockerManifestSchema2))
	response, err := newClient(t).Do(request)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(response.Body.Close()).To(Succeed())
	return response.StatusCode
}

func TestUnknownContent(t *testing.T) {
	g := NewWithT(t)
	source := newUpstream(t, "", "")
	push(t, source, tagName)
	cache := startCache(t, newConfig(t, source.URL()), Options{})
	for _, path := range []string{"/manifests/none", "/manifests/sha256:" + strings.Repeat("0", 64), "/blobs/sha256:" + strings.Repeat("0", 64)} {
		status, _ := get(t, "http://"+cache.host()+"/v2/"+repositoryName+path)
		g.Expect(status).To(Equal(http.StatusNotFound), path)
	}
}

func TestUpstreamBreaksOffInABlob(t *testing.T) {
	g := NewWithT(t)
	source := newUpstream(t, "", "")
	image := push(t, source, tagName)
	cache := startCache(t, newConfig(t, source.URL()), Options{})
	broken := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "100000")
		if r.Method == http.MethodGet {
			_, _ = w.Write(make([]byte, 99_900))
			panic(http.ErrAbortHandler)
		}
	})
	source.Intercept(func(http.Handler) http.Handler { return broken })

	response, err := newClient(t).Get(blobURL(t, cache.host(), image))
	g.Expect(err).NotTo(HaveOccurred())
	body, err := io.ReadAll(response.Body)
	g.Expect(response.Body.Close()).To(Succeed())
	g.Expect(err).To(HaveOccurred(), "the client must learn that the blob is incomplete")
	g.Expect(string(body)).NotTo(ContainSubstring("errors"), "an error must not become part of the blob")

	source.Intercept(nil)
	g.Expect(pull(t, cache.host(), tagName)).To(Succeed(), "nothing partial was stored")
}

func TestCredentials(t *testing.T) {
	g := NewWithT(t)
	source := newUpstream(t, "alice", "first-secret")
	push(t, source, tagName, basic("alice", "first-secret"))
	config := newConfig(t, source.URL())
	config.CredentialsDir = t.TempDir()
	writeCredentials(t, config.CredentialsDir, "alice", "first-secret\n")
	cache := startCache(t, config, Options{})
	g.Expect(pull(t, cache.host(), tagName)).To(Succeed())

	g.Expect(source.SetUser("bob", "second-secret!")).To(Succeed())
	push(t, source, "v2", basic("bob", "second-secret!"))
	g.Expect(manifestStatus(t, cache, "v2")).NotTo(Equal(http.StatusOK), "the old credentials are no longer valid")

	g.Expect(os.Remove(filepath.Join(config.CredentialsDir, "password"))).To(Succeed())
	g.Eventually(func() string { manifestStatus(t, cache, "v2"); return cache.logs.String() }, waitLimit).Should(ContainSubstring("Cannot read credentials"))
	writeCredentials(t, config.CredentialsDir, "bob", "second-secret!")
	g.Eventually(func() int { return manifestStatus(t, cache, "v2") }, waitLimit).Should(Equal(http.StatusOK))
	g.Expect(pull(t, cache.host(), "v2")).To(Succeed())

	for _, secret := range []string{"first-secret", "second-secret!", "alice", "bob"} {
		g.Expect(cache.logs.Lines(secret)).To(BeEmpty())
	}
}

func TestReplacedCredentialsAreUsedAtOnce(t *testing.T) {
	g := NewWithT(t)
	source := newUpstream(t, "alice", "first-secret")
	push(t, source, tagName, basic("alice", "first-secret"))
	config := newConfig(t, source.URL())
	config.CredentialsDir = t.TempDir()
	writeCredentials(t, config.CredentialsDir, "alice", "first-secret")
	cache := startCache(t, config, Options{PollInterval: time.Hour})
	g.Expect(pull(t, cache.host(), tagName)).To(Succeed())
	for _, password := range []string{"second-secret", "third-secret"} {
		g.Expect(source.SetUser("alice", password)).To(Succeed())
		push(t, source, password, basic("alice", password))
		writeCredentials(t, config.CredentialsDir, "alice", password)
		g.Expect(pull(t, cache.host(), password)).To(Succeed(), "the upstream has rejected those of before")
	}
}

func TestClientsThatDoNotReadAreCut(t *testing.T) {
	g := NewWithT(t)
	source := newUpstream(t, "", "")
	// More than sockets buffer.
	image, err := random.Image(32<<20, 1)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(remote.Write(imageReference(t, source.Host(), tagName), image)).To(Succeed())
	cache := startCache(t, newConfig(t, source.URL()), Options{WriteTimeout: 100 * time.Millisecond})
	for i, when := range []string{"cold", "warm"} {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, blobURL(t, cache.host(), image), nil)
		g.Expect(err).NotTo(HaveOccurred())
		response, err := newClient(t).Do(request)
		g.Expect(err).NotTo(HaveOccurred())
		g.Eventually(func() []string { return cache.logs.Lines(`"complete":false`) }, waitLimit).Should(HaveLen(i+1), when)
		_, err = io.Copy(io.Discard, response.Body)
		g.Expect(response.Body.Close()).To(Succeed())
		g.Expect(err).To(HaveOccurred(), when)
		g.Expect(cache.logs.Lines("Cannot answer")).To(BeEmpty(), "it is the client that does not")
		cache.settle(t)
	}
}

func TestOnlyHTTP1IsSpoken(t *testing.T) {
	g := NewWithT(t)
	dir := t.TempDir()
	pool := x509.NewCertPool()
	pool.AddCert(writeCertificate(t, dir))
	config := newConfig(t, "http://127.0.0.1:1")
	config.Server.TLS = &v1alpha1.TLS{CertFile: filepath.Join(dir, "tls.crt"), KeyFile: filepath.Join(dir, "tls.key")}
	cache := startCache(t, config, Options{})
	conn, err := tls.Dial("tcp", cache.host(), &tls.Config{RootCAs: pool, NextProtos: []string{"h2", "http/1.1"}})
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(conn.ConnectionState().NegotiatedProtocol).To(Equal("http/1.1"))
	g.Expect(conn.Close()).To(Succeed())
}

func TestCredentialsRotateUnderATransfer(t *testing.T) {
	g := NewWithT(t)
	source := newUpstream(t, "", "")
	image := push(t, source, tagName)
	config := newConfig(t, source.URL())
	config.CredentialsDir = t.TempDir()
	writeCredentials(t, config.CredentialsDir, "alice", "first")
	cache := startCache(t, config, Options{})
	begun, finish := slowBlobs(source)
	transfer := make(chan error, 1)
	go func() { _, err := download(blobURL(t, cache.host(), image)); transfer <- err }()
	g.Eventually(begun, waitLimit).Should(BeClosed())
	writeCredentials(t, config.CredentialsDir, "alice", "second")
	g.Eventually(func() []string {
		manifestStatus(t, cache, tagName)
		return cache.logs.Lines("Credentials changed")
	}, waitLimit).Should(HaveLen(1))
	close(finish)
	g.Eventually(transfer, waitLimit).Should(Receive(BeNil()))
}

// slowBlobs makes the upstream wait after the first byte of a blob until finish
// is closed.
func slowBlobs(source *upstreamtest.Registry) (begun, finish chan struct{}) {
	begun, finish = make(chan struct{}), make(chan struct{})
	var once sync.Once
	source.Intercept(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if !strings.Contains(r.URL.Path, "/blobs/") || r.Method == http.MethodHead {
				next.ServeHTTP(w, r)
				return
			}
			answer := httptest.NewRecorder()
			next.ServeHTTP(answer, r)
			maps.Copy(w.Header(), answer.Header())
			_, _ = w.Write(answer.Body.Next(1))
			if http.NewResponseController(w).Flush() != nil {
				return
			}
			once.Do(func() { close(begun) })
			<-finish
			_, _ = w.Write(answer.Body.Bytes())
		})
	})
	return begun, finish
}

// download returns the digest of what it gets.
func download(url string) (string, error) {
	response, err := http.Get(url)
	if err != nil {
		return "", err
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		return "", fmt.Errorf("status %s", response.Status)
	}
	content, err := io.ReadAll(response.Body)
	return digest.FromBytes(content).String(), err
}

func TestGracefulStop(t *testing.T) {
	g := NewWithT(t)
	source := newUpstream(t, "", "")
	image := push(t, source, tagName)
	cache := startCache(t, newConfig(t, source.URL()), Options{})
	begun, finish := slowBlobs(source)

	type result struct {
		digest string
		err    error
	}
	transfer := make(chan result, 1)
	go func() {
		digest, err := download(blobURL(t, cache.host(), image))
		transfer <- result{digest, err}
	}()
	g.Eventually(begun, waitLimit).Should(BeClosed())

	stopped := make(chan error, 1)
	go func() { stopped <- cache.stop() }()
	g.Eventually(func() error {
		conn, err := net.Dial("tcp", cache.host())
		if err == nil {
			_ = conn.Close()
		}
		return err
	}, waitLimit).Should(HaveOccurred(), "no new connections")
	status, _ := get(t, "http://"+cache.DebugAddr().String()+"/debug/health")
	g.Expect(status).To(Equal(http.StatusServiceUnavailable), "not healthy, but there to ask")
	g.Consistently(stopped, "200ms").ShouldNot(Receive())

	close(finish)
	g.Eventually(transfer, waitLimit).Should(Receive(Equal(result{digest: path.Base(blobURL(t, cache.host(), image))})))
	g.Eventually(stopped, waitLimit).Should(Receive(BeNil()))
}

func TestStopServesOnForTheShutdownDelay(t *testing.T) {
	g := NewWithT(t)
	source := newUpstream(t, "", "")
	image := push(t, source, tagName)
	config := newConfig(t, source.URL())
	config.Server.ShutdownDelay.Duration = 3 * time.Second
	cache := startCache(t, config, Options{})
	g.Expect(pull(t, cache.host(), tagName)).To(Succeed())

	began := time.Now()
	stopped := make(chan error, 1)
	go func() { stopped <- cache.stop() }()
	g.Eventually(func() int {
		status, _ := get(t, "http://"+cache.DebugAddr().String()+"/debug/health")
		return status
	}, waitLimit).Should(Equal(http.StatusServiceUnavailable), "who routes to it is told")
	// By a connection of its own, as that of a node that does not know yet.
	http.DefaultTransport.(*http.Transport).CloseIdleConnections()
	g.Expect(download(blobURL(t, cache.host(), image))).To(Equal(path.Base(blobURL(t, cache.host(), image))))
	g.Expect(stopped).NotTo(Receive(), "the delay is not over")

	http.DefaultTransport.(*http.Transport).CloseIdleConnections()
	g.Eventually(stopped, waitLimit).Should(Receive(BeNil()))
	g.Expect(time.Since(began)).To(BeNumerically(">=", config.Server.ShutdownDelay.Duration))
}

func TestStopDoesNotWaitForTheShutdownDelayWhenItFails(t *testing.T) {
	g := NewWithT(t)
	config := newConfig(t, "http://registry.invalid")
	config.Server.ShutdownDelay.Duration = time.Hour
	server, err := New(config, NewLogger(config.Log, io.Discard), Options{})
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(server.registryListener.Close()).To(Succeed())
	failed := make(chan error, 1)
	go func() { failed <- server.Run(t.Context()) }()
	g.Eventually(failed, waitLimit).Should(Receive(HaveOccurred()))
}

func TestStopCutsTransfersAfterTheDrainTimeout(t *testing.T) {
	g := NewWithT(t)
	source := newUpstream(t, "", "")
	image := push(t, source, tagName)
	cache := startCache(t, newConfig(t, source.URL()), Options{DrainTimeout: 50 * time.Millisecond})
	begun, finish := slowBlobs(source)
	transfer := make(chan error, 1)
	go func() { _, err := download(blobURL(t, cache.host(), image)); transfer <- err }()
	g.Eventually(begun, waitLimit).Should(BeClosed())

	g.Expect(cache.stop()).To(Succeed())
	g.Eventually(transfer, waitLimit).Should(Receive(HaveOccurred()))
	close(finish)
}

func TestTLSRotationUnderLoad(t *testing.T) {
	g := NewWithT(t)
	source := newUpstream(t, "", "")
	image := push(t, source, tagName)
	dir := t.TempDir()
	first := writeCertificate(t, dir)
	config := newConfig(t, source.URL())
	config.Server.TLS = &v1alpha1.TLS{CertFile: filepath.Join(dir, "tls.crt"), KeyFile: filepath.Join(dir, "tls.key")}
	cache := startCache(t, config, Options{})
	pool := x509.NewCertPool()
	pool.AddCert(first)

	// fetch makes a connection of its own each time.
	url := strings.Replace(blobURL(t, cache.host(), image), "http:", "https:", 1)
	fetch := func(pool *x509.CertPool) error {
		transport := &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: pool}}
		response, err := (&http.Client{Transport: transport}).Get(url)
		if err != nil {
			return err
		}
		_, err = io.Copy(io.Discard, response.Body)
		_ = response.Body.Close()
		return err
	}
	g.Expect(fetch(pool)).To(Succeed())

	ctx, cancel := context.WithCancel(t.Context())
	var load sync.WaitGroup
	failures := make(chan error, 1000)
	second := newCertificate(t)
	both := x509.NewCertPool()
	both.AddCert(first)
	both.AddCert(second.certificate)
	for range 4 {
		load.Go(func() {
			for ctx.Err() == nil {
				if err := fetch(both); err != nil {
					failures <- err
					return
				}
			}
		})
	}
	second.write(t, dir)
	onlySecond := x509.NewCertPool()
	onlySecond.AddCert(second.certificate)
	g.Eventually(func() error { return fetch(onlySecond) }, waitLimit).Should(Succeed())
	cancel()
	load.Wait()
	g.Expect(failures).To(BeEmpty())

	_, err := tls.Dial("tcp", cache.host(), &tls.Config{RootCAs: both, MaxVersion: tls.VersionTLS11, MinVersion: tls.VersionTLS10})
	g.Expect(err).To(HaveOccurred(), "TLS 1.1")
}

func TestMetrics(t *testing.T) {
	g := NewWithT(t)
	source := newUpstream(t, "", "")
	push(t, source, tagName)
	cache := startCache(t, newConfig(t, source.URL()), Options{Version: "v1.2.3"})

	before := proxyMetrics(t, cache)
	g.Expect(pull(t, cache.host(), tagName)).To(Succeed())
	cache.settle(t)
	cold := proxyMetrics(t, cache)
	g.Expect(pull(t, cache.host(), tagName)).To(Succeed())
	var warm map[string]float64
	g.Eventually(func() float64 {
		// What was sent is counted when it was.
		warm = proxyMetrics(t, cache)
		return warm["registry_proxy_pushed_bytes_total/blob"] - cold["registry_proxy_pushed_bytes_total/blob"]
	}, waitLimit).Should(BeNumerically(">", 300<<10))

	g.Expect(cold["registry_proxy_misses_total/blob"] - before["registry_proxy_misses_total/blob"]).To(BeEquivalentTo(4))
	g.Expect(cold["registry_proxy_misses_total/manifest"] - before["registry_proxy_misses_total/manifest"]).To(BeEquivalentTo(1))
	g.Expect(cold["registry_proxy_pulled_bytes_total/blob"] - before["registry_proxy_pulled_bytes_total/blob"]).To(BeNumerically(">", 300<<10))
	g.Expect(warm["registry_proxy_hits_total/blob"] - cold["registry_proxy_hits_total/blob"]).To(BeEquivalentTo(4))
	g.Expect(warm["registry_proxy_requests_total/blob"] - before["registry_proxy_requests_total/blob"]).To(BeEquivalentTo(8))
	g.Expect(warm["registry_proxy_pulled_bytes_total/blob"]).To(Equal(cold["registry_proxy_pulled_bytes_total/blob"]))

	_, body := get(t, "http://"+cache.DebugAddr().String()+"/metrics")
	g.Expect(body).To(ContainSubstring("go_goroutines"))
	g.Expect(body).To(ContainSubstring("process_resident_memory_bytes"))
	g.Expect(body).To(MatchRegexp(`registry_cache_build_info\{.*upstream="registry.example.com",version="v1.2.3"\} 1`))
}

func proxyMetrics(t *testing.T, cache *cache) map[string]float64 {
	t.Helper()
	g := NewWithT(t)
	status, body := get(t, "http://"+cache.DebugAddr().String()+"/metrics")
	g.Expect(status).To(Equal(http.StatusOK))
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(body))
	g.Expect(err).NotTo(HaveOccurred())
	values := map[string]float64{}
	for _, name := range []string{"requests", "hits", "misses", "pulled_bytes", "pushed_bytes"} {
		name = "registry_proxy_" + name + "_total"
		g.Expect(families).To(HaveKey(name))
		for _, metric := range families[name].GetMetric() {
			g.Expect(metric.GetLabel()).To(HaveLen(1))
			g.Expect(metric.GetLabel()[0].GetName()).To(Equal("type"))
			values[name+"/"+metric.GetLabel()[0].GetValue()] = metric.GetCounter().GetValue()
		}
	}
	g.Expect(values).To(HaveLen(10), "types blob and manifest of each")
	return values
}

func TestHealthFollowsTheStorage(t *testing.T) {
	g := NewWithT(t)
	config := newConfig(t, "http://127.0.0.1:1")
	config.Storage.RootDirectory = filepath.Join(t.TempDir(), "not", "there", "yet")
	cache := startCache(t, config, Options{})
	health := "http://" + cache.DebugAddr().String() + "/debug/health"
	g.Eventually(func() int { status, _ := get(t, health); return status }, waitLimit).Should(Equal(http.StatusOK))
	g.Expect(filepath.Join(config.Storage.RootDirectory, healthFile)).NotTo(BeAnExistingFile(), "the check leaves nothing behind")

	moved := config.Storage.RootDirectory + "-moved"
	g.Expect(os.Rename(config.Storage.RootDirectory, moved)).To(Succeed())
	status, body := get(t, health)
	g.Expect(status).To(Equal(http.StatusOK), "what cannot be stored is streamed through")
	g.Expect(body).To(ContainSubstring("nothing can be stored"))
	_, body = get(t, "http://"+cache.DebugAddr().String()+"/metrics")
	g.Expect(body).To(ContainSubstring("registry_cache_storage_writable 0"))
	g.Expect(os.Rename(moved, config.Storage.RootDirectory)).To(Succeed())
	_, body = get(t, health)
	g.Expect(body).To(Equal("ok\n"))
}

func TestHealthDoesNotWaitForTheStorage(t *testing.T) {
	g := NewWithT(t)
	config := newConfig(t, "http://127.0.0.1:1")
	cache := startCache(t, config, Options{})
	health := "http://" + cache.DebugAddr().String() + "/debug/health"
	g.Eventually(func() int { status, _ := get(t, health); return status }, waitLimit).Should(Equal(http.StatusOK))

	// Who opens a pipe that nobody reads hangs, as a write to a disk may.
	pipe := filepath.Join(config.Storage.RootDirectory, healthFile)
	g.Expect(syscall.Mkfifo(pipe, 0o600)).To(Succeed())
	began := time.Now()
	for range 2 {
		status, body := get(t, health)
		g.Expect(status).To(Equal(http.StatusOK))
		g.Expect(body).To(ContainSubstring("did not answer"))
	}
	g.Expect(time.Since(began)).To(BeNumerically(">=", 2*storagePatience), "each has looked")
	_, body := get(t, "http://"+cache.DebugAddr().String()+"/metrics")
	g.Expect(body).To(ContainSubstring("registry_cache_storage_writable 0"))

	reader, err := os.OpenFile(pipe, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	g.Expect(err).NotTo(HaveOccurred())
	defer func() { _ = reader.Close() }()
	g.Eventually(func() string { _, body := get(t, health); return body }, waitLimit).Should(Equal("ok\n"))
}

func TestDebugServesNothingElse(t *testing.T) {
	cache := startCache(t, newConfig(t, "http://127.0.0.1:1"), Options{})
	for _, path := range []string{"/", "/debug/pprof/", "/debug/vars", "/v2/"} {
		status, _ := get(t, "http://"+cache.DebugAddr().String()+path)
		NewWithT(t).Expect(status).To(Equal(http.StatusNotFound), path)
	}
}

func TestTheListOfImagesIsNotNeeded(t *testing.T) {
	g := NewWithT(t)
	source := newUpstream(t, "", "")
	push(t, source, tagName)
	config := newConfig(t, source.URL())
	config.Debug.InventoryPort = ptr.To[int32](0)
	cache := startCache(t, config, Options{})
	status, _ := get(t, "http://"+cache.InventoryAddr().String()+inventory.Path)
	g.Expect(status).To(Equal(http.StatusOK))

	g.Expect(cache.inventoryListener.Close()).To(Succeed())
	g.Eventually(cache.logs.String, waitLimit).Should(ContainSubstring("Cannot serve the list of images any more"))
	g.Expect(pull(t, cache.host(), tagName)).To(Succeed())
	g.Expect(cache.stop()).To(Succeed())
}

func TestNewRejects(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	t.Cleanup(func() { _ = taken.Close() })
	empty := t.TempDir()
	notAFolder := filepath.Join(empty, "file")
	NewWithT(t).Expect(os.WriteFile(notAFolder, nil, 0o600)).To(Succeed())
	emptyPassword := t.TempDir()
	writeCredentials(t, emptyPassword, "alice", "")
	certificates := t.TempDir()
	writeCertificate(t, certificates)

	for name, test := range map[string]struct {
		change func(*v1alpha1.CacheConfiguration)
		want   string
	}{
		"invalid values, all at once": {
			func(c *v1alpha1.CacheConfiguration) {
				c.RemoteURL, c.Server.Address, c.Log.Level = "ftp://x", "5000", "loud"
			},
			`(?s)remoteURL: .*server.address: .*log.level: `,
		},
		"registry address in use": {
			func(c *v1alpha1.CacheConfiguration) { c.Server.Address = taken.Addr().String() },
			`server.address: listen tcp .*: bind: address already in use`,
		},
		"debug address in use": {
			func(c *v1alpha1.CacheConfiguration) { c.Debug.Address = taken.Addr().String() },
			`debug.address: listen tcp .*: bind: address already in use`,
		},
		"no credentials": {
			func(c *v1alpha1.CacheConfiguration) { c.CredentialsDir = empty },
			`credentialsDir: open .*/username: no such file(.|\n)*/password: no such file`,
		},
		"empty password": {
			func(c *v1alpha1.CacheConfiguration) { c.CredentialsDir = emptyPassword },
			`credentialsDir: .*/password is empty`,
		},
		"no certificate": {
			func(c *v1alpha1.CacheConfiguration) {
				c.Server.TLS = &v1alpha1.TLS{CertFile: "/none/tls.crt", KeyFile: filepath.Join(certificates, "tls.key")}
			},
			`server.tls: open /none/tls.crt: no such file`,
		},
		"certificate as key": {
			func(c *v1alpha1.CacheConfiguration) {
				file := filepath.Join(certificates, "tls.crt")
				c.Server.TLS = &v1alpha1.TLS{CertFile: file, KeyFile: file}
			},
			`server.tls: .*/tls.crt with .*/tls.crt: tls: found a certificate rather than a key`,
		},
		"root directory is a file": {
			func(c *v1alpha1.CacheConfiguration) { c.Storage.RootDirectory = notAFolder },
			`storage.rootDirectory: .*not a directory`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			config := newConfig(t, "https://registry.example.com")
			test.change(config)
			_, err := New(config, NewLogger(config.Log, io.Discard), Options{})
			g.Expect(err).To(MatchError(MatchRegexp(test.want)))
		})
	}
}

func TestDistributionPanicBecomesAnError(t *testing.T) {
	_, err := newApplication("", nil)
	NewWithT(t).Expect(err).To(MatchError(ContainSubstring("configure registry: ")))
}
