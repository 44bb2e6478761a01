// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package pullthrough_test

import (
	"bytes"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"github.com/opencontainers/go-digest"
)

// flip changes a byte in the middle of a stored blob, and returns what it is then.
func (c *cache) flip(t *testing.T, dgst digest.Digest) digest.Digest {
	t.Helper()
	g := NewWithT(t)
	content, err := os.ReadFile(c.blobFile(dgst))
	g.Expect(err).NotTo(HaveOccurred())
	content[len(content)/2] ^= 1
	g.Expect(os.WriteFile(c.blobFile(dgst), content, 0o600)).To(Succeed())
	return digest.FromBytes(content)
}

// pull returns the answer to a request for a blob when the cache has done all that
// belongs to it, which may be after the client has all of it.
func (c *cache) pull(t *testing.T, dgst digest.Digest, header ...string) answer {
	t.Helper()
	requests := func() int { return strings.Count(c.logs.String(), `"msg":"Request"`) }
	before := requests()
	got := get(t, c.url("blobs", dgst.String()), header...)
	NewWithT(t).Eventually(requests, waitLimit, "2ms").Should(BeNumerically(">", before))
	return got
}

// isRight waits until the volume has a blob as it is to be.
func (c *cache) isRight(t *testing.T, dgst digest.Digest) {
	t.Helper()
	NewWithT(t).Eventually(func() (digest.Digest, error) {
		content, err := os.ReadFile(c.blobFile(dgst))
		return digest.FromBytes(content), err
	}, waitLimit, "2ms").Should(Equal(dgst))
}

func TestAClientThatAsksAgainGetsWhatIsRight(t *testing.T) {
	for name, ask := range map[string][]string{
		"all":                  nil,
		"from the first byte":  {"Range", "bytes=0-"},
		"if it has none of it": {"Range", "bytes=0-299999", "If-Range", `"other"`},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			source := newOrigin(t)
			blob := source.add(300_000)
			cache := newCache(t, source)
			cache.pull(t, blob)
			cache.landed(t)
			wrong := cache.flip(t, blob)
			source.asked()

			g.Expect(cache.pull(t, blob, ask...).digest()).To(Equal(wrong.String()), "it has not asked for what is stored before")
			g.Expect(source.asked()).To(BeEmpty())
			g.Expect(cache.pull(t, blob, ask...).digest()).To(Equal(blob.String()))
			g.Expect(source.asked()).To(HaveLen(1))
			g.Expect(cache.metric(t, "registry_cache_digest_mismatches_total", "blob")).To(BeEquivalentTo(1))
			g.Expect(cache.metric(t, "registry_cache_evictions_total", "corrupt")).To(BeEquivalentTo(1))
			g.Expect(cache.logs.String()).To(MatchRegexp(`"level":"ERROR","msg":"Dropped a blob whose file is not that of its digest",.*"repository":"library/app","digest":"` + blob.String()))
			cache.landed(t)
			cache.isRight(t, blob)
			g.Expect(cache.metric(t, "registry_cache_store_blobs")).To(BeEquivalentTo(1))
			g.Expect(cache.metric(t, "registry_cache_store_bytes")).To(BeEquivalentTo(300_000))

			g.Expect(cache.pull(t, blob, ask...).digest()).To(Equal(blob.String()))
			g.Expect(source.asked()).To(BeEmpty(), "what was fetched is stored")
		})
	}
}

func TestABlobThatIsCutIsFetchedAnew(t *testing.T) {
	g := NewWithT(t)
	source := newOrigin(t)
	blob := source.add(300_000)
	cache := newCache(t, source)
	cache.pull(t, blob)
	cache.landed(t)
	g.Expect(os.Truncate(cache.blobFile(blob), 100_000)).To(Succeed())
	g.Expect(cache.pull(t, blob).body).To(HaveLen(100_000), "the manifest tells the client that this is not all")
	g.Expect(cache.pull(t, blob).digest()).To(Equal(blob.String()))
}

func TestWhatIsRightIsHashedOnce(t *testing.T) {
	g := NewWithT(t)
	source := newOrigin(t)
	blob := source.add(300_000)
	cache := newCache(t, source)
	for range 3 {
		// From the upstream; from the volume; from the volume, which is hashed.
		g.Expect(cache.pull(t, blob).digest()).To(Equal(blob.String()))
		cache.landed(t)
	}
	g.Expect(source.asked()).To(HaveLen(1))
	g.Expect(cache.metric(t, "registry_proxy_hits_total", "blob")).To(BeEquivalentTo(2))
	g.Expect(cache.metric(t, "registry_cache_digest_mismatches_total", "blob")).To(BeZero())

	// Nothing else tells whether there was a hash.
	wrong := cache.flip(t, blob)
	for range 3 {
		g.Expect(cache.pull(t, blob).digest()).To(Equal(wrong.String()), "it is not hashed at each pull")
	}
	g.Expect(source.asked()).To(BeEmpty())
}

func TestWhatWasRightIsHashedAgainLater(t *testing.T) {
	g := NewWithT(t)
	source := newOrigin(t)
	blob := source.add(300_000)
	limits := quick
	limits.Remember = time.Second
	cache := startCache(t, newConfig(t, source.URL), limits)
	for range 3 {
		cache.pull(t, blob)
		cache.landed(t)
	}
	cache.flip(t, blob)
	g.Eventually(func() string { return cache.pull(t, blob).digest() }, waitLimit, "100ms").Should(Equal(blob.String()))
	g.Expect(cache.metric(t, "registry_cache_digest_mismatches_total", "blob")).To(BeEquivalentTo(1))
}

func TestNobodyElseHasABlobHashed(t *testing.T) {
	g := NewWithT(t)
	source := newOrigin(t)
	blob := source.add(300_000)
	cache := newCache(t, source)
	cache.pull(t, blob)
	cache.landed(t)
	wrong := cache.flip(t, blob)
	other := newClient(t)
	other.Transport.(*http.Transport).DialContext = (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}).DialContext //nolint:forcetypeassert // it is what newClient makes

	for range 2 {
		part := cache.pull(t, blob, "Range", "bytes=0-299998")
		g.Expect(part.status).To(Equal(http.StatusPartialContent))
		g.Expect(bytes.Equal(part.body, source.blobs[blob][:299_999])).To(BeFalse(), "who has read a part only cannot know")
	}
	g.Expect(cache.pull(t, blob).digest()).To(Equal(wrong.String()))
	for range 2 {
		g.Expect(cache.pull(t, blob, "Range", "bytes=299000-").status).To(Equal(http.StatusPartialContent), "who goes on has not found it wrong")
		g.Expect(do(t, http.MethodHead, cache.url("blobs", blob.String())).status).To(Equal(http.StatusOK))
	}
	answer, err := try(t.Context(), other, http.MethodGet, cache.url("blobs", blob.String()))
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(answer.digest()).To(Equal(wrong.String()), "it asks for the first time")
	g.Expect(cache.metric(t, "registry_cache_digest_mismatches_total", "blob")).To(BeZero())

	g.Expect(cache.pull(t, blob).digest()).To(Equal(blob.String()))
	answer, err = try(t.Context(), other, http.MethodGet, cache.url("blobs", blob.String()))
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(answer.digest()).To(Equal(blob.String()))
}

func TestNobodyWaitsLongForAHash(t *testing.T) {
	g := NewWithT(t)
	source := newOrigin(t)
	blob := source.add(64 << 20)
	limits := quick
	limits.Recheck = time.Nanosecond
	cache := startCache(t, newConfig(t, source.URL), limits)
	cache.pull(t, blob)
	cache.landed(t)
	wrong := cache.flip(t, blob)
	for range 2 {
		g.Expect(cache.pull(t, blob).digest()).To(Equal(wrong.String()))
	}
	g.Eventually(func() float64 { return cache.metric(t, "registry_cache_digest_mismatches_total", "blob") }, waitLimit).Should(BeEquivalentTo(1))
	g.Expect(cache.pull(t, blob).digest()).To(Equal(blob.String()))
	g.Expect(cache.logs.String()).NotTo(ContainSubstring("Cannot recheck"))
}

func TestAHashEndsWithTheCache(t *testing.T) {
	g := NewWithT(t)
	source := newOrigin(t)
	blob := source.add(64 << 20)
	limits := quick
	limits.Recheck = time.Nanosecond
	cache := startCache(t, newConfig(t, source.URL), limits)
	for range 3 {
		cache.pull(t, blob)
		cache.landed(t)
	}
	g.Expect(cache.stop()).To(Succeed())
}

func TestManyAskAgainAtATime(t *testing.T) {
	g := NewWithT(t)
	source := newOrigin(t)
	limits := quick
	limits.Recheck = waitLimit
	cache := startCache(t, newConfig(t, source.URL), limits)
	var blobs []digest.Digest
	for range 5 {
		blob := source.add(1 << 20)
		blobs = append(blobs, blob)
		cache.pull(t, blob)
		cache.landed(t)
		cache.flip(t, blob)
		cache.pull(t, blob)
	}
	client := newClient(t)
	source.asked()
	var clients sync.WaitGroup
	for i := range 50 {
		clients.Go(func() {
			blob := blobs[i%len(blobs)]
			answer, err := try(t.Context(), client, http.MethodGet, cache.url("blobs", blob.String()))
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(answer.digest()).To(Equal(blob.String()))
		})
	}
	clients.Wait()
	g.Expect(cache.metric(t, "registry_cache_digest_mismatches_total", "blob")).To(BeEquivalentTo(len(blobs)))
	g.Expect(source.asked()).To(HaveLen(len(blobs)))
}

func TestABlobThatIsWrongAndNowhereElse(t *testing.T) {
	g := NewWithT(t)
	source := newOrigin(t)
	blob := source.add(300_000)
	cache := newCache(t, source)
	cache.pull(t, blob)
	cache.landed(t)
	cache.flip(t, blob)
	cache.pull(t, blob)
	source.answer(http.StatusBadGateway)
	g.Expect(cache.pull(t, blob).status).To(BeNumerically(">=", http.StatusInternalServerError), "the client asks the upstream itself")
}
