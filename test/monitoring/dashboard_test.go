// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package monitoring_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	. "github.com/onsi/gomega"
	"github.com/onsi/gomega/gexec"
	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/gardener/gardener-extension-registry-cache/pkg/apis/config/v1alpha1"
	"github.com/gardener/gardener-extension-registry-cache/test/process"
	upstreamtest "github.com/gardener/gardener-extension-registry-cache/test/upstream"
)

const (
	// imageSize is that of the layers of an image.
	imageSize = 3 << 20
	// nodes pull at one time.
	nodes = 5
	// hubPulls and otherPulls are how many times an image was pulled in the end.
	hubPulls, otherPulls = nodes + 15, nodes
	// blobs of an image.
	blobs = 4
)

// dashboardPanel is what matters of a panel here.
type dashboardPanel struct {
	Type, Title string
	Targets     []struct{ Expr, LegendFormat string }
	Yaxes       []struct{ Format string }
}

// TestDashboard has two caches work, and Prometheus watch: each query of the
// dashboard has an answer then, and what it says is what they did.
func TestDashboard(t *testing.T) {
	g := NewWithT(t)
	binary, err := gexec.Build("github.com/gardener/gardener-extension-registry-cache/cmd/registry-cache")
	g.Expect(err).NotTo(HaveOccurred())
	t.Cleanup(gexec.CleanupBuildArtifacts)
	hub, other := newUpstream(t), newUpstream(t)
	limited := func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
			w.Header().Set("Ratelimit-Remaining", "76;w=21600")
			if strings.Contains(request.URL.Path, "/blobs/") {
				time.Sleep(3 * time.Second) // in which Prometheus sees who waits
			}
			next.ServeHTTP(w, request)
		})
	}
	push(t, hub)
	push(t, other)
	hub.Intercept(limited)
	hubCache := startCache(t, binary, hub.URL(), "docker.io", time.Hour)
	otherCache := startCache(t, binary, other.URL(), "registry.example.com:5000", time.Second)
	watcher := startPrometheus(t, map[string]string{
		"registry-docker-io-0":                 hubCache.debug,
		"registry-registry-example-com-5000-0": otherCache.debug,
		"coredns-0":                            hubCache.debug, // not to be scraped
	})
	began := time.Now()
	expectTargets(t, watcher)

	pullByAll(t, hubCache, nodes)
	pullByAll(t, otherCache, nodes)
	fetched := hub.Counts().BlobBytes
	for range 3 {
		pullByAll(t, hubCache, nodes)
	}
	// By now the ttl of the other cache is over, and it has looked for what to evict.
	g.Eventually(func() ([]sample, error) {
		return watcher.query(t.Context(), `registry_cache_evictions_total{reason="ttl",upstream_host="registry.example.com-5000"} > 0`)
	}, time.Minute, time.Second).ShouldNot(BeEmpty())
	// What is known of the tag is no longer fresh either.
	hub.Intercept(func(http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) })
	})
	g.Eventually(func() ([]sample, error) {
		resolve(t, hubCache)
		return watcher.query(t.Context(), `registry_cache_stale_tags_total{upstream_host="docker.io"} > 1`)
	}, time.Minute, 2*time.Second).ShouldNot(BeEmpty())
	time.Sleep(3 * time.Second) // for the last values to be scraped

	expectEachPanelHasData(t, watcher)
	expectPlausible(t, watcher, fetched)
	expectRules(t, watcher)
	if *update {
		drawDashboard(t, watcher, began, time.Now())
	}
}

func expectTargets(t *testing.T, watcher *prometheus) {
	t.Helper()
	NewWithT(t).Eventually(func(g Gomega) {
		samples, err := watcher.query(t.Context(), "up")
		g.Expect(err).NotTo(HaveOccurred())
		var seen []map[string]string
		for _, s := range samples {
			g.Expect(s.value).To(BeEquivalentTo(1))
			delete(s.labels, "__name__")
			seen = append(seen, s.labels)
		}
		common := map[string]string{"job": "registry-cache", "instance": "kube-apiserver:443", "node": "node"}
		with := func(upstreamHost, pod string) map[string]string {
			labels := map[string]string{"upstream_host": upstreamHost, "pod": pod}
			for key, value := range common {
				labels[key] = value
			}
			return labels
		}
		g.Expect(seen).To(ConsistOf(
			with("docker.io", "registry-docker-io-0"),
			with("registry.example.com-5000", "registry-registry-example-com-5000-0"),
		))
	}, time.Minute, time.Second).Should(Succeed())
}

func expectEachPanelHasData(t *testing.T, watcher *prometheus) {
	t.Helper()
	g := NewWithT(t)
	for _, panel := range panels(t) {
		g.Expect(panel.Targets).NotTo(BeEmpty(), panel.Title)
		for _, target := range panel.Targets {
			samples, err := watcher.query(t.Context(), chosen(target.Expr))
			g.Expect(err).NotTo(HaveOccurred(), panel.Title)
			g.Expect(samples).NotTo(BeEmpty(), "%s: %s", panel.Title, target.Expr)
			for _, s := range samples {
				g.Expect(s.labels).To(Or(HaveKey("upstream_host"), HaveKey("pod")), panel.Title)
				for _, label := range legendLabel.FindAllStringSubmatch(target.LegendFormat, -1) {
					g.Expect(s.labels).To(HaveKey(label[1]), "%s: %s", panel.Title, target.LegendFormat)
				}
			}
			t.Logf("%-50s %2d lines", panel.Title, len(samples))
		}
	}
}

// expectPlausible compares what the dashboard says with what was done.
func expectPlausible(t *testing.T, watcher *prometheus, fetched int64) {
	t.Helper()
	g := NewWithT(t)
	value := func(title string, query int, labels string) float64 {
		t.Helper()
		for _, panel := range panels(t) {
			if panel.Title != title {
				continue
			}
			samples, err := watcher.query(t.Context(), chosen(panel.Targets[query].Expr))
			g.Expect(err).NotTo(HaveOccurred())
			for _, s := range samples {
				if strings.Contains(s.labels["upstream_host"]+" "+s.labels["type"]+s.labels["code"]+s.labels["reason"]+s.labels["result"]+s.labels["cache"], labels) {
					return s.value
				}
			}
		}
		t.Fatalf("panel %s has no line %s", title, labels)
		return 0
	}
	g.Expect(fetched).To(BeNumerically("~", imageSize, 100_000), "from the upstream once")
	g.Expect(value("Hit ratio of layers", 0, "docker.io")).To(BeNumerically("~", float64(hubPulls-1)/hubPulls, 0.02))
	g.Expect(value("Hit ratio of layers", 0, "registry.example.com")).To(BeNumerically("~", float64(otherPulls-1)/otherPulls, 0.02))
	g.Expect(value("Traffic saved in a day", 0, "docker.io")).To(BeNumerically("~", (hubPulls-1)*imageSize, 0.1*hubPulls*imageSize))
	g.Expect(value("Traffic saved in a day", 0, "registry.example.com")).To(BeNumerically("~", (otherPulls-1)*imageSize, 0.1*otherPulls*imageSize))
	g.Expect(value("Time to the first byte, 95th percentile", 0, "docker.io miss")).To(BeNumerically("~", 3.5, 1.6), "the upstream takes 3 seconds")
	g.Expect(value("Time to the first byte, median", 0, "docker.io hit")).To(BeNumerically("<", 0.5))
	g.Expect(value("Store and volume", 0, "docker.io")).To(BeNumerically("~", imageSize, 100_000))
	g.Expect(value("Store and volume", 0, "registry.example.com")).To(BeZero(), "all was evicted")
	g.Expect(value("Store and volume", 2, "docker.io")).To(BeNumerically(">", value("Store and volume", 1, "docker.io")))
	g.Expect(value("Evictions", 0, "registry.example.com-5000 ttl")).To(BeNumerically(">", 0))
	g.Expect(value("Evictions", 0, "docker.io ttl")).To(BeZero())
	g.Expect(value("Unused before eviction", 0, "registry.example.com-5000 ttl")).To(BeNumerically("<", 60))
	g.Expect(value("Pulls left by the rate limit", 0, "docker.io")).To(BeEquivalentTo(76))
	g.Expect(value("Answers of the upstream", 0, "docker.io 502")).To(BeNumerically(">", 0))
	g.Expect(value("Answers of the upstream", 0, "registry.example.com-5000 200")).To(BeNumerically(">", 0), "the first of its kind counts")
	g.Expect(value("Time to the first byte, median", 0, "registry.example.com-5000 miss")).To(BeNumerically("<", 1))
	g.Expect(value("Left alone, and stale tags", 1, "docker.io")).To(BeNumerically(">", 0))
	g.Expect(value("Validity of certificates", 0, "docker.io")).To(BeNumerically("~", 3600, 300))
	g.Expect(value("Pods that answer", 0, "docker.io")).To(BeEquivalentTo(1))

	for query, expected := range map[string]float64{
		`max_over_time(registry_cache_flights{upstream_host="docker.io"}[5m])`:   1,
		`max_over_time(registry_cache_followers{upstream_host="docker.io"}[5m])`: 1,
	} {
		samples, err := watcher.query(t.Context(), query)
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(samples).To(HaveLen(1))
		g.Expect(samples[0].value).To(BeNumerically(">=", expected), query)
	}
	samples, err := watcher.query(t.Context(), `registry_cache_stored_blob_bytes_bucket or go_goroutines`)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(samples).To(BeEmpty(), "what nothing needs is not kept")
}

func expectRules(t *testing.T, watcher *prometheus) {
	t.Helper()
	g := NewWithT(t)
	samples, err := watcher.query(t.Context(), "shoot:registry_proxy_pushed_bytes_total:sum")
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(samples).To(HaveLen(2))
	samples, err = watcher.query(t.Context(), `ALERTS{alertstate="firing"}`)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(samples).To(BeEmpty())
	samples, err = watcher.query(t.Context(), `ALERTS{alertstate="pending"}`)
	g.Expect(err).NotTo(HaveOccurred())
	var pending []string
	for _, s := range samples {
		pending = append(pending, s.labels["alertname"]+" "+s.labels["upstream_host"])
	}
	g.Expect(pending).To(ConsistOf(
		"RegistryCacheServesStale docker.io",
		"RegistryCacheCertificateExpires docker.io", "RegistryCacheCertificateExpires registry.example.com-5000", // those of the test
	))
}

func panels(t *testing.T) []dashboardPanel {
	t.Helper()
	g := NewWithT(t)
	var dashboard struct{ Panels []dashboardPanel }
	g.Expect(json.Unmarshal([]byte(objects(t)[2].(*corev1.ConfigMap).Data["registry-cache-dashboard.json"]), &dashboard)).To(Succeed())
	var all []dashboardPanel
	for _, panel := range dashboard.Panels {
		if panel.Type != "row" {
			all = append(all, panel)
		}
	}
	g.Expect(len(all)).To(BeNumerically(">", 15))
	return all
}

// chosen is a query after a person has chosen all caches.
func chosen(expr string) string {
	return strings.ReplaceAll(expr, "$upstream", ".+")
}

// runningCache is a cache server that runs.
type runningCache struct{ address, debug string }

func startCache(t *testing.T, binary, remoteURL, upstreamHost string, ttl time.Duration) runningCache {
	t.Helper()
	g := NewWithT(t)
	dir := t.TempDir()
	ports, err := process.FreePorts(2)
	g.Expect(err).NotTo(HaveOccurred())
	cache := runningCache{
		address: net.JoinHostPort("127.0.0.1", strconv.Itoa(ports[0])),
		debug:   net.JoinHostPort("127.0.0.1", strconv.Itoa(ports[1])),
	}
	writeCertificate(t, dir)
	config, err := v1alpha1.EncodeCacheConfiguration(&v1alpha1.CacheConfiguration{
		Upstream: upstreamHost, RemoteURL: remoteURL,
		Storage:           v1alpha1.Storage{RootDirectory: filepath.Join(dir, "storage")},
		GarbageCollection: v1alpha1.GarbageCollection{TTL: &metav1.Duration{Duration: ttl}},
		Server:            v1alpha1.Server{Address: cache.address, TLS: &v1alpha1.TLS{CertFile: filepath.Join(dir, "tls.crt"), KeyFile: filepath.Join(dir, "tls.key")}},
		Debug:             v1alpha1.Debug{Address: cache.debug},
	})
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(os.WriteFile(filepath.Join(dir, "config.yaml"), config, 0o600)).To(Succeed())
	server, err := process.New(process.Options{
		Name: "registry-cache", Binary: binary, Args: []string{"--config", filepath.Join(dir, "config.yaml")},
		LogDir: dir, ReadyURL: "http://" + cache.debug + "/debug/health",
	})
	g.Expect(err).NotTo(HaveOccurred())
	t.Cleanup(func() { g.Expect(server.Stop()).To(Succeed()) })
	g.Expect(server.Start(t.Context())).To(Succeed())
	return cache
}

// writeCertificate writes one that is valid for an hour.
func writeCertificate(t *testing.T, dir string) {
	t.Helper()
	g := NewWithT(t)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	g.Expect(err).NotTo(HaveOccurred())
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	certificate, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	g.Expect(err).NotTo(HaveOccurred())
	encodedKey, err := x509.MarshalPKCS8PrivateKey(key)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(os.WriteFile(filepath.Join(dir, "tls.crt"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate}), 0o600)).To(Succeed())
	g.Expect(os.WriteFile(filepath.Join(dir, "tls.key"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: encodedKey}), 0o600)).To(Succeed())
}

func newUpstream(t *testing.T) *upstreamtest.Registry {
	t.Helper()
	g := NewWithT(t)
	registry, err := upstreamtest.Start(t.TempDir(), "", "")
	g.Expect(err).NotTo(HaveOccurred())
	t.Cleanup(func() { g.Expect(registry.Close()).To(Succeed()) })
	return registry
}

func push(t *testing.T, registry *upstreamtest.Registry) {
	t.Helper()
	g := NewWithT(t)
	image, err := random.Image(imageSize/(blobs-1), blobs-1)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(remote.Write(reference(t, registry.Host(), name.Insecure), image)).To(Succeed())
}

func reference(t *testing.T, host string, options ...name.Option) name.Reference {
	t.Helper()
	ref, err := name.ParseReference(host+"/library/app:v1", options...)
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	return ref
}

// pullByAll pulls the image from a cache as so many nodes at one time.
func pullByAll(t *testing.T, cache runningCache, count int) {
	t.Helper()
	var group errgroup.Group
	for range count {
		group.Go(func() error {
			image, err := remote.Image(reference(t, cache.address), remote.WithTransport(transport(t)))
			if err != nil {
				return err
			}
			return upstreamtest.ReadImage(image)
		})
	}
	NewWithT(t).Expect(group.Wait()).To(Succeed())
}

// resolve asks a cache for the image's tag.
func resolve(t *testing.T, cache runningCache) {
	t.Helper()
	_, err := remote.Head(reference(t, cache.address), remote.WithTransport(transport(t)))
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
}

func transport(t *testing.T) http.RoundTripper {
	t.Helper()
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.TLSClientConfig = &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS12}
	t.Cleanup(transport.CloseIdleConnections)
	return transport
}
