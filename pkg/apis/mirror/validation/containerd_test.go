// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package validation_test

import (
	"bytes"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"testing"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	containerdconfig "github.com/containerd/containerd/v2/core/remotes/docker/config"
	. "github.com/onsi/gomega"

	"github.com/gardener/gardener-extension-registry-cache/pkg/apis/mirror/v1alpha1"
	"github.com/gardener/gardener-extension-registry-cache/pkg/apis/mirror/validation"
	"github.com/gardener/gardener-extension-registry-cache/pkg/hosts"
)

// FuzzContainerdAgrees looks for two mirrors of an upstream that are valid, but
// not for package hosts, or not for containerd.
func FuzzContainerdAgrees(f *testing.F) {
	for _, seed := range []struct {
		first, second   string
		override, other bool
	}{
		{"https://mirror.example.com", "https://mirror.example.com/a//b/%C3%BC%20c/", false, true},
		{"https://a.io/v2", "HTTPS://A.io:443/x/../", true, false},
		{"http://[2001:DB8::1]:80/a@b/ü/'\\|^`{}", "http://my_mirror:5000/%25/%3F/%2e%2e", false, false},
		{"https://user:secret@a.io?b#c", "https://a.io/v2/v2", true, true},
	} {
		f.Add(seed.first, seed.second, seed.override, seed.other)
	}
	f.Fuzz(func(t *testing.T, first, second string, override, other bool) {
		mirrors := []v1alpha1.MirrorHost{{Host: first, OverridePath: &override}, {Host: second, OverridePath: &other}}
		if errs := validation.ValidateMirrorConfig(upstreams(v1alpha1.MirrorConfiguration{Upstream: "docker.io", Hosts: mirrors}), nil); len(errs) > 0 {
			return
		}
		g := NewWithT(t)
		var registry hosts.Registry
		for _, mirror := range mirrors {
			registry.Hosts = append(registry.Hosts, hosts.Host{Kind: hosts.Mirror, URL: mirror.Host, OverridePath: mirror.OverridePath})
		}
		registry.Upstream = "docker.io"
		registryHosts := loadByContainerd(t, g, registry)
		g.Expect(len(registryHosts)).To(BeElementOf(2, 3), "one mirror, if the second is the same with slashes at its end, or two, and the upstream")

		for _, host := range registryHosts[:len(registryHosts)-1] {
			// As in containerd's core/remotes/docker/resolver.go.
			requestPath := path.Join("/", host.Path, "library/alpine", "manifests", "latest")
			request, err := http.NewRequest(http.MethodGet, host.Scheme+"://"+host.Host+requestPath, nil)
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(request.URL.Path).To(Equal(requestPath))
			g.Expect(request.URL.String()).NotTo(ContainSubstring("?"))
		}
	})
}

// loadByContainerd has containerd's own code read the hosts.toml that a node
// makes of a registry.
func loadByContainerd(t *testing.T, g *WithT, registry hosts.Registry) []docker.RegistryHost {
	files, err := hosts.Files([]hosts.Registry{registry})
	g.Expect(err).NotTo(HaveOccurred())
	var hostsTOML bytes.Buffer
	for _, file := range files {
		if filepath.Ext(file.Path) == ".toml" {
			hostsTOML.Write(file.Content)
		}
	}
	root := t.TempDir()
	directory := filepath.Join(root, registry.Upstream)
	g.Expect(os.Mkdir(directory, 0o755)).To(Succeed())
	g.Expect(os.WriteFile(filepath.Join(directory, "hosts.toml"), hostsTOML.Bytes(), 0o600)).To(Succeed())

	registryHosts, err := containerdconfig.ConfigureHosts(t.Context(), containerdconfig.HostOptions{HostDir: containerdconfig.HostDirFromRoot(root)})(registry.Upstream)
	g.Expect(err).NotTo(HaveOccurred())
	return registryHosts
}
