// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package hosts

import (
	"context"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/containerd/v2/core/remotes/docker/config"
	. "github.com/onsi/gomega"
	"go.uber.org/goleak"

	"github.com/gardener/gardener-extension-registry-cache/pkg/upstream"
)

var update = flag.Bool("update", false, "write the golden files instead of comparing with them")

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m)
}

// goldenRegistries has every variant of a fragment once.
func goldenRegistries(t *testing.T) []Registry {
	t.Helper()
	bundle, err := os.ReadFile(filepath.Join("testdata", "bundle.crt"))
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	yes, no := true, false
	return []Registry{
		{
			Upstream: "docker.io",
			Server:   "https://registry-1.docker.io/",
			Hosts: []Host{
				{Kind: Cache, URL: "https://10.4.246.205:5000", Capabilities: []string{"resolve", "pull"}, CABundle: bundle},
				{Kind: Mirror, URL: "https://mirror.example.com/", Capabilities: []string{"pull"}},
				{Kind: Mirror, URL: "https://harbor.example.com/v2/docker-hub/", Capabilities: []string{"pull", "resolve"}, CABundle: bundle, OverridePath: &yes},
			},
		},
		{
			Upstream: "myhost:5000",
			Server:   "http://myhost:5000/some/path",
			Hosts: []Host{
				{Kind: Cache, URL: "http://[fd00::1]:5000", Capabilities: []string{"pull", "resolve"}, CABundle: bundle},
				{Kind: Mirror, URL: "http://127.0.0.1:8080/a/v2", OverridePath: &no},
			},
		},
		{Upstream: "bare.example.com"},
	}
}

func TestFilesAreGolden(t *testing.T) {
	g := NewWithT(t)
	files, err := Files(goldenRegistries(t))
	g.Expect(err).NotTo(HaveOccurred())

	root := filepath.Join("testdata", "node")
	got := map[string]string{}
	for _, file := range files {
		g.Expect(file.Mode).To(Equal(uint32(0o644)))
		if file.Path == Directory+"/registry-hosts.sh" {
			g.Expect(file.Content).To(Equal(script))
			continue
		}
		got[filepath.Join(root, file.Path)] = string(file.Content)
	}
	if *update {
		for name, content := range got {
			g.Expect(os.MkdirAll(filepath.Dir(name), 0o755)).To(Succeed())
			g.Expect(os.WriteFile(name, []byte(content), 0o600)).To(Succeed())
		}
	}

	want := map[string]string{}
	g.Expect(filepath.WalkDir(root, func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		content, err := os.ReadFile(name)
		want[name] = string(content)
		return err
	})).To(Succeed())
	g.Expect(got).To(Equal(want))
}

func TestFilesAreDeterministic(t *testing.T) {
	g := NewWithT(t)
	registries := goldenRegistries(t)
	want, err := Files(registries)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(slices.IsSortedFunc(want, func(a, b File) int { return strings.Compare(a.Path, b.Path) })).To(BeTrue())

	for range 20 {
		slices.Reverse(registries)
		got, err := Files(registries)
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(got).To(Equal(want))
	}
}

func TestFilesLeaveInputAlone(t *testing.T) {
	g := NewWithT(t)
	registries := goldenRegistries(t)
	_, err := Files(registries)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(registries).To(Equal(goldenRegistries(t)))
}

func TestRepeatedHostCountsOnce(t *testing.T) {
	g := NewWithT(t)
	files, err := Files([]Registry{{Upstream: "ghcr.io", Hosts: []Host{
		{Kind: Mirror, URL: "https://a.example.com", Capabilities: []string{"pull"}},
		{Kind: Mirror, URL: "https://a.example.com/", Capabilities: []string{"resolve"}},
		{Kind: Mirror, URL: "https://b.example.com"},
	}}})
	g.Expect(err).NotTo(HaveOccurred())
	paths := []string{}
	for _, file := range files {
		paths = append(paths, strings.TrimPrefix(file.Path, Directory))
	}
	g.Expect(paths).To(Equal([]string{
		"/ghcr.io/00-server.toml", "/ghcr.io/20-mirror-01.toml", "/ghcr.io/20-mirror-02.toml", "/registry-hosts.sh",
	}))
	g.Expect(string(files[1].Content)).To(ContainSubstring("capabilities = ['pull']"))
}

func TestFilesWithoutRegistries(t *testing.T) {
	g := NewWithT(t)
	files, err := Files(nil)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(files).To(HaveLen(1))
}

func TestScriptAndFragmentsAgreeOnTheMarker(t *testing.T) {
	NewWithT(t).Expect(string(script)).To(ContainSubstring("\nmarker='" + strings.TrimSuffix(marker, "\n") + "'\n"))
}

func TestFilesErrors(t *testing.T) {
	manyMirrors := make([]Host, 100)
	for i := range manyMirrors {
		manyMirrors[i] = Host{Kind: Mirror, URL: fmt.Sprintf("https://m%d.example.com", i)}
	}
	host := func(hosts ...Host) Registry { return Registry{Upstream: "docker.io", Hosts: hosts} }
	for name, test := range map[string]struct {
		registries []Registry
		want       string
	}{
		"same upstream twice":       {[]Registry{host(), host()}, "twice"},
		"no upstream":               {[]Registry{{}}, "host name"},
		"upstream leaves directory": {[]Registry{{Upstream: ".."}}, "host name"},
		"upstream with slash":       {[]Registry{{Upstream: "a/b"}}, "host name"},
		"upstream with line feed":   {[]Registry{{Upstream: "a\n"}}, "host name"},
		"upstream too long":         {[]Registry{{Upstream: strings.Repeat("a", 256)}}, "longer"},
		"upstream is the script":    {[]Registry{{Upstream: "registry-hosts.sh"}}, "reserved"},
		"server without scheme":     {[]Registry{{Upstream: "a", Server: "b"}}, "server: not an http"},
		"host without scheme":       {[]Registry{host(Host{URL: "b:1"})}, "host 1: not an http"},
		"host without host":         {[]Registry{host(Host{URL: "https:///x"})}, "no host"},
		"host with query":           {[]Registry{host(Host{URL: "https://b?c"})}, "query"},
		"host with quote":           {[]Registry{host(Host{URL: `https://b"c`})}, "host 1: "},
		"host with line feed":       {[]Registry{host(Host{URL: "https://b/\n"})}, "not a URL"},
		"cache after mirror":        {[]Registry{host(Host{Kind: Mirror, URL: "https://a"}, Host{URL: "https://b"})}, "only the first"},
		"two caches":                {[]Registry{host(Host{URL: "https://a"}, Host{URL: "https://b"})}, "only the first"},
		"too many mirrors":          {[]Registry{host(manyMirrors...)}, "99"},
		"capability":                {[]Registry{host(Host{URL: "https://a", Capabilities: []string{"fly"}})}, `"fly"`},
		"bundle":                    {[]Registry{host(Host{URL: "https://a", CABundle: []byte("x")})}, "no certificate"},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			files, err := Files(test.registries)
			g.Expect(err).To(MatchError(ContainSubstring(test.want)))
			g.Expect(files).To(BeNil())
		})
	}
}

func TestErrorsDoNotTellPasswords(t *testing.T) {
	for _, hostURL := range []string{"https://user:secret@a", "https://user:secret@a\n", "ftp://user:secret@a"} {
		g := NewWithT(t)
		_, err := Files([]Registry{{Upstream: "a", Hosts: []Host{{URL: hostURL}}}})
		g.Expect(err).To(HaveOccurred())
		g.Expect(err.Error()).NotTo(ContainSubstring("secret"))
		_, err = Files([]Registry{{Upstream: "a", Server: hostURL}})
		g.Expect(err).To(HaveOccurred())
		g.Expect(err.Error()).NotTo(ContainSubstring("secret"))
	}
}

// parse writes the fragments of an upstream into containerd's layout, as the
// script does if all hosts answer, and returns what containerd makes of it.
func parse(t *testing.T, upstream string, registries ...Registry) []docker.RegistryHost {
	t.Helper()
	g := NewWithT(t)
	sources, certs := t.TempDir(), t.TempDir()
	files, err := render(sources, registries)
	g.Expect(err).NotTo(HaveOccurred())
	writeFiles(t, files)

	names, err := filepath.Glob(filepath.Join(sources, upstream, "*.toml"))
	g.Expect(err).NotTo(HaveOccurred())
	var document []byte
	for _, name := range names {
		content, err := os.ReadFile(name)
		g.Expect(err).NotTo(HaveOccurred())
		document = append(document, content...)
	}
	g.Expect(os.MkdirAll(filepath.Join(certs, upstream), 0o755)).To(Succeed())
	g.Expect(os.WriteFile(filepath.Join(certs, upstream, "hosts.toml"), document, 0o600)).To(Succeed())

	hosts, err := config.ConfigureHosts(context.Background(), config.HostOptions{HostDir: config.HostDirFromRoot(certs)})(upstream)
	g.Expect(err).NotTo(HaveOccurred())
	return hosts
}

func writeFiles(t *testing.T, files []File) {
	t.Helper()
	g := NewWithT(t)
	for _, file := range files {
		g.Expect(os.MkdirAll(filepath.Dir(file.Path), 0o755)).To(Succeed())
		g.Expect(os.WriteFile(file.Path, file.Content, os.FileMode(file.Mode))).To(Succeed())
	}
}

func TestContainerdReadsWhatIsMeant(t *testing.T) {
	const (
		pull    = docker.HostCapabilityPull
		resolve = docker.HostCapabilityResolve
		all     = pull | resolve | docker.HostCapabilityPush | docker.HostCapabilityReferrers
	)
	type host struct {
		scheme, host, path string
		capabilities       docker.HostCapabilities
	}
	for upstream, want := range map[string][]host{
		"docker.io": {
			{"https", "10.4.246.205:5000", "/v2", pull | resolve},
			{"https", "mirror.example.com", "/v2", pull},
			{"https", "harbor.example.com", "/v2/docker-hub", pull | resolve},
			{"https", "registry-1.docker.io", "/v2", all},
		},
		"myhost:5000": {
			{"http", "[fd00::1]:5000", "/v2", pull | resolve},
			{"http", "127.0.0.1:8080", "/a/v2", all},
			{"http", "myhost:5000", "/some/path/v2", all},
		},
		"bare.example.com": {
			{"https", "bare.example.com", "/v2", all},
		},
	} {
		t.Run(upstream, func(t *testing.T) {
			g := NewWithT(t)
			got := []host{}
			for _, h := range parse(t, upstream, goldenRegistries(t)...) {
				got = append(got, host{h.Scheme, h.Host, h.Path, h.Capabilities})
			}
			g.Expect(got).To(Equal(want))
		})
	}
}

func TestContainerdTrustsTheBundle(t *testing.T) {
	g := NewWithT(t)
	ca, other := newAuthority(t), newAuthority(t)
	server := newServer(t, "127.0.0.1", ca.certificate(t, time.Hour))

	get := func(bundle []byte) error {
		hosts := parse(t, "docker.io", Registry{Upstream: "docker.io", Hosts: []Host{{URL: server.url, CABundle: bundle}}})
		g.Expect(hosts).To(HaveLen(2))
		client := hosts[0].Client
		defer client.CloseIdleConnections()
		response, err := client.Get(server.url + hosts[0].Path + "/")
		if err != nil {
			return fmt.Errorf("get: %w", err)
		}
		_, err = io.Copy(io.Discard, response.Body)
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(response.StatusCode).To(Equal(http.StatusOK))
		return response.Body.Close()
	}
	g.Expect(get(ca.pem)).To(Succeed())
	g.Expect(get(slices.Concat(other.pem, ca.pem))).To(Succeed(), "both generations are trusted while a CA is rotated")
	g.Expect(get(other.pem)).To(MatchError(ContainSubstring("unknown authority")))
}

func TestContainerdGivesUpDialingSoon(t *testing.T) {
	g := NewWithT(t)
	address := blackHole(t, "127.0.0.1:0")
	hosts := parse(t, "docker.io", Registry{Upstream: "docker.io", Hosts: []Host{{URL: "http://" + address}}})
	g.Expect(hosts).To(HaveLen(2))

	start := time.Now()
	response, err := hosts[0].Client.Get("http://" + address + "/v2/")
	if err == nil {
		_ = response.Body.Close()
	}
	g.Expect(err).To(MatchError(ContainSubstring("timeout")))
	g.Expect(time.Since(start)).To(BeNumerically("<", 3*time.Second))
}

// FuzzAcceptedUpstreams looks for an upstream that validation accepts and that
// cannot be rendered: one would keep all of a Shoot's nodes from getting any.
func FuzzAcceptedUpstreams(f *testing.F) {
	for _, value := range []string{
		"docker.io", "ca", "registry-hosts.sh", "a:1", "a:01", "10.0.0.1:5000", "a-b.c", "_default",
		strings.Repeat("a", 253), strings.Repeat("a", 253) + ":1", strings.Repeat("a", 250) + ":65535", strings.Repeat("a.", 126) + "a:1",
	} {
		f.Add(value)
	}
	f.Fuzz(func(t *testing.T, value string) {
		if len(upstream.Validate(value, nil)) > 0 {
			return
		}
		_, err := Files([]Registry{{Upstream: value, Server: upstream.RemoteURL(value), Hosts: []Host{{Kind: Cache, URL: "https://10.4.1.1:5000"}}}})
		NewWithT(t).Expect(err).NotTo(HaveOccurred())
	})
}
