// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

// Package plugin_test runs the kubectl plugin against a real API server, with the
// objects that the extension deploys and, where something has to answer, the real cache.
package plugin_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/Masterminds/semver/v3"
	. "github.com/onsi/gomega"
	"golang.org/x/sys/unix"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	configv1alpha1 "github.com/gardener/gardener-extension-registry-cache/pkg/apis/config/v1alpha1"
	"github.com/gardener/gardener-extension-registry-cache/pkg/apis/registry/v1alpha3"
	shootv1alpha3 "github.com/gardener/gardener-extension-registry-cache/pkg/apis/shoot/v1alpha3"
	"github.com/gardener/gardener-extension-registry-cache/pkg/plugin"
	"github.com/gardener/gardener-extension-registry-cache/pkg/resources"
	"github.com/gardener/gardener-extension-registry-cache/pkg/upstream"
	"github.com/gardener/gardener-extension-registry-cache/test/process"
)

var (
	apiServer envtest.Environment
	shoot     client.Client
)

func TestMain(m *testing.M) {
	os.Exit(func() int {
		config, err := apiServer.Start()
		if err != nil {
			fmt.Fprintln(os.Stderr, "Start the API server:", err)
			return 1
		}
		defer func() { _ = apiServer.Stop() }()
		scheme := runtime.NewScheme()
		err = errors.Join(clientgoscheme.AddToScheme(scheme), apiextensionsv1.AddToScheme(scheme), shootv1alpha3.AddToScheme(scheme))
		if err == nil {
			shoot, err = client.New(config, client.Options{Scheme: scheme})
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, "Make a client:", err)
			return 1
		}
		return m.Run()
	}())
}

// The tests run in this order: the first ones find no RegistryCaches.

func TestAnExtensionWithoutRegistryCaches(t *testing.T) {
	g := NewWithT(t)
	newService(t, newConfig(t, "docker.io"))

	code, out, err := run(admin(t), "status")
	g.Expect(code).To(Equal(plugin.ExitOK), err)
	g.Expect(out).To(MatchRegexp(`docker\.io +0/0 +- +- +unknown`))
	g.Expect(err).To(ContainSubstring("has no RegistryCaches"))
}

func TestNoCaches(t *testing.T) {
	g := NewWithT(t)
	installDefinition(t)

	code, out, err := run(admin(t), "status")
	g.Expect([]any{code, out, err}).To(Equal([]any{plugin.ExitOK, "", "No registry caches in this cluster.\n"}))
	code, out, _ = run(admin(t), "status", "-o", "json")
	g.Expect(code).To(Equal(plugin.ExitOK))
	g.Expect(out).To(MatchJSON(`{"caches":[]}`))
	code, out, err = run(admin(t), "top", "--once", "--interval", "1s")
	g.Expect([]any{code, out, err}).To(Equal([]any{plugin.ExitOK, "", "No registry caches in this cluster.\n"}))
	code, out, err = run(admin(t), "images")
	g.Expect([]any{code, out, err}).To(Equal([]any{plugin.ExitOK, "", "No registry caches in this cluster.\n"}))
	code, _, err = run(admin(t), "images", "docker.io")
	g.Expect(code).To(Equal(plugin.ExitFailed))
	g.Expect(err).To(ContainSubstring(`no cache has the upstream "docker.io": none: this cluster has no registry caches`))
	code, out, _ = run(admin(t), "explain-pull", "nginx")
	g.Expect(code).To(Equal(plugin.ExitOK))
	g.Expect(out).To(And(MatchRegexp(`Image: +docker\.io/library/nginx:latest\n`), ContainSubstring("none: this cluster has no registry caches")))
}

func TestStatus(t *testing.T) {
	g := NewWithT(t)
	newCache(t, "docker.io", 1, &shootv1alpha3.RegistryCacheStatus{HitRatio: "93%", LastReportTime: ptr.To(metav1.NewTime(time.Now().Add(-3 * time.Hour))), Report: shootv1alpha3.Report{
		Ready: true, Requests: 100, Hits: 93, UsedBytes: 3 << 30, TotalBytes: 10 << 30, Blobs: 42,
	}})
	newCache(t, "ghcr.io", 0, &shootv1alpha3.RegistryCacheStatus{Report: shootv1alpha3.Report{
		UpstreamLeftAlone: true, LastUpstreamError: &shootv1alpha3.UpstreamError{Message: "GET app/manifests/v1: bad\x1b[2J", Time: metav1.Now()},
	}})
	newCache(t, "quay.io", 1, nil)

	code, out, err := run(admin(t), "status")
	g.Expect(code).To(Equal(plugin.ExitOK), err)
	g.Expect(strings.Split(out, "\n")).To(HaveExactElements(
		MatchRegexp(`^UPSTREAM +PODS +HITS +USED +FAILURES +BLOBS +REPORTED +ENDPOINT +LAST FAILURE$`),
		MatchRegexp(`^docker\.io +1/1 +93% +3\.0GiB of 10GiB \(30%\) +none +42 +3h ago +https://10\.[0-9.]+:5000 +-$`),
		MatchRegexp(`^ghcr\.io +0/1 +- +- +now +0 +- +https://10\.[0-9.]+:5000 +GET app/manifests/v1: bad \[2J$`),
		MatchRegexp(`^quay\.io +1/1 +- +- +unknown +- +- +https://10\.[0-9.]+:5000 +-$`),
		BeEmpty(),
	))

	code, out, _ = run(admin(t), "status", "-o", "json")
	g.Expect(code).To(Equal(plugin.ExitOK))
	var decoded struct {
		Caches []struct {
			Name, Upstream, RemoteURL, Service, Endpoint string
			Pods                                         struct{ Ready, Wanted int }
			Status                                       *shootv1alpha3.RegistryCacheStatus
		}
	}
	g.Expect(json.Unmarshal([]byte(out), &decoded)).To(Succeed())
	g.Expect(decoded.Caches).To(HaveLen(3))
	g.Expect(decoded.Caches[0].Status.Hits).To(BeEquivalentTo(93))
	g.Expect(decoded.Caches[1].Pods.Ready).To(BeZero())
	g.Expect(decoded.Caches[1].Name).To(Equal("registry-ghcr-io"))
	g.Expect(decoded.Caches[2].Status).To(BeNil())

	_, out, _ = run(admin(t), "status", "-o", "yaml")
	g.Expect(out).To(HavePrefix("caches:\n- endpoint: https://10."))
	code, _, err = run(admin(t), "status", "-o", "wide")
	g.Expect(code).To(Equal(plugin.ExitFailed))
	g.Expect(err).To(ContainSubstring(`invalid argument "wide" for "-o, --output" flag: must be json or yaml`))
}

func TestExplainPull(t *testing.T) {
	g := NewWithT(t)
	newCache(t, "docker.io", 1, nil)
	newCache(t, "registry.example.com:5000", 0, nil)

	code, out, err := run(admin(t), "explain-pull", "nginx:1.29")
	g.Expect(code).To(Equal(plugin.ExitOK), err)
	g.Expect(out).To(And(
		MatchRegexp(`Image: +docker\.io/library/nginx:1\.29\n`), MatchRegexp(`hosts\.toml: +/etc/containerd/certs\.d/docker\.io/hosts\.toml`),
		ContainSubstring("server = 'https://registry-1.docker.io'"), MatchRegexp(`\[host\.'https://10\.[0-9.]+:5000'\]`),
		MatchRegexp(`Cache: +registry-docker-io, 1 of 1 pods ready\n`), MatchRegexp(`Cached: +unknown: no pod is ready that could be asked\n`),
	))
	_, out, _ = run(admin(t), "explain-pull", "registry.example.com:5000/app")
	g.Expect(out).To(ContainSubstring("registry-registry-example-com-5000, 0 of 1 pods ready: nodes withdraw the entry and pull directly"))
	_, out, _ = run(admin(t), "explain-pull", "quay.io/app")
	g.Expect(out).To(And(ContainSubstring("nodes pull directly"), ContainSubstring("none has the upstream quay.io, only: docker.io, registry.example.com:5000")))
	code, _, err = run(admin(t), "explain-pull", "Not An Image")
	g.Expect(code).To(Equal(plugin.ExitFailed))
	g.Expect(err).To(ContainSubstring(`image "Not An Image": invalid reference format`))
}

func TestAnAPIServerThatIsGone(t *testing.T) {
	g := NewWithT(t)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	g.Expect(err).NotTo(HaveOccurred())
	address := listener.Addr().String()
	g.Expect(listener.Close()).To(Succeed())

	for _, command := range [][]string{{"status"}, {"top", "--once"}, {"images"}, {"explain-pull", "nginx"}} {
		code, out, err := run(admin(t), append(command, "--server", "https://"+address)...)
		g.Expect(code).To(Equal(plugin.ExitFailed))
		g.Expect(out).To(BeEmpty())
		g.Expect(err).To(HavePrefix("Error: the API server https://" + address + " does not answer: the Shoot may be hibernated or deleted"))
	}

	// One that takes connections and says nothing.
	listener, err = net.Listen("tcp", "127.0.0.1:0")
	g.Expect(err).NotTo(HaveOccurred())
	t.Cleanup(func() { _ = listener.Close() })
	code, _, stderr := run(admin(t), "status", "--request-timeout", "1s", "--server", "https://"+listener.Addr().String())
	g.Expect(code).To(Equal(plugin.ExitFailed))
	g.Expect(stderr).To(ContainSubstring("does not answer"))
}

func TestKubeconfigs(t *testing.T) {
	g := NewWithT(t)
	code, _, err := run(filepath.Join(t.TempDir(), "missing"), "status")
	g.Expect(code).To(Equal(plugin.ExitFailed))
	g.Expect(err).To(HavePrefix("Error: kubeconfig: "))

	// Credentials that have expired.
	expired, loadErr := clientcmd.Load(apiServer.KubeConfig)
	g.Expect(loadErr).NotTo(HaveOccurred())
	for name := range expired.AuthInfos {
		expired.AuthInfos[name] = &clientcmdapi.AuthInfo{Token: "xyzzy"}
	}
	raw, writeErr := clientcmd.Write(*expired)
	g.Expect(writeErr).NotTo(HaveOccurred())
	code, _, err = run(writeKubeconfig(t, raw), "status")
	g.Expect(code).To(Equal(plugin.ExitFailed))
	g.Expect(err).To(And(ContainSubstring("does not accept your credentials"), Not(ContainSubstring("xyzzy"))))

	// As gardenctl sets it.
	t.Setenv("KUBECONFIG", admin(t))
	var out, stderr strings.Builder
	code = plugin.Run(context.Background(), "v1", []string{"status"}, plugin.Streams{Out: &out, Err: &stderr})
	g.Expect(code).To(Equal(plugin.ExitOK), stderr.String())
}

func TestMissingRights(t *testing.T) {
	g := NewWithT(t)
	newCache(t, "docker.io", 1, nil)
	newPod(t, "docker.io", "192.0.2.1", 5001)
	kubeconfig := newUser(t, "restricted")

	for _, step := range []struct {
		command        []string
		verb, resource string
		rule           rbacv1.PolicyRule
	}{
		{[]string{"status"}, "list", "services", rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"services"}}},
		{[]string{"explain-pull", "nginx"}, "list", "statefulsets.apps", rbacv1.PolicyRule{APIGroups: []string{"apps"}, Resources: []string{"statefulsets"}}},
		{[]string{"status"}, "list", "registrycaches.registry.extensions.gardener.cloud", rbacv1.PolicyRule{APIGroups: []string{shootv1alpha3.SchemeGroupVersion.Group}, Resources: []string{"registrycaches"}}},
		{[]string{"top", "--once"}, "list", "pods", rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"pods"}}},
		{[]string{"images"}, "get", "pods/portforward", rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"pods/portforward"}}},
		{[]string{"images"}, "create", "pods/portforward", rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"pods/portforward"}}},
		{[]string{"top", "--once"}, "get", "pods/proxy", rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"pods/proxy"}}},
	} {
		code, out, err := run(kubeconfig, step.command...)
		g.Expect(code).To(Equal(plugin.ExitFailed))
		g.Expect(out).To(BeEmpty())
		g.Expect(err).To(HavePrefix(fmt.Sprintf("Error: your user lacks the right to %s %s in namespace kube-system: ", step.verb, step.resource)))

		// Pulls can be explained without the right to ask the cache.
		if step.resource == "pods/portforward" {
			code, out, err := run(kubeconfig, "explain-pull", "nginx")
			g.Expect(code).To(Equal(plugin.ExitOK), err)
			g.Expect(out).To(ContainSubstring("Cached:       unknown: your user lacks the right to " + step.verb + " pods/portforward"))
		}
		step.rule.Verbs = []string{step.verb}
		grant(t, "restricted", step.rule)
	}
	for _, command := range [][]string{{"status"}, {"explain-pull", "nginx"}} {
		g.Eventually(func() int { code, _, _ := run(kubeconfig, command...); return code }).Should(Equal(plugin.ExitOK))
	}
}

func TestFiftyCachesOnATerminal(t *testing.T) {
	g := NewWithT(t)
	var upstreams []string
	for i := range 50 {
		upstreams = append(upstreams, fmt.Sprintf("registry-%02d.artifacts.example.com", i))
		newCache(t, upstreams[i], int32(i%2), &shootv1alpha3.RegistryCacheStatus{HitRatio: "50%", Report: shootv1alpha3.Report{
			TotalBytes: 100 << 30, UsedBytes: int64(i) << 30, LastUpstreamError: &shootv1alpha3.UpstreamError{Message: strings.Repeat("long ", 60), Time: metav1.Now()},
		}})
	}
	_, plain, _ := run(admin(t), "status")
	g.Expect(strings.Count(plain, "\n")).To(Equal(51))
	g.Expect(plain).NotTo(ContainSubstring("\x1b"), "no colours but on a terminal")

	for _, width := range []int{40, 80, 200} {
		shown := runOnTerminal(t.Context(), t, width, "status")
		g.Expect(shown).To(ContainSubstring("\x1b[32m"), "it is a terminal")
		lines := strings.Split(strings.TrimSpace(escapes.ReplaceAllString(strings.ReplaceAll(shown, "\r", ""), "")), "\n")
		g.Expect(len(lines)).To(BeNumerically(">=", 51))
		for i, line := range lines {
			g.Expect(utf8.RuneCountInString(line)).To(BeNumerically("<=", width), line)
			if i > 0 && i <= 50 {
				g.Expect(line).To(HavePrefix(upstreams[i-1]))
			}
		}
		if width == 80 {
			g.Expect(lines[0]).To(MatchRegexp(`^UPSTREAM +PODS +HITS +USED$`))
			g.Expect(lines[51]).To(Equal("Hidden for want of room: failures, blobs, reported, endpoint, last failure"))
		}
		if width == 200 {
			g.Expect(lines[1]).To(HaveSuffix("…"))
			g.Expect(lines).To(HaveLen(51))
		}
	}

	address := machineAddress(t)
	server := startCacheServer(t, address, "http://127.0.0.1:1")
	for _, upstreamHost := range upstreams {
		newPod(t, upstreamHost, address, server.debugPort)
	}
	// As many requests as that are not made one after the other.
	shown := runOnTerminal(t.Context(), t, 80, "top", "--once", "--interval", "1s", "--request-timeout", "5s")
	lines := strings.Split(strings.TrimSpace(escapes.ReplaceAllString(strings.ReplaceAll(shown, "\r", ""), "")), "\n")
	g.Expect(lines).To(HaveLen(52))
	for i, line := range lines[1:51] {
		g.Expect(line).To(MatchRegexp(`^%s +[01]/1 +0\.0 +- +0B/s$`, regexp.QuoteMeta(upstreams[i])))
	}
	g.Expect(lines[51]).To(Equal("Hidden for want of room: from upstream, fetching, used"))

	t.Setenv("NO_COLOR", "1")
	g.Expect(runOnTerminal(t.Context(), t, 80, "status")).NotTo(ContainSubstring("\x1b"))
}

func TestTop(t *testing.T) {
	g := NewWithT(t)
	address := machineAddress(t)
	server := startCacheServer(t, address, "http://127.0.0.1:1")
	newCache(t, "docker.io", 1, nil)
	newPod(t, "docker.io", address, server.debugPort)
	newCache(t, "ghcr.io", 1, nil)
	newPod(t, "ghcr.io", address, 1) // nobody listens there

	code, out, err := run(admin(t), "top", "--once", "--interval", "1s")
	g.Expect(code).To(Equal(plugin.ExitOK), err)
	g.Expect(strings.Split(out, "\n")).To(HaveExactElements(
		MatchRegexp(`^UPSTREAM +PODS +REQUESTS/S +HITS +TO NODES +FROM UPSTREAM +FETCHING +USED$`),
		MatchRegexp(`^docker\.io +1/1 +0\.0 +- +0B/s +0B/s +0 +[0-9.]+[KMGT]?i?B of [0-9.]+[KMGT]iB \([0-9]+%\)$`),
		MatchRegexp(`^ghcr\.io +1/1 +- +- +- +- +- +-$`),
		HavePrefix("ghcr.io: pod registry-ghcr-io-0 does not answer: "),
		BeEmpty(),
	))
	code, _, err = run(admin(t), "top", "--interval", "1ms")
	g.Expect(code).To(Equal(plugin.ExitFailed))
	g.Expect(err).To(ContainSubstring("must be at least 1s"))

	// It goes on until Ctrl-C, which is no failure.
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	shown := runOnTerminal(ctx, t, 100, "top", "--interval", "1s")
	g.Expect(shown).To(HavePrefix("Measuring for 1s ...\r\n\x1b[H\x1b[J"))
	g.Expect(strings.Count(shown, "\x1b[H\x1b[JUPSTREAM ")).To(BeNumerically(">=", 2))
}

func TestCompletion(t *testing.T) {
	g := NewWithT(t)
	newCache(t, "docker.io", 1, nil)
	newCache(t, "ghcr.io", 1, nil)
	t.Setenv("KUBECONFIG", admin(t))
	for args, expected := range map[string]string{
		"images ":           "docker.io\nghcr.io\n:4\n",
		"images docker.io ": ":4\n",
		"status -o ":        "json\nyaml\n:4\n",
		"explain-pull ":     ":4\n",
	} {
		var out strings.Builder
		g.Expect(plugin.Run(t.Context(), "v1", append([]string{"__complete"}, strings.Split(args, " ")...), plugin.Streams{Out: &out, Err: io.Discard})).To(Equal(plugin.ExitOK))
		g.Expect(out.String()).To(Equal(expected), args)
	}
}

var escapes = regexp.MustCompile("\x1b\\[[0-9]*[mHJ]")

func run(kubeconfig string, args ...string) (code int, out, err string) {
	var stdout, stderr strings.Builder
	code = plugin.Run(context.Background(), "v1", append(args, "--kubeconfig", kubeconfig), plugin.Streams{In: strings.NewReader(""), Out: &stdout, Err: &stderr})
	return code, stdout.String(), stderr.String()
}

// runOnTerminal runs the plugin as an administrator with its output on a terminal until
// ctx ends, and returns what the terminal got.
func runOnTerminal(ctx context.Context, t *testing.T, width int, args ...string) string {
	t.Helper()
	g := NewWithT(t)
	main, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	g.Expect(err).NotTo(HaveOccurred())
	defer func() { _ = main.Close() }()
	g.Expect(unix.IoctlSetPointerInt(int(main.Fd()), unix.TIOCSPTLCK, 0)).To(Succeed())
	number, err := unix.IoctlGetInt(int(main.Fd()), unix.TIOCGPTN)
	g.Expect(err).NotTo(HaveOccurred())
	terminal, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(unix.IoctlSetWinsize(int(terminal.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: uint16(width)})).To(Succeed())
	t.Setenv("TERM", "xterm")

	got := make(chan string)
	go func() {
		var all strings.Builder
		buffer := make([]byte, 4096)
		for {
			n, err := main.Read(buffer)
			all.Write(buffer[:n])
			if err != nil { // EIO, after the terminal was closed
				got <- all.String()
				return
			}
		}
	}()
	code := plugin.Run(ctx, "v1", append(args, "--kubeconfig", admin(t)), plugin.Streams{Out: terminal, Err: terminal})
	g.Expect(terminal.Close()).To(Succeed())
	shown := <-got
	g.Expect(code).To(Equal(plugin.ExitOK))
	return shown
}

// admin returns the kubeconfig file of an administrator.
func admin(t *testing.T) string {
	t.Helper()
	return writeKubeconfig(t, apiServer.KubeConfig)
}

func newUser(t *testing.T, name string) string {
	t.Helper()
	user, err := apiServer.AddUser(envtest.User{Name: name}, nil)
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	kubeconfig, err := user.KubeConfig()
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	return writeKubeconfig(t, kubeconfig)
}

func writeKubeconfig(t *testing.T, kubeconfig []byte) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "kubeconfig")
	_, err := clientcmd.Load(kubeconfig)
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	NewWithT(t).Expect(os.WriteFile(file, kubeconfig, 0o600)).To(Succeed())
	return file
}

func grant(t *testing.T, user string, rule rbacv1.PolicyRule) {
	t.Helper()
	meta := metav1.ObjectMeta{Namespace: metav1.NamespaceSystem, GenerateName: "test-"}
	role := &rbacv1.Role{ObjectMeta: meta, Rules: []rbacv1.PolicyRule{rule}}
	create(t, role)
	create(t, &rbacv1.RoleBinding{
		ObjectMeta: meta, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: role.Name},
		Subjects: []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: user}},
	})
}

// create creates an object until the test ends.
func create(t *testing.T, object client.Object) {
	t.Helper()
	g := NewWithT(t)
	g.Expect(shoot.Create(t.Context(), object)).To(Succeed())
	t.Cleanup(func() {
		g.Expect(client.IgnoreNotFound(shoot.Delete(context.Background(), object, client.GracePeriodSeconds(0)))).To(Succeed())
	})
}

func installDefinition(t *testing.T) {
	t.Helper()
	g := NewWithT(t)
	definition, err := resources.CustomResourceDefinition()
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(client.IgnoreAlreadyExists(shoot.Create(t.Context(), definition))).To(Succeed())
	g.Eventually(func() error { return shoot.List(t.Context(), &shootv1alpha3.RegistryCacheList{}) }).WithTimeout(30 * time.Second).Should(Succeed())
}

func newConfig(t *testing.T, upstreamHost string) v1alpha3.RegistryCache {
	t.Helper()
	config, err := v1alpha3.Decode(fmt.Appendf(nil, `{"apiVersion":%q,"kind":"RegistryConfig","caches":[{"upstream":%q}]}`, v1alpha3.SchemeGroupVersion, upstreamHost))
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	return config.Caches[0]
}

func newService(t *testing.T, config v1alpha3.RegistryCache) *corev1.Service {
	t.Helper()
	service := resources.Service(config, semver.MustParse("1.36.0"))
	create(t, service)
	return service
}

// newCache makes the objects of a cache as the extension does, with the statuses that
// controllers and the cache write; a nil status: the cache has not reported.
func newCache(t *testing.T, upstreamHost string, ready int32, status *shootv1alpha3.RegistryCacheStatus) {
	t.Helper()
	g := NewWithT(t)
	installDefinition(t)
	config := newConfig(t, upstreamHost)
	service := newService(t, config)
	deployed := resources.Cache{Config: config, Image: "registry.test/registry-cache:v1", Endpoint: resources.Endpoint(config, service.Spec.ClusterIP)}
	objects, err := deployed.Objects()
	g.Expect(err).NotTo(HaveOccurred())
	for _, object := range append(append(objects, deployed.RegistryCache()), deployed.ReportRights()...) {
		create(t, object)
		switch object := object.(type) {
		case *appsv1.StatefulSet:
			object.Status.Replicas, object.Status.ReadyReplicas = 1, ready
			g.Expect(shoot.Status().Update(t.Context(), object)).To(Succeed())
		case *shootv1alpha3.RegistryCache:
			if status != nil {
				object.Status = status
				g.Expect(shoot.Status().Update(t.Context(), object)).To(Succeed())
			}
		}
	}
}

// newPod makes the pod of a cache, ready, at an address.
func newPod(t *testing.T, upstreamHost, address string, debugPort int) {
	t.Helper()
	g := NewWithT(t)
	set := &appsv1.StatefulSet{}
	g.Expect(shoot.Get(t.Context(), client.ObjectKey{Namespace: metav1.NamespaceSystem, Name: upstream.ResourceName(upstreamHost)}, set)).To(Succeed())
	account := &corev1.ServiceAccount{}
	g.Expect(shoot.Get(t.Context(), client.ObjectKeyFromObject(set), account)).To(Succeed())
	pod := &corev1.Pod{ObjectMeta: *set.Spec.Template.ObjectMeta.DeepCopy(), Spec: *set.Spec.Template.Spec.DeepCopy()}
	pod.Namespace, pod.Name, pod.Spec.NodeName = set.Namespace, set.Name+"-0", nodeName
	pod.Spec.Volumes, pod.Spec.Containers[0].VolumeMounts = nil, nil
	pod.Spec.PriorityClassName = ""
	for i := range pod.Spec.Containers[0].Ports {
		if port := &pod.Spec.Containers[0].Ports[i]; port.Name == resources.DebugPortName {
			port.ContainerPort = int32(debugPort)
		}
	}
	create(t, pod)
	pod.Status = corev1.PodStatus{
		Phase: corev1.PodRunning, PodIP: address, PodIPs: []corev1.PodIP{{IP: address}},
		Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}},
	}
	g.Expect(shoot.Status().Update(t.Context(), pod)).To(Succeed())
}

// machineAddress returns an address of this machine that an API server speaks to: it
// does not to loopback addresses.
func machineAddress(t *testing.T) string {
	t.Helper()
	addresses, err := net.InterfaceAddrs()
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	for _, address := range addresses {
		if network, ok := address.(*net.IPNet); ok && network.IP.IsGlobalUnicast() && network.IP.To4() != nil {
			return network.IP.String()
		}
	}
	t.Fatal("this machine has no address but loopback ones")
	return ""
}

// cacheServer is a running cache.
type cacheServer struct {
	// host is where it serves, and debugPort the port of its metrics.
	host      string
	debugPort int
	// inventoryPort is the loopback port of its list of images.
	inventoryPort int
}

// startCacheServer runs the cache of an upstream, with metrics at an address of this
// machine.
func startCacheServer(t *testing.T, address, remoteURL string) cacheServer {
	t.Helper()
	g := NewWithT(t)
	directory := t.TempDir()
	binary := filepath.Join(directory, "registry-cache")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", binary, "../../../cmd/registry-cache")
	output, err := build.CombinedOutput()
	g.Expect(err).NotTo(HaveOccurred(), string(output))

	ports, err := process.FreePorts(3)
	g.Expect(err).NotTo(HaveOccurred())
	server := cacheServer{host: net.JoinHostPort("127.0.0.1", strconv.Itoa(ports[0])), debugPort: ports[1], inventoryPort: ports[2]}
	debug := net.JoinHostPort(address, strconv.Itoa(server.debugPort))
	raw, err := configv1alpha1.EncodeCacheConfiguration(&configv1alpha1.CacheConfiguration{
		Upstream: "docker.io", RemoteURL: remoteURL, Storage: configv1alpha1.Storage{RootDirectory: filepath.Join(directory, "storage")},
		Server: configv1alpha1.Server{Address: server.host}, Debug: configv1alpha1.Debug{Address: debug, InventoryPort: ptr.To(int32(server.inventoryPort))},
	})
	g.Expect(err).NotTo(HaveOccurred())
	config := filepath.Join(directory, "config.yaml")
	g.Expect(os.WriteFile(config, raw, 0o600)).To(Succeed())
	cache := exec.Command(binary, "--config="+config)
	g.Expect(cache.Start()).To(Succeed())
	t.Cleanup(func() {
		_ = cache.Process.Kill()
		_ = cache.Wait()
	})
	g.Eventually(func() error {
		response, err := http.Get("http://" + debug + "/debug/health")
		if err != nil {
			return err
		}
		return response.Body.Close()
	}).WithTimeout(30 * time.Second).Should(Succeed())
	return server
}
