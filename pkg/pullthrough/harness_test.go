// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package pullthrough_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
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
	"sync"
	"sync/atomic"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"github.com/opencontainers/go-digest"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/sirupsen/logrus"
	"go.uber.org/goleak"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/gardener/gardener-extension-registry-cache/pkg/apis/config/v1alpha1"
	"github.com/gardener/gardener-extension-registry-cache/pkg/cacheserver"
	"github.com/gardener/gardener-extension-registry-cache/pkg/pullthrough"
	"github.com/gardener/gardener-extension-registry-cache/test/process"
	upstreamtest "github.com/gardener/gardener-extension-registry-cache/test/upstream"
)

func TestMain(m *testing.M) {
	if config := os.Getenv(serverVariable); config != "" {
		os.Exit(serve(config))
	}
	logrus.SetOutput(io.Discard)
	goleak.VerifyTestMain(m,
		// App.Shutdown of distribution does not close its event sink.
		goleak.IgnoreTopFunction("github.com/docker/go-events.(*Broadcaster).run"),
	)
}

const (
	// waitLimit is for what comes at once, except on a machine or a disk that is busy.
	waitLimit = 30 * time.Second

	repositoryName = "library/app"
	manifestType   = "application/vnd.oci.image.manifest.v1+json"
)

// origin is an upstream that does as it is told. What it has is the same in all
// repositories.
type origin struct {
	*httptest.Server

	mu        sync.Mutex
	blobs     map[digest.Digest][]byte
	tags      map[string]digest.Digest
	requests  []*http.Request
	intercept func(w http.ResponseWriter, r *http.Request) (done bool)

	blobBytes atomic.Int64
}

func newOrigin(t *testing.T) *origin {
	t.Helper()
	o := &origin{blobs: map[digest.Digest][]byte{}, tags: map[string]digest.Digest{}}
	o.Server = httptest.NewServer(o)
	// Broken connections are what it is for.
	o.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	t.Cleanup(func() {
		o.CloseClientConnections()
		o.Close()
	})
	return o
}

// add returns the digest of new random content.
func (o *origin) add(size int) digest.Digest {
	content := make([]byte, size)
	_, _ = rand.Read(content)
	return o.put(digest.SHA256, content)
}

func (o *origin) put(algorithm digest.Algorithm, content []byte) digest.Digest {
	o.mu.Lock()
	defer o.mu.Unlock()
	dgst := algorithm.FromBytes(content)
	o.blobs[dgst] = content
	return dgst
}

// tag makes a tag stand for a new manifest.
func (o *origin) tag(name string) digest.Digest {
	manifest := fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"annotations":{"random":%q}}`, manifestType, rand.Text())
	dgst := o.put(digest.SHA256, []byte(manifest))
	o.mu.Lock()
	defer o.mu.Unlock()
	o.tags[name] = dgst
	return dgst
}

// misbehave has a function answer until it is nil again. If it returns false, the
// origin answers after all.
func (o *origin) misbehave(intercept func(w http.ResponseWriter, r *http.Request) (done bool)) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.intercept = intercept
}

// answer has it answer all requests with a status.
func (o *origin) answer(status int, header ...string) {
	o.misbehave(func(w http.ResponseWriter, _ *http.Request) bool {
		for i := 0; i < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		w.WriteHeader(status)
		return true
	})
}

// asked returns the methods and paths of the requests since the last call.
func (o *origin) asked() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	var lines []string
	for _, r := range o.requests {
		lines = append(lines, r.Method+" "+r.URL.Path)
	}
	o.requests = nil
	return lines
}

func (o *origin) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	o.mu.Lock()
	o.requests = append(o.requests, r)
	intercept := o.intercept
	reference := path.Base(r.URL.Path)
	dgst, isTag := o.tags[reference]
	if !isTag {
		dgst = digest.Digest(reference)
	}
	content, found := o.blobs[dgst]
	o.mu.Unlock()

	if intercept != nil && intercept(w, r) {
		return
	}
	if !found {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	if strings.Contains(r.URL.Path, "/manifests/") {
		w.Header().Set("Content-Type", manifestType)
	}
	w.Header().Set("Docker-Content-Digest", dgst.String())
	w.Header().Set("Etag", `"`+dgst.String()+`"`)
	counted := &upstreamtest.CountingWriter{ResponseWriter: w, Bytes: &o.blobBytes}
	http.ServeContent(counted, r, "", time.Time{}, bytes.NewReader(content))
}

// cache is a running cache server.
type cache struct {
	*cacheserver.Server
	root string
	logs *process.Logs
	stop func() error
}

// quick are limits that tests need not wait for.
var quick = pullthrough.Limits{
	Attempts: 5, Backoff: time.Millisecond,
	BreakerBase: 100 * time.Millisecond, EvictionInterval: 20 * time.Millisecond,
}

func newConfig(t *testing.T, remoteURL string) *v1alpha1.CacheConfiguration {
	t.Helper()
	return &v1alpha1.CacheConfiguration{
		Upstream:          "registry.example.com",
		RemoteURL:         remoteURL,
		Storage:           v1alpha1.Storage{RootDirectory: t.TempDir()},
		GarbageCollection: v1alpha1.GarbageCollection{TTL: &metav1.Duration{Duration: time.Hour}},
		Server:            v1alpha1.Server{Address: "127.0.0.1:0"},
		Debug:             v1alpha1.Debug{Address: "127.0.0.1:0"},
		Log:               v1alpha1.Log{Level: v1alpha1.LogLevelDebug},
	}
}

func startCache(t *testing.T, config *v1alpha1.CacheConfiguration, limits pullthrough.Limits) *cache {
	t.Helper()
	g := NewWithT(t)
	out := &process.Logs{}
	server, err := cacheserver.New(config, cacheserver.NewLogger(config.Log, out), cacheserver.Options{
		PollInterval: time.Millisecond, DrainTimeout: 100 * time.Millisecond, Limits: limits,
	})
	g.Expect(err).NotTo(HaveOccurred())
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- server.Run(ctx) }()
	c := &cache{Server: server, root: config.Storage.RootDirectory, logs: out}
	c.stop = sync.OnceValue(func() error {
		cancel()
		return <-done
	})
	t.Cleanup(func() { g.Expect(c.stop()).To(Succeed()) })
	return c
}

// newCache is a cache of an origin, with everything as tests mostly want it.
func newCache(t *testing.T, o *origin) *cache {
	t.Helper()
	return startCache(t, newConfig(t, o.URL), quick)
}

func (c *cache) url(kind, reference string) string { return c.urlIn(repositoryName, kind, reference) }

func (c *cache) urlIn(repository, kind, reference string) string {
	return fmt.Sprintf("http://%s/v2/%s/%s/%s", c.RegistryAddr(), repository, kind, reference)
}

func (c *cache) blobFile(dgst digest.Digest) string {
	return filepath.Join(c.root, "docker/registry/v2/blobs", dgst.Algorithm().String(), dgst.Encoded()[:2], dgst.Encoded(), "data")
}

// stored waits until a blob has its file.
func (c *cache) stored(t *testing.T, dgst digest.Digest) {
	t.Helper()
	NewWithT(t).Eventually(at(c.blobFile(dgst)), waitLimit, "2ms").Should(BeAnExistingFile())
}

// at is for matchers that look at a file again and again.
func at(path string) func() string { return func() string { return path } }

// landed waits until nothing is in flight, so that what is deleted is gone.
func (c *cache) landed(t *testing.T) {
	t.Helper()
	NewWithT(t).Eventually(func() float64 { return c.metric(t, "registry_cache_flights") }, waitLimit, "2ms").Should(BeZero())
}

// metric returns the sum of all series of a metric whose labels have the given
// values.
func (c *cache) metric(t *testing.T, name string, labels ...string) float64 {
	t.Helper()
	g := NewWithT(t)
	answer := get(t, "http://"+c.DebugAddr().String()+"/metrics")
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(bytes.NewReader(answer.body))
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(families).To(HaveKey(name))
	sum := 0.0
	for _, series := range families[name].GetMetric() {
		values := map[string]bool{}
		for _, label := range series.GetLabel() {
			values[label.GetValue()] = true
		}
		matches := true
		for _, label := range labels {
			matches = matches && values[label]
		}
		if matches {
			sum += series.GetCounter().GetValue() + series.GetGauge().GetValue() + float64(series.GetHistogram().GetSampleCount())
		}
	}
	return sum
}

// answer is all of a response.
type answer struct {
	status int
	header http.Header
	body   []byte
	// err is why the body is not complete.
	err error
}

// digest returns what the content is, if all of it came.
func (a answer) digest() string {
	if a.err != nil {
		return "broken: " + a.err.Error()
	}
	return digest.FromBytes(a.body).String()
}

// newClient returns a client whose connections end with the test.
func newClient(t *testing.T) *http.Client {
	t.Helper()
	transport := &http.Transport{TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12}, DisableCompression: true}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

func get(t *testing.T, url string, header ...string) answer {
	t.Helper()
	return do(t, http.MethodGet, url, header...)
}

func do(t *testing.T, method, url string, header ...string) answer {
	t.Helper()
	a, err := try(t.Context(), newClient(t), method, url, header...)
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	return a
}

// try returns an error if there is no answer.
func try(ctx context.Context, client *http.Client, method, url string, header ...string) (answer, error) {
	request, err := http.NewRequestWithContext(ctx, method, url, nil)
	if err != nil {
		return answer{}, err
	}
	for i := 0; i < len(header); i += 2 {
		request.Header.Add(header[i], header[i+1])
	}
	response, err := client.Do(request)
	if err != nil {
		return answer{}, err
	}
	body, err := io.ReadAll(response.Body)
	return answer{status: response.StatusCode, header: response.Header, body: body, err: errors.Join(err, response.Body.Close())}, nil
}

// begun is a response whose body was not read yet.
type begun struct {
	status int
	header http.Header
	// length is -1 if it is not known.
	length int64
	body   io.ReadCloser
}

// open returns a response as soon as its header is there. It ends with the test.
func open(t *testing.T, url string, header ...string) begun {
	t.Helper()
	g := NewWithT(t)
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	g.Expect(err).NotTo(HaveOccurred())
	for i := 0; i < len(header); i += 2 {
		request.Header.Add(header[i], header[i+1])
	}
	response, err := newClient(t).Do(request)
	g.Expect(err).NotTo(HaveOccurred())
	t.Cleanup(func() { _ = response.Body.Close() })
	return begun{response.StatusCode, response.Header, response.ContentLength, response.Body}
}

// gate lets an origin send a blob only as far as it is opened.
type gate struct {
	content []byte
	// chunked leaves out the length.
	chunked bool
	// upTo is how many bytes may be sent.
	upTo chan int
}

func (o *origin) gate(dgst digest.Digest, chunked bool) *gate {
	g := &gate{content: o.blobs[dgst], chunked: chunked, upTo: make(chan int)}
	o.misbehave(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodGet || path.Base(r.URL.Path) != dgst.String() {
			return false
		}
		if !g.chunked {
			w.Header().Set("Content-Length", strconv.Itoa(len(g.content)))
		}
		w.WriteHeader(http.StatusOK)
		sent := 0
		for sent < len(g.content) {
			if http.NewResponseController(w).Flush() != nil {
				return true
			}
			select {
			case limit := <-g.upTo:
				limit = min(limit, len(g.content))
				n, err := w.Write(g.content[sent:limit])
				if sent += n; err != nil {
					return true
				}
			case <-r.Context().Done():
				return true
			}
		}
		return true
	})
	return g
}

// open lets it send so many bytes in all.
func (g *gate) open(t *testing.T, upTo int) {
	t.Helper()
	select {
	case g.upTo <- upTo:
	case <-time.After(waitLimit):
		t.Fatal("nobody asks the origin")
	}
}
