// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package cacheserver

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestExpiry(t *testing.T) {
	for name, test := range map[string]struct {
		ttl     time.Duration
		expires bool
	}{
		"short ttl": {500 * time.Millisecond, true},
		"no ttl":    {0, false},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			source := newUpstream(t, "", "")
			image := push(t, source, tagName)
			config := newConfig(t, source.URL())
			config.GarbageCollection.TTL = &metav1.Duration{Duration: test.ttl}
			cache := startCache(t, config, Options{})
			g.Expect(pull(t, cache.host(), tagName)).To(Succeed())

			layers, err := image.Layers()
			g.Expect(err).NotTo(HaveOccurred())
			digest, err := layers[0].Digest()
			g.Expect(err).NotTo(HaveOccurred())
			data := filepath.Join(config.Storage.RootDirectory, "docker/registry/v2/blobs/sha256", digest.Hex[:2], digest.Hex, "data")
			if !test.expires {
				g.Consistently(func() string { return data }, "1s").Should(BeAnExistingFile())
				g.Expect(cache.stop()).To(Succeed())
				g.Expect(filepath.Join(config.Storage.RootDirectory, expiryStateFile)).NotTo(BeAnExistingFile())
				return
			}
			g.Eventually(func() string { return data }, "5s").ShouldNot(BeAnExistingFile())
			g.Expect(pull(t, cache.host(), tagName)).To(Succeed(), "expired content is pulled anew")
		})
	}
}

func TestExpiryCountsFromTheLastUse(t *testing.T) {
	g := NewWithT(t)
	source := newUpstream(t, "", "")
	image := push(t, source, tagName)
	config := newConfig(t, source.URL())
	config.GarbageCollection.TTL = &metav1.Duration{Duration: 2 * time.Second}
	cache := startCache(t, config, Options{})
	g.Expect(pull(t, cache.host(), tagName)).To(Succeed())
	cache.settle(t)
	before := source.Counts()

	g.Consistently(func() int64 {
		status, _ := get(t, blobURL(t, cache.host(), image))
		g.Expect(status).To(Equal(200))
		return source.Since(before).Blobs
	}, "4s", "100ms").Should(BeZero(), "a blob in use stays")
}

func TestExpiryTimesSurviveARestart(t *testing.T) {
	g := NewWithT(t)
	source := newUpstream(t, "", "")
	push(t, source, tagName)
	config := newConfig(t, source.URL())
	first := startCache(t, config, Options{})
	g.Expect(pull(t, first.host(), tagName)).To(Succeed())
	g.Expect(first.stop()).To(Succeed())

	state := filepath.Join(config.Storage.RootDirectory, expiryStateFile)
	times, err := os.ReadFile(state)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(string(times)).To(ContainSubstring(repositoryName + "@sha256:"))
	second := startCache(t, config, Options{})
	g.Expect(second.stop()).To(Succeed())
	g.Expect(os.ReadFile(state)).To(MatchJSON(times))
}

func TestBrokenExpiryTimesAreDropped(t *testing.T) {
	for _, content := range []string{"", "{", `["a"]`} {
		g := NewWithT(t)
		source := newUpstream(t, "", "")
		push(t, source, tagName)
		config := newConfig(t, source.URL())
		g.Expect(os.WriteFile(filepath.Join(config.Storage.RootDirectory, expiryStateFile), []byte(content), 0o600)).To(Succeed())
		cache := startCache(t, config, Options{})
		g.Expect(pull(t, cache.host(), tagName)).To(Succeed())
		g.Expect(cache.logs.lines("Dropping expiry times")).To(HaveLen(1))
	}
}
