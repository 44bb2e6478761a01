// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package pullthrough_test

import (
	"encoding/json"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"github.com/opencontainers/go-digest"
	"k8s.io/utils/ptr"

	"github.com/gardener/gardener-extension-registry-cache/pkg/apis/inventory"
)

func TestInventory(t *testing.T) {
	g := NewWithT(t)
	source := startUpstream(t, t.TempDir())
	index := pushIndex(t, source)
	config := newConfig(t, source.URL())
	config.Debug.InventoryPort = ptr.To[int32](0)
	cache := startCache(t, config, quick)
	url := "http://" + cache.InventoryAddr().String() + inventory.Path
	g.Expect(url).To(HavePrefix("http://127.0.0.1:"), "nobody but who is in the pod")
	g.Expect(imagesAt(t, url).Images).To(BeEmpty())

	g.Expect(pullAll(t, cache.RegistryAddr().String(), ":v1")).To(Succeed())
	cache.landed(t)
	listed := imagesAt(t, url)
	g.Expect(listed.Truncated).To(BeFalse())
	g.Expect(listed.Images).To(HaveLen(1), "what the index refers to is part of it: %v", listed.Images)
	found := listed.Images[0]
	g.Expect(found.Repository).To(Equal(repositoryName))
	g.Expect(found.Tags).To(Equal([]string{"v1"}))
	g.Expect(found.Digest).To(Equal(index))
	g.Expect(found.Blobs).To(Equal(9), "an index, and two of manifest, config and two layers")
	g.Expect(found.Missing).To(BeZero())
	g.Expect(float64(found.Bytes)).To(Equal(cache.metric(t, "registry_cache_store_bytes")))
	g.Expect(found.LastUsed).To(BeTemporally("~", time.Now(), time.Minute))

	g.Expect(imagesAt(t, url+"?repository="+repositoryName).Images).To(HaveLen(1))
	g.Expect(imagesAt(t, url+"?repository=library/other").Images).To(BeEmpty())

	// A manifest that the list reads is not used by that.
	manifest := cache.blobFile(digest.Digest(index))
	before := time.Now().Add(-100 * time.Hour).Truncate(time.Second)
	g.Expect(os.Chtimes(manifest, before, before)).To(Succeed())
	imagesAt(t, url)
	info, err := os.Stat(manifest)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(info.Sys().(*syscall.Stat_t).Atim.Sec).To(Equal(before.Unix()))

	// A layer that left the volume.
	var layer string
	blobs, err := filepath.Glob(filepath.Join(config.Storage.RootDirectory, "docker/registry/v2/blobs/sha256/*/*/data"))
	g.Expect(err).NotTo(HaveOccurred())
	for _, blob := range blobs {
		if content, err := os.ReadFile(blob); err == nil && !strings.HasPrefix(string(content), "{") {
			layer = blob
		}
	}
	g.Expect(os.Remove(layer)).To(Succeed())
	found = imagesAt(t, url).Images[0]
	g.Expect([]int{found.Blobs, found.Missing}).To(Equal([]int{8, 1}))

	for _, address := range []net.Addr{cache.RegistryAddr(), cache.DebugAddr()} {
		g.Expect(get(t, "http://"+address.String()+inventory.Path).status).To(Equal(http.StatusNotFound), "no port that others reach has it")
	}
}

func imagesAt(t *testing.T, url string) *inventory.Inventory {
	t.Helper()
	answer := get(t, url)
	found := &inventory.Inventory{}
	NewWithT(t).Expect(answer.status).To(Equal(http.StatusOK), string(answer.body))
	NewWithT(t).Expect(json.Unmarshal(answer.body, found)).To(Succeed())
	return found
}
