// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package cacheserver

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	containerregistry "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	. "github.com/onsi/gomega"
	"github.com/sirupsen/logrus"
	"go.uber.org/goleak"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/gardener/gardener-extension-registry-cache/pkg/apis/config/v1alpha1"
	"github.com/gardener/gardener-extension-registry-cache/test/process"
	upstreamtest "github.com/gardener/gardener-extension-registry-cache/test/upstream"
)

func TestMain(m *testing.M) {
	// Upstreams log as caches do; the first is there before the first cache.
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
	tagName        = "v1"
)

// newUpstream returns a registry that wants credentials if username is not
// empty.
func newUpstream(t *testing.T, username, password string) *upstreamtest.Registry {
	t.Helper()
	g := NewWithT(t)
	source, err := upstreamtest.Start(t.TempDir(), username, password)
	g.Expect(err).NotTo(HaveOccurred())
	t.Cleanup(func() { g.Expect(source.Close()).To(Succeed()) })
	return source
}

// push returns a random image of three layers after pushing it.
func push(t *testing.T, source *upstreamtest.Registry, tag string, options ...remote.Option) containerregistry.Image {
	t.Helper()
	g := NewWithT(t)
	image, err := random.Image(100<<10, 3)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(remote.Write(imageReference(t, source.Host(), tag), image, options...)).To(Succeed())
	return image
}

func imageReference(t *testing.T, host, tag string) name.Reference {
	t.Helper()
	separator := ":"
	if strings.HasPrefix(tag, "sha256:") {
		separator = "@"
	}
	ref, err := name.ParseReference(host+"/"+repositoryName+separator+tag, name.Insecure)
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	return ref
}

// cache is a running Server.
type cache struct {
	*Server
	logs *process.Logs
	// stop ends the Server, and returns what Run does.
	stop func() error
}

func (c *cache) host() string { return c.RegistryAddr().String() }

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

func startCache(t *testing.T, config *v1alpha1.CacheConfiguration, options Options) *cache {
	t.Helper()
	g := NewWithT(t)
	if options.PollInterval == 0 {
		options.PollInterval = 20 * time.Millisecond
	}
	out := &process.Logs{}
	server, err := New(config, NewLogger(config.Log, out), options)
	g.Expect(err).NotTo(HaveOccurred())

	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- server.Run(ctx) }()
	c := &cache{Server: server, logs: out}
	c.stop = sync.OnceValue(func() error {
		cancel()
		return <-done
	})
	t.Cleanup(func() {
		// Connections without a request yet would be waited for.
		http.DefaultTransport.(*http.Transport).CloseIdleConnections()
		g.Expect(c.stop()).To(Succeed())
		http.DefaultTransport.(*http.Transport).CloseIdleConnections()
	})
	return c
}

// pull pulls all of an image, as containerd does: each blob once. What it gets
// is verified by its digest.
func pull(t *testing.T, host, tag string) error {
	t.Helper()
	client := newClient(t)
	image, err := remote.Image(imageReference(t, host, tag), remote.WithTransport(client.Transport))
	if err != nil {
		return err
	}
	return upstreamtest.ReadImage(image)
}

// settle waits until what was pulled is stored, which may be after clients have
// all of it.
func (c *cache) settle(t *testing.T) {
	t.Helper()
	g := NewWithT(t)
	spool := filepath.Join(c.health.rootDirectory, "registry-cache/spool/*")
	g.Eventually(func() ([]string, error) { return filepath.Glob(spool) }, waitLimit).Should(BeEmpty())
}

func basic(username, password string) remote.Option {
	return remote.WithAuth(&authn.Basic{Username: username, Password: password})
}

// newClient returns a client whose connections end with the test.
func newClient(t *testing.T) *http.Client {
	t.Helper()
	transport := http.DefaultTransport.(*http.Transport).Clone()
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

// get returns status and body.
func get(t *testing.T, url string) (int, string) {
	t.Helper()
	return do(t, http.MethodGet, url)
}

func do(t *testing.T, method, url string) (int, string) {
	t.Helper()
	g := NewWithT(t)
	request, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	g.Expect(err).NotTo(HaveOccurred())
	response, err := newClient(t).Do(request)
	g.Expect(err).NotTo(HaveOccurred())
	body, err := io.ReadAll(response.Body)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(response.Body.Close()).To(Succeed())
	return response.StatusCode, string(body)
}

func blobURL(t *testing.T, host string, image containerregistry.Image) string {
	t.Helper()
	g := NewWithT(t)
	layers, err := image.Layers()
	g.Expect(err).NotTo(HaveOccurred())
	digest, err := layers[0].Digest()
	g.Expect(err).NotTo(HaveOccurred())
	return fmt.Sprintf("http://%s/v2/%s/blobs/%s", host, repositoryName, digest)
}
