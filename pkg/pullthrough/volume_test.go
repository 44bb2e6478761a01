// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package pullthrough_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/distribution/distribution/v3/configuration"
	"github.com/distribution/distribution/v3/registry/handlers"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	. "github.com/onsi/gomega"
	"github.com/opencontainers/go-digest"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	upstreamtest "github.com/gardener/gardener-extension-registry-cache/test/upstream"
)

// pullAll pulls an index of images and verifies it.
func pullAll(t *testing.T, host, reference string) error {
	t.Helper()
	parsed, err := name.ParseReference(host+"/"+repositoryName+reference, name.Insecure)
	if err != nil {
		return err
	}
	index, err := remote.Index(parsed, remote.WithTransport(newClient(t).Transport))
	if err != nil {
		return err
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		return err
	}
	for _, child := range manifest.Manifests {
		image, err := index.Image(child.Digest)
		if err != nil {
			return err
		}
		if err := upstreamtest.ReadImage(image); err != nil {
			return err
		}
	}
	return nil
}

// pushIndex returns the digest of an index of two images.
func pushIndex(t *testing.T, source *upstreamtest.Registry) string {
	t.Helper()
	g := NewWithT(t)
	index, err := random.Index(50<<10, 2, 2)
	g.Expect(err).NotTo(HaveOccurred())
	reference, err := name.ParseReference(source.Host()+"/"+repositoryName+":v1", name.Insecure)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(remote.WriteIndex(reference, index)).To(Succeed())
	dgst, err := index.Digest()
	g.Expect(err).NotTo(HaveOccurred())
	return dgst.String()
}

func startUpstream(t *testing.T, folder string) *upstreamtest.Registry {
	t.Helper()
	g := NewWithT(t)
	source, err := upstreamtest.Start(folder, "", "")
	g.Expect(err).NotTo(HaveOccurred())
	t.Cleanup(func() { g.Expect(source.Close()).To(Succeed()) })
	return source
}

// startStockProxy starts distribution as a pull-through cache of its own.
func startStockProxy(t *testing.T, root, remoteURL string) (host string, stop func()) {
	t.Helper()
	g := NewWithT(t)
	config := &configuration.Configuration{
		Storage: configuration.Storage{"filesystem": configuration.Parameters{"rootdirectory": root}},
		Proxy:   configuration.Proxy{RemoteURL: remoteURL},
	}
	app := handlers.NewApp(context.Background(), config)
	server := httptest.NewServer(app)
	return server.Listener.Addr().String(), func() {
		server.Close()
		g.Expect(app.Shutdown()).To(Succeed())
	}
}

func TestAVolumeOfStockDistributionIsServed(t *testing.T) {
	g := NewWithT(t)
	source := startUpstream(t, t.TempDir())
	index := pushIndex(t, source)
	config := newConfig(t, source.URL())
	host, stop := startStockProxy(t, config.Storage.RootDirectory, source.URL())
	g.Expect(pullAll(t, host, ":v1")).To(Succeed())
	uploads := filepath.Join(config.Storage.RootDirectory, "docker/registry/v2/repositories", repositoryName, "_uploads")
	g.Eventually(func() ([]string, error) { return filepath.Glob(uploads + "/*") }, waitLimit).Should(BeEmpty(), "all is stored")
	stop()
	// What a proxy leaves that is killed.
	g.Expect(os.MkdirAll(filepath.Join(uploads, "3f1e", "hashstates"), 0o750)).To(Succeed())
	g.Expect(source.Close()).To(Succeed())

	cache := startCache(t, config, quick)
	g.Expect(pullAll(t, cache.RegistryAddr().String(), ":v1")).To(Succeed())
	g.Expect(pullAll(t, cache.RegistryAddr().String(), "@"+index)).To(Succeed())
	g.Expect(cache.metric(t, "registry_proxy_misses_total")).To(BeZero())
	g.Eventually(at(uploads), waitLimit).ShouldNot(BeADirectory())
	g.Expect(cache.metric(t, "registry_cache_store_blobs")).To(BeEquivalentTo(9), "an index, and two of manifest, config and two layers")
}

func TestStockDistributionServesOurVolume(t *testing.T) {
	g := NewWithT(t)
	source := startUpstream(t, t.TempDir())
	index := pushIndex(t, source)
	folder := t.TempDir()
	config := newConfig(t, source.URL())
	config.Storage.RootDirectory = filepath.Join(folder, "content")
	cache := startCache(t, config, quick)
	g.Expect(pullAll(t, cache.RegistryAddr().String(), ":v1")).To(Succeed())
	g.Eventually(func() float64 { return cache.metric(t, "registry_cache_store_blobs") }, waitLimit).Should(BeEquivalentTo(9))
	g.Expect(cache.stop()).To(Succeed())
	g.Expect(source.Close()).To(Succeed())

	// As a registry, which has nowhere to ask.
	stock := startUpstream(t, folder)
	g.Expect(pullAll(t, stock.Host(), ":v1")).To(Succeed())
	g.Expect(pullAll(t, stock.Host(), "@"+index)).To(Succeed())
	g.Expect(stock.Close()).To(Succeed())

	// As a cache, which may need the upstream to begin with.
	source = startUpstream(t, t.TempDir())
	before := source.Counts()
	host, stop := startStockProxy(t, config.Storage.RootDirectory, source.URL())
	defer stop()
	g.Expect(pullAll(t, host, "@"+index)).To(Succeed())
	g.Expect(source.Since(before).Blobs).To(BeZero())
}

func TestContentLeavesByAge(t *testing.T) {
	g := NewWithT(t)
	source := newOrigin(t)
	config := newConfig(t, source.URL)
	config.GarbageCollection.TTL = &metav1.Duration{Duration: time.Hour}
	cache := startCache(t, config, quick)
	old, young, used := source.add(10), source.add(20), source.add(30)
	manifest := source.tag("v1")
	for _, dgst := range []digest.Digest{old, young, used} {
		get(t, cache.url("blobs", dgst.String()))
		cache.stored(t, dgst)
	}
	get(t, cache.url("manifests", "v1"))
	g.Expect(cache.stop()).To(Succeed())

	age := func(dgst digest.Digest, by time.Duration) {
		at := time.Now().Add(-by)
		g.Expect(os.Chtimes(cache.blobFile(dgst), at, at)).To(Succeed())
	}
	age(old, 2*time.Hour)
	age(young, time.Minute)
	age(used, 59*time.Minute)
	age(manifest, 2*time.Hour)
	config.GarbageCollection.TTL = &metav1.Duration{Duration: time.Hour}
	cache = startCache(t, config, quick)
	g.Expect(get(t, cache.url("blobs", used.String())).status).To(Equal(http.StatusOK))
	g.Eventually(at(cache.blobFile(old)), waitLimit).ShouldNot(BeAnExistingFile())
	g.Eventually(at(cache.blobFile(manifest)), waitLimit).ShouldNot(BeAnExistingFile())
	g.Expect(cache.blobFile(young)).To(BeAnExistingFile())
	info, err := os.Stat(cache.blobFile(used))
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(info.ModTime()).To(BeTemporally("~", time.Now(), time.Minute), "its use is kept in the times of its file")
	// An eviction is counted when it is complete, which is after its file is gone.
	g.Eventually(func() float64 { return cache.metric(t, "registry_cache_evictions_total", "ttl") }, waitLimit).Should(BeEquivalentTo(2))
	g.Eventually(func() float64 { return cache.metric(t, "registry_cache_evicted_unused_seconds", "ttl") }, waitLimit).Should(BeEquivalentTo(2))

	// Links that lead nowhere do no harm, and go with the next start.
	repository := filepath.Join(cache.root, "docker/registry/v2/repositories", repositoryName)
	g.Expect(filepath.Join(repository, "_layers/sha256", old.Encoded(), "link")).To(BeAnExistingFile())
	g.Expect(get(t, cache.url("blobs", old.String())).digest()).To(Equal(old.String()))
	cache.stored(t, old)
	g.Expect(cache.stop()).To(Succeed())
	cache = startCache(t, config, quick)
	g.Eventually(at(filepath.Join(repository, "_manifests")), waitLimit).ShouldNot(BeADirectory(), "neither revision nor tag is left")
	g.Expect(filepath.Join(repository, "_layers/sha256", old.Encoded(), "link")).To(BeAnExistingFile())
	g.Expect(get(t, cache.url("manifests", "v1")).digest()).To(Equal(manifest.String()))
}

func TestBlobsInUseAreSafe(t *testing.T) {
	g := NewWithT(t)
	source := newOrigin(t)
	blob := source.add(16 << 20)
	config := newConfig(t, source.URL)
	config.GarbageCollection.TTL = &metav1.Duration{Duration: 100 * time.Millisecond}
	cache := startCache(t, config, quick)
	get(t, cache.url("blobs", blob.String()))
	reading := open(t, cache.url("blobs", blob.String()))
	_, err := io.CopyN(io.Discard, reading.body, 0)
	g.Expect(err).NotTo(HaveOccurred())
	g.Eventually(at(cache.blobFile(blob)), waitLimit).ShouldNot(BeAnExistingFile())
	content, err := io.ReadAll(reading.body)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(digest.FromBytes(content)).To(Equal(blob))
}

func TestOddFilesAreLeftAlone(t *testing.T) {
	g := NewWithT(t)
	source := newOrigin(t)
	config := newConfig(t, source.URL)
	blobs := filepath.Join(config.Storage.RootDirectory, "docker/registry/v2/blobs")
	odd := []string{
		filepath.Join(config.Storage.RootDirectory, "lost+found/#123"),
		filepath.Join(blobs, "README"),
		filepath.Join(blobs, "md5/ab/abcd/data"),
		filepath.Join(blobs, "sha256/ab/not-hex/data"),
		filepath.Join(blobs, "sha256/ab", strings.Repeat("cd", 32), "data"),
		filepath.Join(blobs, "sha256/ef", strings.Repeat("ef", 32), "data", "folder"),
		filepath.Join(config.Storage.RootDirectory, "docker/registry/v2/repositories/a/_manifests/tags/x/current/other"),
		filepath.Join(config.Storage.RootDirectory, "docker/registry/v2/repositories/a/_layers/sha256/short/link"),
	}
	for _, path := range odd {
		g.Expect(os.MkdirAll(filepath.Dir(path), 0o750)).To(Succeed())
		g.Expect(os.WriteFile(path, []byte("odd"), 0o600)).To(Succeed())
	}
	cache := startCache(t, config, quick)
	g.Eventually(cache.logs.String, waitLimit).Should(ContainSubstring(`"Listed the blobs of the volume"`))
	g.Expect(cache.metric(t, "registry_cache_store_blobs")).To(BeZero())
	time.Sleep(3 * quick.EvictionInterval)
	for _, path := range odd[:6] {
		g.Expect(path).To(BeAnExistingFile())
	}
	// A folder in the place of a blob does not keep it from being served.
	source.blobs[digest.NewDigestFromEncoded(digest.SHA256, strings.Repeat("ef", 32))] = nil
	g.Expect(get(t, cache.url("blobs", "sha256:"+strings.Repeat("ef", 32))).status).NotTo(Equal(http.StatusOK))
	blob := source.add(10)
	g.Expect(get(t, cache.url("blobs", blob.String())).digest()).To(Equal(blob.String()))
}

func TestAVolumeThatCannotBeWrittenIsStreamedPast(t *testing.T) {
	// Root may write where nobody else may, but no file into a file.
	g := NewWithT(t)
	source := newOrigin(t)
	blob, manifest := source.add(300_000), source.tag("v1")
	cache := newCache(t, source)
	g.Expect(os.WriteFile(filepath.Join(cache.root, "docker"), nil, 0o600)).To(Succeed())
	g.Expect(os.RemoveAll(filepath.Join(cache.root, "registry-cache"))).To(Succeed())
	g.Expect(os.WriteFile(filepath.Join(cache.root, "registry-cache"), nil, 0o600)).To(Succeed())
	for range 2 {
		g.Expect(get(t, cache.url("blobs", blob.String())).digest()).To(Equal(blob.String()))
		g.Expect(get(t, cache.url("manifests", "v1")).digest()).To(Equal(manifest.String()))
	}
	content := source.blobs[blob]
	part := get(t, cache.url("blobs", blob.String()), "Range", "bytes=1000-1999")
	g.Expect(part.status).To(Equal(http.StatusPartialContent))
	g.Expect(part.body).To(Equal(content[1000:2000]))
	missing := get(t, cache.url("blobs", digest.FromString("none").String()))
	g.Expect(missing.status).To(Equal(http.StatusNotFound))
}

func TestFilesThatCannotBeTheBlobAreFetchedAnew(t *testing.T) {
	g := NewWithT(t)
	source := newOrigin(t)
	cache := newCache(t, source)
	for name, spoil := range map[string]func(file string) error{
		"empty, as after a crash of the machine": func(file string) error { return os.Truncate(file, 0) },
		"a folder": func(file string) error {
			return errors.Join(os.Remove(file), os.Mkdir(file, 0o750))
		},
	} {
		blob := source.add(1000)
		get(t, cache.url("blobs", blob.String()))
		cache.landed(t)
		g.Expect(spoil(cache.blobFile(blob))).To(Succeed(), name)
		g.Expect(get(t, cache.url("blobs", blob.String())).digest()).To(Equal(blob.String()), name)
	}
}

func TestTimesOfAccessCount(t *testing.T) {
	g := NewWithT(t)
	source := newOrigin(t)
	config := newConfig(t, source.URL)
	cache := startCache(t, config, quick)
	read, unread := source.add(10), source.add(20)
	old := time.Now().Add(-2 * time.Hour)
	for dgst, access := range map[digest.Digest]time.Time{read: time.Now(), unread: old} {
		get(t, cache.url("blobs", dgst.String()))
		cache.stored(t, dgst)
		g.Expect(os.Chtimes(cache.blobFile(dgst), access, old)).To(Succeed())
	}
	g.Expect(cache.stop()).To(Succeed())
	cache = startCache(t, config, quick)
	g.Eventually(at(cache.blobFile(unread)), waitLimit).ShouldNot(BeAnExistingFile())
	g.Expect(cache.blobFile(read)).To(BeAnExistingFile(), "stock distribution leaves no other sign of use")
}
