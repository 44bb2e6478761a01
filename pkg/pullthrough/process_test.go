// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package pullthrough_test

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	mathrand "math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"github.com/opencontainers/go-digest"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/gardener/gardener-extension-registry-cache/pkg/apis/config/v1alpha1"
	"github.com/gardener/gardener-extension-registry-cache/pkg/cacheserver"
	"github.com/gardener/gardener-extension-registry-cache/pkg/pullthrough"
)

const (
	// serverVariable names the configuration of a cache that the test program is
	// to be, in place of running tests.
	serverVariable = "PULLTHROUGH_TEST_SERVER"
	// namespaceVariable says that the test program is in a mount namespace of its
	// own.
	namespaceVariable = "PULLTHROUGH_TEST_NAMESPACE"
)

// serve is the cache as a process that can be killed. It prints its address.
func serve(configFile string) int {
	raw, err := os.ReadFile(configFile)
	if err != nil {
		return 1
	}
	config, err := v1alpha1.DecodeCacheConfiguration(raw)
	if err != nil {
		return 1
	}
	server, err := cacheserver.New(config, slog.New(slog.DiscardHandler), cacheserver.Options{Limits: quick})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	fmt.Println(server.RegistryAddr())
	if server.Run(context.Background()) != nil {
		return 1
	}
	return 0
}

// startProcess returns a cache process, and its address.
func startProcess(t *testing.T, config *v1alpha1.CacheConfiguration) (command *exec.Cmd, address string) {
	t.Helper()
	g := NewWithT(t)
	raw, err := v1alpha1.EncodeCacheConfiguration(config)
	g.Expect(err).NotTo(HaveOccurred())
	file := filepath.Join(t.TempDir(), "config.yaml")
	g.Expect(os.WriteFile(file, raw, 0o600)).To(Succeed())
	command = exec.Command(os.Args[0])
	command.Env = append(os.Environ(), serverVariable+"="+file)
	command.Stderr = os.Stderr
	// It ends with the tests, however they do.
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := command.StdoutPipe()
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(command.Start()).To(Succeed())
	address, err = bufio.NewReader(out).ReadString('\n')
	g.Expect(err).NotTo(HaveOccurred())
	return command, strings.TrimSpace(address)
}

// storedBlobs returns the digests of all blobs that have a file.
func storedBlobs(t *testing.T, root string) map[digest.Digest]string {
	t.Helper()
	found := map[digest.Digest]string{}
	err := filepath.WalkDir(filepath.Join(root, "docker/registry/v2/blobs"), func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.Name() == "data" {
			found[digest.NewDigestFromEncoded(digest.SHA256, filepath.Base(filepath.Dir(path)))] = path
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	})
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	return found
}

func TestKilledUnderLoad(t *testing.T) {
	const kills = 50
	g := NewWithT(t)
	source := newOrigin(t)
	var all []digest.Digest
	for range 40 {
		all = append(all, source.add(200_000+mathrand.IntN(1<<20)))
	}
	for i := range 5 {
		source.tag(fmt.Sprintf("v%d", i))
	}
	config := newConfig(t, source.URL)
	config.GarbageCollection.TTL = &metav1.Duration{}
	client := newClient(t)

	committed := map[digest.Digest]string{}
	for range kills {
		process, address := startProcess(t, config)
		ctx, stop := context.WithCancel(t.Context())
		var load sync.WaitGroup
		for range 4 {
			load.Go(func() {
				for ctx.Err() == nil {
					dgst := all[mathrand.IntN(len(all))]
					got, err := try(ctx, client, http.MethodGet, "http://"+address+"/v2/library/app/blobs/"+dgst.String())
					if err == nil && got.err == nil && got.status == http.StatusOK && digest.FromBytes(got.body) != dgst {
						t.Errorf("%s is complete and wrong", dgst)
					}
					_, _ = try(ctx, client, http.MethodGet, fmt.Sprintf("http://%s/v2/library/app/manifests/v%d", address, mathrand.IntN(5)))
				}
			})
		}
		time.Sleep(time.Duration(mathrand.IntN(100)) * time.Millisecond)
		g.Expect(process.Process.Kill()).To(Succeed())
		_ = process.Wait() // it was killed
		stop()
		load.Wait()

		now := storedBlobs(t, config.Storage.RootDirectory)
		for dgst, file := range committed {
			g.Expect(now).To(HaveKeyWithValue(dgst, file), "lost")
		}
		for dgst, file := range now {
			if _, ok := committed[dgst]; !ok {
				content, err := os.ReadFile(file)
				g.Expect(err).NotTo(HaveOccurred())
				g.Expect(digest.FromBytes(content)).To(Equal(dgst), "stored and wrong")
			}
		}
		committed = now
	}
	g.Expect(len(committed)).To(BeNumerically(">", 5))

	cache := startCache(t, config, quick)
	g.Expect(filepath.Glob(filepath.Join(cache.root, "registry-cache/*/*"))).To(BeEmpty(), "spools and temporary files")
	source.asked()
	for dgst := range committed {
		for _, kind := range []string{"blobs", "manifests"} {
			if kind == "manifests" && len(source.blobs[dgst]) > 1000 {
				continue
			}
			g.Expect(get(t, cache.url(kind, dgst.String())).digest()).To(Equal(dgst.String()))
		}
	}
	for _, line := range source.asked() {
		g.Expect(line).NotTo(ContainSubstring("/blobs/"))
	}
}

// inMountNamespace runs the calling test in a process that may mount what it
// likes, and returns false in all others.
func inMountNamespace(t *testing.T) bool {
	t.Helper()
	g := NewWithT(t)
	if os.Getenv(namespaceVariable) != "" {
		g.Expect(syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, "")).To(Succeed())
		return true
	}
	command := exec.CommandContext(t.Context(), os.Args[0], "-test.run", "^"+t.Name()+"$", "-test.v")
	command.Env = append(os.Environ(), namespaceVariable+"=1")
	command.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	if os.Geteuid() != 0 {
		command.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		command.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		command.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	out, err := command.CombinedOutput()
	if errors.Is(err, fs.ErrPermission) && os.Geteuid() != 0 && os.Getenv("REQUIRE_CLUSTER") == "" {
		t.Skipf("only root may make namespaces here: %s", err)
	}
	g.Expect(err).NotTo(HaveOccurred(), string(out))
	return false
}

// mountVolume returns the folder of a file system of some size.
func mountVolume(t *testing.T, options string) string {
	t.Helper()
	g := NewWithT(t)
	folder := t.TempDir()
	g.Expect(syscall.Mount("tmpfs", folder, "tmpfs", 0, options)).To(Succeed())
	t.Cleanup(func() { g.Expect(syscall.Unmount(folder, syscall.MNT_DETACH)).To(Succeed()) })
	return folder
}

// fill leaves so many bytes of a file system.
func fill(t *testing.T, folder string, leave int64) {
	t.Helper()
	g := NewWithT(t)
	file, err := os.Create(filepath.Join(folder, "filler"))
	g.Expect(err).NotTo(HaveOccurred())
	_, err = io.Copy(file, rand.Reader)
	g.Expect(err).To(MatchError(syscall.ENOSPC))
	info, err := file.Stat()
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(file.Truncate(max(0, info.Size()-leave))).To(Succeed())
	g.Expect(file.Close()).To(Succeed())
}

func TestFullVolume(t *testing.T) {
	if !inMountNamespace(t) {
		return
	}
	const size = 300_000
	page := int64(os.Getpagesize())
	for pages := int64(0); pages < size/page+20; pages += 3 {
		for _, chunked := range []bool{false, true} {
			g := NewWithT(t)
			source := newOrigin(t)
			blob, manifest := source.add(size), source.tag("v1")
			if chunked {
				content := source.blobs[blob]
				source.misbehave(func(w http.ResponseWriter, r *http.Request) bool {
					if !isBlob(r) || r.Header.Get("Range") != "" {
						return false
					}
					_, _ = w.Write(content[:1])
					_ = http.NewResponseController(w).Flush()
					_, _ = w.Write(content[1:])
					return true
				})
			}
			config := newConfig(t, source.URL)
			config.Storage.RootDirectory = mountVolume(t, "size=4m")
			cache := startCache(t, config, quick)
			fill(t, cache.root, pages*page)

			results := make(chan string, 3)
			for range cap(results) {
				go func() { results <- get(t, cache.url("blobs", blob.String())).digest() }()
			}
			for range cap(results) {
				g.Expect(<-results).To(Equal(blob.String()), "%d pages are left", pages)
			}
			g.Expect(get(t, cache.url("manifests", "v1")).digest()).To(Equal(manifest.String()), "%d pages are left", pages)
			g.Expect(get(t, "http://"+cache.DebugAddr().String()+"/debug/health").status).To(Equal(http.StatusOK))
			for dgst, file := range storedBlobs(t, cache.root) {
				content, err := os.ReadFile(file)
				g.Expect(err).NotTo(HaveOccurred())
				g.Expect(digest.FromBytes(content)).To(Equal(dgst), "%d pages are left", pages)
			}
			g.Expect(os.Remove(filepath.Join(cache.root, "filler"))).To(Succeed())
			g.Eventually(func() string {
				g.Expect(get(t, cache.url("blobs", blob.String())).digest()).To(Equal(blob.String()))
				return cache.blobFile(blob)
			}, waitLimit).Should(BeAnExistingFile(), "once there is room")
			g.Expect(cache.stop()).To(Succeed())
		}
	}
}

func TestWrongContentOnAFullVolumeIsNeverComplete(t *testing.T) {
	if !inMountNamespace(t) {
		return
	}
	const size = 300_000
	for name, garbage := range map[string]int{"of the same size": size, "larger": 2 * size, "smaller": size / 2} {
		for _, pages := range []int64{0, 3, 20} {
			g := NewWithT(t)
			source := newOrigin(t)
			blob := source.add(size)
			content := source.blobs[blob]
			asked := 0
			// The first answer is right, so the volume is what ends it.
			source.misbehave(func(w http.ResponseWriter, r *http.Request) bool {
				if asked++; asked == 1 && pages > 0 {
					return false
				}
				wrong := make([]byte, garbage)
				copy(wrong, content[:size/4])
				_, _ = w.Write(wrong)
				return true
			})
			config := newConfig(t, source.URL)
			config.Storage.RootDirectory = mountVolume(t, "size=4m")
			cache := startCache(t, config, quick)
			fill(t, cache.root, pages*int64(os.Getpagesize()))
			got := get(t, cache.url("blobs", blob.String()))
			g.Expect(got.err).To(HaveOccurred(), "%s: %d bytes, with %d pages left", name, len(got.body), pages)
			g.Expect(cache.blobFile(blob)).NotTo(BeAnExistingFile())
			g.Expect(cache.stop()).To(Succeed())
		}
	}
}

func TestABlobThatCannotFitEvictsNothing(t *testing.T) {
	if !inMountNamespace(t) {
		return
	}
	g := NewWithT(t)
	source := newOrigin(t)
	config := newConfig(t, source.URL)
	config.Storage.RootDirectory = mountVolume(t, "size=4m")
	cache := startCache(t, config, quick)
	small, large := source.add(500_000), source.add(6<<20)
	for _, dgst := range []digest.Digest{small, large, large} {
		g.Expect(get(t, cache.url("blobs", dgst.String())).digest()).To(Equal(dgst.String()))
	}
	g.Expect(cache.blobFile(small)).To(BeAnExistingFile())
	g.Expect(cache.metric(t, "registry_cache_evictions_total")).To(BeZero())
	g.Expect(source.asked()).To(HaveLen(3), "one request each")
	g.Expect(cache.stop()).To(Succeed())
}

func TestAFullVolumeIsNoReasonNotToStart(t *testing.T) {
	if !inMountNamespace(t) {
		return
	}
	g := NewWithT(t)
	source := newOrigin(t)
	blob := source.add(100_000)
	manifest := source.tag("v1")
	config := newConfig(t, source.URL)
	config.Storage.RootDirectory = mountVolume(t, "size=4m,nr_inodes=2")
	fill(t, config.Storage.RootDirectory, 0)
	cache := startCache(t, config, quick)
	g.Expect(get(t, cache.url("blobs", blob.String())).digest()).To(Equal(blob.String()))
	g.Expect(get(t, cache.url("manifests", "v1")).digest()).To(Equal(manifest.String()))
	g.Expect(cache.stop()).To(Succeed())
}

func TestEvictionMakesRoom(t *testing.T) {
	if !inMountNamespace(t) {
		return
	}
	for name, test := range map[string]struct {
		options string
		limits  pullthrough.Limits
		reason  string
	}{
		// Nobody looks at the watermarks in time.
		"when it is full": {"size=4m", pullthrough.Limits{EvictionInterval: time.Hour}, "full"},
		"by watermark":    {"size=8m", quick, "watermark"},
		"by files":        {"size=64m,nr_inodes=100", quick, "watermark"},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			source := newOrigin(t)
			config := newConfig(t, source.URL)
			config.Storage.RootDirectory = mountVolume(t, test.options)
			config.GarbageCollection.TTL = &metav1.Duration{}
			if test.reason == "full" {
				high := int32(100)
				config.GarbageCollection.HighWatermark = &high
			}
			cache := startCache(t, config, test.limits)
			favourite := source.add(500_000)
			var last digest.Digest
			for range 30 {
				last = source.add(500_000)
				for _, dgst := range []digest.Digest{favourite, last} {
					g.Expect(get(t, cache.url("blobs", dgst.String())).digest()).To(Equal(dgst.String()))
				}
				if test.reason == "watermark" {
					// It may be served and not stored before eviction has kept up.
					g.Eventually(func() string { get(t, cache.url("blobs", last.String())); return cache.blobFile(last) }, waitLimit).Should(BeAnExistingFile())
				}
			}
			cache.stored(t, last)
			g.Expect(cache.blobFile(favourite)).To(BeAnExistingFile(), "it was used all the time")
			g.Expect(cache.metric(t, "registry_cache_evictions_total", test.reason)).To(BeNumerically(">", 5))
			g.Eventually(func(g Gomega) {
				g.Expect(cache.metric(t, "registry_cache_evicted_unused_seconds", test.reason)).To(Equal(cache.metric(t, "registry_cache_evictions_total", test.reason)))
			}, waitLimit).Should(Succeed())
			size, used := cache.metric(t, "registry_cache_volume_bytes"), cache.metric(t, "registry_cache_volume_used_bytes")
			g.Expect(size).To(BeElementOf(float64(4<<20), float64(8<<20), float64(64<<20)))
			g.Expect(used).To(And(BeNumerically(">=", cache.metric(t, "registry_cache_store_bytes")), BeNumerically("<=", size)))
			if test.reason == "watermark" {
				g.Expect(cache.logs.String()).To(ContainSubstring("Evicted the blobs that were not used"))
				g.Eventually(func() int { return usedPercent(t, cache.root) }, waitLimit).Should(BeNumerically("<=", 90))
			}
			g.Expect(cache.stop()).To(Succeed())
		})
	}
}

func usedPercent(t *testing.T, folder string) int {
	t.Helper()
	var stat syscall.Statfs_t
	NewWithT(t).Expect(syscall.Statfs(folder, &stat)).To(Succeed())
	return int(100 * (stat.Blocks - stat.Bfree) / stat.Blocks)
}
