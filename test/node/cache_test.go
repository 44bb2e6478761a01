// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package node_test

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/gardener/gardener-extension-registry-cache/pkg/apis/config/v1alpha1"
	"github.com/gardener/gardener-extension-registry-cache/pkg/hosts"
	"github.com/gardener/gardener-extension-registry-cache/test/process"
)

const cachePort = "5000"

// cache is a cache of cachedName, as the pod runs it.
type cache struct {
	address string
	// ca has signed its certificate.
	ca *authority

	dir, health string
	process     *process.Process
}

// startCache runs a cache at an address until the spec ends.
func startCache(ctx context.Context, address string) *cache {
	GinkgoHelper()
	return startCacheFrom(ctx, address, time.Now().Add(-time.Hour))
}

// startCacheFrom is startCache with a certificate that is not valid before a time.
func startCacheFrom(ctx context.Context, address string, valid time.Time) *cache {
	GinkgoHelper()
	c := &cache{address: address, ca: newAuthority("Shoot"), dir: folder("cache")}
	pair := c.ca.issueFor(valid, time.Now().Add(time.Hour), address)
	Expect(os.WriteFile(c.path("tls.crt"), pair.certificate, 0o600)).To(Succeed())
	Expect(os.WriteFile(c.path("tls.key"), pair.key, 0o600)).To(Succeed())
	ports, err := process.FreePorts(1)
	Expect(err).NotTo(HaveOccurred())
	c.health = net.JoinHostPort("127.0.0.1", strconv.Itoa(ports[0]))
	config, err := v1alpha1.EncodeCacheConfiguration(&v1alpha1.CacheConfiguration{
		Upstream:          cachedName,
		RemoteURL:         "https://" + cachedName,
		Storage:           v1alpha1.Storage{RootDirectory: c.path("storage")},
		GarbageCollection: v1alpha1.GarbageCollection{TTL: &metav1.Duration{Duration: time.Hour}},
		Server: v1alpha1.Server{
			Address: net.JoinHostPort(address, cachePort),
			TLS:     &v1alpha1.TLS{CertFile: c.path("tls.crt"), KeyFile: c.path("tls.key")},
		},
		Debug: v1alpha1.Debug{Address: c.health},
	})
	Expect(err).NotTo(HaveOccurred())
	Expect(os.WriteFile(c.path("config.yaml"), config, 0o600)).To(Succeed())
	c.start(ctx)
	DeferCleanup(c.stop)
	return c
}

func (c *cache) path(name string) string { return filepath.Join(c.dir, name) }

func (c *cache) url() string { return cacheURL(c.address) }

func cacheURL(address string) string { return "https://" + net.JoinHostPort(address, cachePort) }

// start runs the cache on the volume that it has.
func (c *cache) start(ctx context.Context) {
	GinkgoHelper()
	binary, err := process.FindBinary("registry-cache")
	Expect(err).NotTo(HaveOccurred())
	c.process, err = process.New(process.Options{
		Name: "cache-" + c.address, Binary: binary, Args: []string{"--config", c.path("config.yaml")},
		LogDir: logDir(), ReadyURL: "http://" + c.health + "/debug/health",
	})
	Expect(err).NotTo(HaveOccurred())
	Expect(c.process.Start(ctx)).To(Succeed())
}

// stop has connections refused, as those to a Service without endpoints are.
func (c *cache) stop() {
	GinkgoHelper()
	Expect(c.process.Stop()).To(Succeed())
}

// registry is what the webhook makes of the cache.
func (c *cache) registry() hosts.Registry {
	return registryOf(cachedName, cacheHost(c.url(), c.ca))
}

func registryOf(upstream string, all ...hosts.Host) hosts.Registry {
	return hosts.Registry{Upstream: upstream, Server: "https://" + upstream, Hosts: all}
}

func cacheHost(url string, ca *authority) hosts.Host {
	return hosts.Host{Kind: hosts.Cache, URL: url, Capabilities: []string{"pull", "resolve"}, CABundle: ca.pem}
}
