// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package hosts

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"github.com/onsi/gomega/types"
)

// forEachShell runs a test with each shell that is the sh of some node.
func forEachShell(t *testing.T, test func(t *testing.T, shell string)) {
	t.Helper()
	t.Parallel()
	for _, shell := range []string{"dash", "bash"} {
		t.Run(shell, func(t *testing.T) {
			t.Parallel()
			// Called sh, as on nodes, bash is another than by its own name.
			sh := filepath.Join(t.TempDir(), "sh")
			NewWithT(t).Expect(os.Symlink(lookPath(t, shell), sh)).To(Succeed())
			test(t, sh)
		})
	}
}

// lookPath returns the path of a program that not every machine has: hack/test.sh
// installs it.
func lookPath(t testing.TB, program string) string {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil && os.Getenv("REQUIRE_CLUSTER") != "" {
		t.Fatalf("%s is not installed", program)
	}
	if err != nil {
		t.Skipf("%s is not installed", program)
	}
	return path
}

// node is what the script sees of a node.
type node struct {
	*WithT
	t              testing.TB
	shell          string
	sources, certs string
	environment    []string
	log            *os.File
	script         *exec.Cmd
}

// newNode returns a node with the files for the registries, on which the script
// does not run yet.
func newNode(t testing.TB, shell string, registries ...Registry) *node {
	t.Helper()
	home := t.TempDir()
	n := &node{WithT: NewWithT(t), t: t, shell: shell, sources: filepath.Join(home, "sources"), certs: filepath.Join(home, "certs")}
	n.SetDefaultEventuallyTimeout(20 * time.Second)
	n.SetDefaultEventuallyPollingInterval(20 * time.Millisecond)
	n.SetDefaultConsistentlyDuration(time.Second)
	n.configure(registries...)

	var err error
	// A file, as children of a killed script would keep a pipe open.
	n.log, err = os.Create(filepath.Join(home, "log"))
	n.Expect(err).NotTo(HaveOccurred())
	// What would break all probes if curl heeded it.
	n.Expect(os.WriteFile(filepath.Join(home, ".curlrc"), []byte("connect-to = \"::127.0.0.1:1\"\n"), 0o600)).To(Succeed())
	n.environment = []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + home,
		"http_proxy=http://127.0.0.1:1", "https_proxy=http://127.0.0.1:1", "ALL_PROXY=http://127.0.0.1:1",
		"REGISTRY_HOSTS_OFF=" + filepath.Join(home, "off"), "REGISTRY_HOSTS_DIR=" + n.sources, "CERTS_DIR=" + n.certs,
		"REGISTRY_HOSTS_INTERVAL=0.1", "REGISTRY_HOSTS_RETRY_INTERVAL=0.05", "REGISTRY_HOSTS_CONFIRM_INTERVAL=0.02",
	}
	t.Cleanup(func() {
		n.kill()
		if t.Failed() {
			t.Log(n.logged())
		}
		_ = n.log.Close()
	})
	return n
}

// configure replaces the files on the node as node-agent does: new ones first.
func (n *node) configure(registries ...Registry) {
	n.t.Helper()
	files, err := render(n.sources, registries)
	n.Expect(err).NotTo(HaveOccurred())
	keep := map[string]bool{}
	for _, file := range files {
		keep[file.Path] = true
		n.Expect(os.MkdirAll(filepath.Dir(file.Path), 0o755)).To(Succeed())
		n.Expect(os.WriteFile(file.Path+"~", file.Content, os.FileMode(file.Mode))).To(Succeed())
		n.Expect(os.Rename(file.Path+"~", file.Path)).To(Succeed())
	}
	present, err := filepath.Glob(filepath.Join(n.sources, "*", "*"))
	n.Expect(err).NotTo(HaveOccurred())
	for _, name := range present {
		if !keep[name] {
			n.Expect(os.Remove(name)).To(Succeed())
		}
	}
}

func (n *node) command(arguments ...string) *exec.Cmd {
	command := exec.Command(n.shell, append([]string{filepath.Join(n.sources, scriptName)}, arguments...)...)
	command.Env = n.environment
	command.Stdout, command.Stderr = n.log, n.log
	// For kill.
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return command
}

func (n *node) start() {
	n.t.Helper()
	n.script = n.command()
	n.Expect(n.script.Start()).To(Succeed())
}

// kill kills the script and all that it has started, which would go on otherwise.
func (n *node) kill() {
	if n.script != nil {
		_ = syscall.Kill(-n.script.Process.Pid, syscall.SIGKILL)
		_ = n.script.Wait()
		n.script = nil
	}
}

func (n *node) logged() string {
	content, err := os.ReadFile(n.log.Name())
	n.Expect(err).NotTo(HaveOccurred())
	return string(content)
}

// published returns a function that returns the content of an upstream's
// hosts.toml, or nothing if there is none.
func (n *node) published(upstream string) func() string {
	return func() string {
		content, err := os.ReadFile(filepath.Join(n.certs, upstream, "hosts.toml"))
		switch {
		case os.IsNotExist(err):
			return ""
		case err != nil:
			return err.Error()
		case len(content) == 0:
			return "an empty file"
		}
		return string(content)
	}
}

// directories returns the names of all directories of upstreams.
func (n *node) directories() []string {
	entries, err := os.ReadDir(n.certs)
	n.Expect(err).NotTo(HaveOccurred())
	names := []string{}
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	return names
}

// wanted returns the content of hosts.toml if the named fragments are in it.
func (n *node) wanted(upstream string, names ...string) string {
	n.t.Helper()
	var document strings.Builder
	for _, name := range append([]string{headerName}, names...) {
		content, err := os.ReadFile(filepath.Join(n.sources, upstream, name))
		n.Expect(err).NotTo(HaveOccurred())
		document.Write(content)
	}
	return document.String()
}

// settle waits until the script has done a full round or more since now.
func (n *node) settle(s *server) {
	n.t.Helper()
	before := s.requests.Load()
	n.Eventually(s.requests.Load).Should(BeNumerically(">=", before+2))
}

const (
	cacheFragment  = cacheName
	mirrorFragment = "20-mirror-01.toml"
)

func cacheOf(upstream string, s *server, bundle []byte) Registry {
	return Registry{Upstream: upstream, Hosts: []Host{{URL: s.url, CABundle: bundle, Capabilities: []string{"pull", "resolve"}}}}
}

func TestScriptPassesShellcheck(t *testing.T) {
	// Excluded are a default in each case statement and braces around each variable.
	output, err := exec.CommandContext(t.Context(), lookPath(t, "shellcheck"), "--shell=sh", "--enable=all", "--exclude=SC2249,SC2250", scriptName).CombinedOutput()
	NewWithT(t).Expect(err).NotTo(HaveOccurred(), string(output))
}

func TestScriptFollowsTheCache(t *testing.T) {
	ca, other := newAuthority(t), newAuthority(t)
	healthy := func(http.ResponseWriter, *http.Request) {}
	type test struct {
		fail, recover func(t *testing.T, s *server)
	}
	answer := func(handler http.HandlerFunc) test {
		return test{
			func(_ *testing.T, s *server) { s.answer(handler) },
			func(_ *testing.T, s *server) { s.answer(healthy) },
		}
	}
	present := func(a *authority, valid time.Duration) test {
		return test{
			func(t *testing.T, s *server) { s.certificate.Store(a.certificate(t, valid)) },
			func(t *testing.T, s *server) { s.certificate.Store(ca.certificate(t, time.Hour)) },
		}
	}
	tests := map[string]test{
		"connection refused": {
			func(_ *testing.T, s *server) { s.stop() },
			func(t *testing.T, s *server) { s.start(t) },
		},
		"status 500": answer(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) }),
		"a web page": answer(func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Content-Type", "text/html") }),
		"no type":    answer(func(w http.ResponseWriter, _ *http.Request) { w.Header()["Content-Type"] = nil }),
		"status 401": answer(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusUnauthorized) }),
		"redirect":   answer(func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/", http.StatusFound) }),
		"hangs":      answer(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }),
		"hangs after headers": answer(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "2")
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		}),
		"no HTTP": answer(func(w http.ResponseWriter, _ *http.Request) {
			connection, _, err := http.NewResponseController(w).Hijack()
			if err == nil {
				_, _ = connection.Write([]byte("200 200 0 garbage\n\n0 200 0 \n"))
				_ = connection.Close()
			}
		}),
		"certificate of another CA": present(other, time.Hour),
		"expired certificate":       present(ca, -time.Hour),
	}
	forEachShell(t, func(t *testing.T, shell string) {
		for name, test := range tests {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				s := newServer(t, "127.0.0.1", ca.certificate(t, time.Hour))
				n := newNode(t, shell, cacheOf("docker.io", s, ca.pem))
				n.start()
				live := n.wanted("docker.io", cacheFragment)
				n.Eventually(n.published("docker.io")).Should(Equal(live))
				test.fail(t, s)
				n.Eventually(n.published("docker.io")).Should(BeEmpty())
				n.Eventually(n.directories).ShouldNot(ContainElement("docker.io"))
				test.recover(t, s)
				n.Eventually(n.published("docker.io")).Should(Equal(live))
			})
		}
	})
}

const (
	// withdrawn and back are how soon hosts.toml has to follow a host that fails or
	// answers.
	withdrawn = 15 * time.Second
	back      = 5 * time.Second
	// slack is for a machine that is busy with other things.
	slack = 3 * time.Second
)

// The quickest of some attempts tells what the script takes, the others what the
// machine did meanwhile.
func TestScriptKeepsTheTimesOfTheDesign(t *testing.T) {
	t.Parallel()
	var gone, come time.Duration
	for range 3 {
		gone, come = timesOfTheDesign(t)
		if gone <= withdrawn+slack && come <= back+slack {
			return
		}
		t.Logf("withdrawn after %s, back after %s", gone, come)
	}
	NewWithT(t).Expect(gone).To(BeNumerically("<=", withdrawn+slack))
	NewWithT(t).Expect(come).To(BeNumerically("<=", back+slack))
}

// timesOfTheDesign returns how long it took to withdraw a host that was lost, and to
// bring a host that answers, the longer of twice.
func timesOfTheDesign(t *testing.T) (gone, come time.Duration) {
	t.Helper()
	s := newServer(t, "127.0.0.1", nil)
	defer s.stop()
	n := newNode(t, "sh", cacheOf("docker.io", s, nil))
	defer n.kill()
	n.environment = append(n.environment, "REGISTRY_HOSTS_INTERVAL=", "REGISTRY_HOSTS_RETRY_INTERVAL=", "REGISTRY_HOSTS_CONFIRM_INTERVAL=")
	measure := func(content types.GomegaMatcher) time.Duration {
		before := time.Now()
		n.Eventually(n.published("docker.io")).WithTimeout(time.Minute).Should(content)
		return time.Since(before)
	}
	live := n.wanted("docker.io", cacheFragment)
	n.start()
	first := measure(Equal(live))

	s.stop()
	t.Run("fault", func(t *testing.T) {
		blackHole(t, s.address)
		gone = measure(BeEmpty())
	})
	s.start(t)
	return gone, max(first, measure(Equal(live)))
}

func TestScriptForgivesOneFailure(t *testing.T) {
	forEachShell(t, func(t *testing.T, shell string) {
		// On a busy machine a request may get no answer in time, which is one more failure.
		for attempts := 1; !forgivesOneFailure(t, shell); attempts++ {
			NewWithT(t).Expect(attempts).To(BeNumerically("<", 10), "there were two failures in a row each time")
		}
	})
}

// forgivesOneFailure expects that one failure at a time is forgiven, and returns whether
// there were no others.
func forgivesOneFailure(t *testing.T, shell string) bool {
	t.Helper()
	s := newServer(t, "127.0.0.1", nil)
	defer s.stop()
	n := newNode(t, shell, cacheOf("docker.io", s, nil))
	defer n.kill()
	n.start()
	n.Eventually(n.published("docker.io")).ShouldNot(BeEmpty())
	before, err := os.Stat(filepath.Join(n.certs, "docker.io", "hosts.toml"))
	n.Expect(err).NotTo(HaveOccurred())
	for range 5 {
		s.answer(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusBadGateway)
			s.answer(func(http.ResponseWriter, *http.Request) {})
		})
		// One fails, one does not, and the last is not answered yet: it may be the next
		// that fails.
		counted := s.requests.Load()
		n.Eventually(s.requests.Load).Should(BeNumerically(">=", counted+3))
	}
	after, statErr := os.Stat(filepath.Join(n.certs, "docker.io", "hosts.toml"))
	if strings.Contains(n.logged(), "does not answer as it should: 000") || strings.Contains(n.logged(), "still does not answer") {
		return false
	}
	n.Expect(statErr).NotTo(HaveOccurred())
	n.Expect(strings.Count(n.logged(), "does not answer as it should: 502")).To(Equal(5))
	n.Expect(os.SameFile(before, after)).To(BeTrue(), "hosts.toml was written again")
	return true
}

// TestScriptHangsUp is about what is asked of ss; that it does so to containerd
// is for the tests on nodes.
func TestScriptHangsUp(t *testing.T) {
	forEachShell(t, func(t *testing.T, shell string) {
		lost, hanging, mirror := newServer(t, "127.0.0.1", nil), newServer(t, "127.0.0.1", nil), newServer(t, "127.0.0.1", nil)
		n := newNode(t, shell, cacheOf("lost.io", lost, nil), cacheOf("hanging.io", hanging, nil),
			Registry{Upstream: "mirror.io", Hosts: []Host{{Kind: Mirror, URL: mirror.url}}})
		calls := filepath.Join(t.TempDir(), "calls")
		programs := filepath.Dir(calls)
		fake := fmt.Sprintf("#!/bin/sh\necho \"$@\" >>'%s'\necho x\n", calls)
		n.Expect(os.WriteFile(filepath.Join(programs, "ss"), []byte(fake), 0o700)).To(Succeed())
		n.environment = append(n.environment, "PATH="+programs+":"+os.Getenv("PATH"))
		n.start()
		upstreams := []string{"lost.io", "hanging.io", "mirror.io"}
		for _, upstream := range upstreams {
			n.Eventually(n.published(upstream)).ShouldNot(BeEmpty())
		}

		hanging.answer(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
		for _, s := range []*server{lost, mirror} {
			s.stop()
			blackHole(t, s.address)
		}
		for _, upstream := range upstreams {
			n.Eventually(n.published(upstream)).Should(BeEmpty())
		}
		// Not at once: TCP may get through yet.
		n.Expect(calls).NotTo(BeAnExistingFile())
		n.Eventually(n.logged).WithTimeout(time.Minute).Should(ContainSubstring(lost.url + "/v2/: ended connections to it"))
		n.settle(hanging)
		n.settle(hanging)
		content, err := os.ReadFile(calls)
		n.Expect(err).NotTo(HaveOccurred())
		n.Expect(string(content)).To(Equal("--no-header --numeric --tcp --kill dst "+lost.address+"\n"), "once, and neither to what is slow nor to a mirror")
	})
}

func TestScriptIsSwitchedOff(t *testing.T) {
	forEachShell(t, func(t *testing.T, shell string) {
		s := newServer(t, "127.0.0.1", nil)
		n := newNode(t, shell, cacheOf("docker.io", s, nil))
		n.start()
		n.Eventually(n.published("docker.io")).ShouldNot(BeEmpty())
		off := filepath.Join(filepath.Dir(n.certs), "off")
		n.Expect(os.WriteFile(off, nil, 0o600)).To(Succeed())
		n.Eventually(n.directories).Should(BeEmpty())
		n.Consistently(n.directories).Should(BeEmpty())
		n.Expect(n.logged()).To(ContainSubstring("switched off by " + off))
		n.kill()
		n.start()
		n.Consistently(n.directories).Should(BeEmpty())
		n.Expect(os.Remove(off)).To(Succeed())
		n.Eventually(n.published("docker.io")).ShouldNot(BeEmpty())
	})
}

func TestScriptEndsIfItCannotWrite(t *testing.T) {
	forEachShell(t, func(t *testing.T, shell string) {
		s := newServer(t, "127.0.0.1", nil)
		n := newNode(t, shell, cacheOf("docker.io", s, nil))
		n.Expect(os.WriteFile(n.certs, nil, 0o600)).To(Succeed())
		n.start()
		n.Expect(n.script.Wait()).To(MatchError("exit status 1"))
		n.script = nil
		n.Expect(s.requests.Load()).To(BeNumerically(">", 3), "it had patience")
		n.Expect(strings.Count(n.logged(), "cannot write hosts.toml")).To(Equal(1))
		n.Expect(os.Remove(n.certs)).To(Succeed())
		n.start()
		n.Eventually(n.published("docker.io")).ShouldNot(BeEmpty())
	})
}

func TestScriptWritesNothingTwice(t *testing.T) {
	forEachShell(t, func(t *testing.T, shell string) {
		s := newServer(t, "127.0.0.1", nil)
		n := newNode(t, shell, cacheOf("docker.io", s, nil))
		n.start()
		name := filepath.Join(n.certs, "docker.io", "hosts.toml")
		n.Eventually(name).Should(BeAnExistingFile())
		before, err := os.Stat(name)
		n.Expect(err).NotTo(HaveOccurred())
		for range 3 {
			n.settle(s)
		}
		after, err := os.Stat(name)
		n.Expect(err).NotTo(HaveOccurred())
		n.Expect(os.SameFile(before, after)).To(BeTrue())
		n.Expect(after.ModTime()).To(Equal(before.ModTime()))
		n.Expect(after.Mode().Perm()).To(Equal(os.FileMode(0o644)))
		lines := slices.DeleteFunc(slices.Collect(strings.Lines(n.logged())), func(line string) bool {
			// It timed out once, on a machine that was busy.
			return strings.Contains(line, "does not answer as it should: 000 28")
		})
		n.Expect(lines).To(HaveLen(2), n.logged())
	})
}

func TestScriptHandlesUpstreamsAndHostsApart(t *testing.T) {
	forEachShell(t, func(t *testing.T, shell string) {
		ca := newAuthority(t)
		cache, mirror, other := newServer(t, "127.0.0.1", ca.certificate(t, time.Hour)), newServer(t, "127.0.0.1", nil), newServer(t, "::1", nil)
		mirror.status(http.StatusUnauthorized)
		docker := cacheOf("docker.io", cache, ca.pem)
		docker.Hosts = append(docker.Hosts, Host{Kind: Mirror, URL: mirror.url})
		n := newNode(t, shell, docker, cacheOf("myhost:5000", other, nil))
		n.start()
		both := n.wanted("docker.io", cacheFragment, mirrorFragment)
		second := n.wanted("myhost:5000", cacheFragment)
		n.Eventually(n.published("docker.io")).Should(Equal(both))
		n.Eventually(n.published("myhost:5000")).Should(Equal(second))

		cache.status(http.StatusServiceUnavailable)
		n.Eventually(n.published("docker.io")).Should(Equal(n.wanted("docker.io", mirrorFragment)))
		mirror.stop()
		n.Eventually(n.published("docker.io")).Should(BeEmpty())
		cache.status(http.StatusOK)
		n.Eventually(n.published("docker.io")).Should(Equal(n.wanted("docker.io", cacheFragment)))
		mirror.status(http.StatusNotFound)
		mirror.start(t)
		n.Eventually(n.published("docker.io")).Should(Equal(both))
		n.Expect(n.published("myhost:5000")()).To(Equal(second))
		n.Expect(strings.Count(n.logged(), "myhost:5000: ")).To(Equal(1), "the second upstream was touched again")

		other.status(http.StatusInternalServerError)
		n.Eventually(n.published("myhost:5000")).Should(BeEmpty())
		n.Expect(n.published("docker.io")()).To(Equal(both))
	})
}

func TestScriptLeavesWhatIsNotOurs(t *testing.T) {
	forEachShell(t, func(t *testing.T, shell string) {
		s := newServer(t, "127.0.0.1", nil)
		n := newNode(t, shell, cacheOf("docker.io", s, nil), cacheOf("ghcr.io", s, nil), cacheOf("quay.io", s, nil))
		foreign := map[string]string{
			"docker.io/hosts.toml":   "server = 'https://elsewhere.example.com'\n",
			"other.io/hosts.toml":    "\n" + marker,
			"quay.io/client.cert":    "x",
			"_default/hosts.toml":    "",
			"unfinished/hosts.toml":  strings.TrimSuffix(marker, "\n"),
			"unfinished/hosts.toml~": marker,
		}
		for name, content := range foreign {
			name = filepath.Join(n.certs, name)
			n.Expect(os.MkdirAll(filepath.Dir(name), 0o755)).To(Succeed())
			n.Expect(os.WriteFile(name, []byte(content), 0o600)).To(Succeed())
		}
		ours := filepath.Join(n.sources, "ghcr.io", headerName)
		n.Expect(os.Mkdir(filepath.Join(n.certs, "ghcr.io"), 0o755)).To(Succeed())
		n.Expect(os.Symlink(ours, filepath.Join(n.certs, "ghcr.io", "hosts.toml"))).To(Succeed())

		n.start()
		n.Eventually(n.published("quay.io")).Should(Equal(n.wanted("quay.io", cacheFragment)))
		for range 3 {
			n.settle(s)
		}
		n.Expect(n.script.Process.Signal(syscall.SIGTERM)).To(Succeed())
		n.Expect(n.script.Wait()).To(Succeed())
		n.script = nil
		n.Expect(n.command("withdraw").Run()).To(Succeed())

		for name, content := range foreign {
			got, err := os.ReadFile(filepath.Join(n.certs, name))
			n.Expect(err).NotTo(HaveOccurred())
			n.Expect(string(got)).To(Equal(content), name)
		}
		n.Expect(os.Readlink(filepath.Join(n.certs, "ghcr.io", "hosts.toml"))).To(Equal(ours))
		n.Expect(filepath.Join(n.certs, "quay.io", "hosts.toml")).NotTo(BeAnExistingFile())
		for _, upstream := range []string{"docker.io", "ghcr.io"} {
			n.Expect(strings.Count(n.logged(), upstream+": left alone")).To(Equal(1))
		}
	})
}

func TestScriptFollowsTheConfiguration(t *testing.T) {
	forEachShell(t, func(t *testing.T, shell string) {
		ca, next := newAuthority(t), newAuthority(t)
		first, second := newServer(t, "127.0.0.1", ca.certificate(t, time.Hour)), newServer(t, "127.0.0.1", nil)
		n := newNode(t, shell, cacheOf("docker.io", first, ca.pem), cacheOf("quay.io", second, nil))
		n.start()
		n.Eventually(n.published("docker.io")).Should(Equal(n.wanted("docker.io", cacheFragment)))
		n.Eventually(n.published("quay.io")).ShouldNot(BeEmpty())

		// A CA is rotated: what is published never names a file that is missing.
		n.configure(cacheOf("docker.io", first, append(next.pem, ca.pem...)), cacheOf("quay.io", second, nil))
		n.Eventually(n.published("docker.io")).Should(Equal(n.wanted("docker.io", cacheFragment)))
		// Another cluster IP.
		n.configure(cacheOf("docker.io", second, nil), cacheOf("quay.io", second, nil))
		n.Eventually(n.published("docker.io")).Should(Equal(n.wanted("docker.io", cacheFragment)))
		// An upstream goes.
		n.configure(cacheOf("docker.io", second, nil))
		n.Eventually(n.directories).ShouldNot(ContainElement("quay.io"))
		n.Expect(n.published("docker.io")()).To(Equal(n.wanted("docker.io", cacheFragment)))
		// node-agent removes the directory, as it does when an upstream's entry goes
		// from its own list.
		n.Eventually(os.RemoveAll).WithArguments(filepath.Join(n.certs, "docker.io")).Should(Succeed(), "the script may write meanwhile")
		n.Eventually(n.published("docker.io")).Should(Equal(n.wanted("docker.io", cacheFragment)))
		// All goes.
		n.configure()
		n.Eventually(n.directories).ShouldNot(ContainElement("docker.io"))
	})
}

func TestScriptMendsItsFiles(t *testing.T) {
	forEachShell(t, func(t *testing.T, shell string) {
		s := newServer(t, "127.0.0.1", nil)
		n := newNode(t, shell, cacheOf("docker.io", s, nil), cacheOf("quay.io", s, nil))
		// In the next round if it is gone or not ours, and later if only a look at all of
		// it tells.
		n.environment = append(n.environment, "REGISTRY_HOSTS_ROUNDS=1000")
		n.start()
		live := n.wanted("docker.io", cacheFragment)
		n.Eventually(n.published("docker.io")).Should(Equal(live))
		n.Eventually(n.published("quay.io")).ShouldNot(BeEmpty())
		file := filepath.Join(n.certs, "docker.io", "hosts.toml")
		for _, spoil := range []func() error{
			func() error { return os.Remove(file) },
			func() error { return os.RemoveAll(filepath.Dir(file)) },
		} {
			n.Expect(spoil()).To(Succeed())
			n.Eventually(n.published("docker.io")).Should(Equal(live))
		}
		// A file of somebody else's is left alone while it is there.
		n.Expect(os.WriteFile(file, []byte("# of somebody else\n"), 0o600)).To(Succeed())
		n.Eventually(n.logged).Should(ContainSubstring("docker.io: left alone"))
		n.settle(s)
		n.Expect(n.published("docker.io")()).To(Equal("# of somebody else\n"))
		// The first request that finds ours in its place.
		var found atomic.Int64
		s.answer(func(http.ResponseWriter, *http.Request) {
			if n.published("docker.io")() == live {
				found.CompareAndSwap(0, s.requests.Load())
			}
		})
		n.Expect(os.Remove(file)).To(Succeed())
		before := s.requests.Load()
		n.Eventually(found.Load).ShouldNot(BeZero())
		n.Expect(found.Load()-before).To(BeNumerically("<=", 4), "it was not written in the next round")

		n.kill()
		n.environment = append(n.environment, "REGISTRY_HOSTS_ROUNDS=3")
		n.start()
		n.settle(s) // what is there now is not from before
		for _, spoil := range []func() error{
			func() error { return os.WriteFile(file, []byte(live+"# edited\n"), 0o600) },
			func() error { return os.Truncate(file, int64(len(marker))) },
		} {
			n.Eventually(n.published("docker.io")).Should(Equal(live))
			n.Expect(spoil()).To(Succeed())
		}
		n.Eventually(n.published("docker.io")).Should(Equal(live))
	})
}

func TestScriptWithdrawsHostWithoutItsBundle(t *testing.T) {
	forEachShell(t, func(t *testing.T, shell string) {
		ca := newAuthority(t)
		s := newServer(t, "127.0.0.1", ca.certificate(t, time.Hour))
		n := newNode(t, shell, cacheOf("docker.io", s, ca.pem))
		n.environment = append(n.environment, "REGISTRY_HOSTS_ROUNDS=1000")
		n.start()
		n.Eventually(n.published("docker.io")).ShouldNot(BeEmpty())
		n.Expect(os.RemoveAll(filepath.Join(n.sources, "ca"))).To(Succeed())
		before := s.requests.Load()
		n.Eventually(n.published("docker.io")).Should(BeEmpty())
		n.Expect(s.requests.Load()-before).To(BeNumerically("<=", 1), "it was not withdrawn in the next round")
		n.configure(cacheOf("docker.io", s, ca.pem))
		n.Eventually(n.published("docker.io")).ShouldNot(BeEmpty())
	})
}

func TestScriptWithdrawsWhenStopped(t *testing.T) {
	forEachShell(t, func(t *testing.T, shell string) {
		s := newServer(t, "127.0.0.1", nil)
		for _, signal := range []os.Signal{syscall.SIGTERM, syscall.SIGINT} {
			n := newNode(t, shell, cacheOf("docker.io", s, nil))
			// A stop must not wait for the end of the pause.
			n.environment = append(n.environment, "REGISTRY_HOSTS_INTERVAL=60")
			n.start()
			n.Eventually(n.published("docker.io")).ShouldNot(BeEmpty())
			start := time.Now()
			n.Expect(n.script.Process.Signal(signal)).To(Succeed())
			n.Expect(n.script.Wait()).To(Succeed())
			n.script = nil
			n.Expect(time.Since(start)).To(BeNumerically("<", 10*time.Second))
			n.Expect(n.directories()).To(BeEmpty())
		}
	})
}

func TestScriptSurvivesBeingKilled(t *testing.T) {
	forEachShell(t, func(t *testing.T, shell string) {
		s := newServer(t, "127.0.0.1", nil)
		n := newNode(t, shell, cacheOf("docker.io", s, nil), cacheOf("quay.io", s, nil))
		leave := func() {
			n.start()
			n.Eventually(n.published("docker.io")).ShouldNot(BeEmpty())
			n.kill()
			n.Expect(n.published("docker.io")()).NotTo(BeEmpty())
			// Killed while it wrote, at once and later.
			for _, upstream := range []string{"docker.io", "gone.io"} {
				n.Expect(os.MkdirAll(filepath.Join(n.certs, upstream), 0o755)).To(Succeed())
				n.Expect(os.WriteFile(filepath.Join(n.certs, upstream, ".hosts.toml.registry-hosts"), []byte(marker[:9]), 0o600)).To(Succeed())
			}
			n.Expect(os.RemoveAll(filepath.Join(n.certs, "quay.io"))).To(Succeed())
			n.Expect(os.Mkdir(filepath.Join(n.certs, "quay.io"), 0o755)).To(Succeed())
		}

		leave()
		n.Expect(n.command("withdraw").Run()).To(Succeed())
		n.Expect(n.directories()).To(BeEmpty())

		leave()
		s.stop()
		n.start()
		n.Eventually(n.directories).Should(BeEmpty())
	})
}

func TestReaderNeverSeesPartOfAFile(t *testing.T) {
	forEachShell(t, func(t *testing.T, shell string) {
		cache, mirror := newServer(t, "127.0.0.1", nil), newServer(t, "127.0.0.1", nil)
		registry := cacheOf("docker.io", cache, nil)
		registry.Hosts = append(registry.Hosts, Host{Kind: Mirror, URL: mirror.url})
		n := newNode(t, shell, registry)
		states := map[string]bool{
			"": true,
			n.wanted("docker.io", cacheFragment, mirrorFragment): true,
			n.wanted("docker.io", cacheFragment):                 true,
			n.wanted("docker.io", mirrorFragment):                true,
		}
		// Each server fails twice in a row, and then answers once or more.
		flip := func(period int64) http.HandlerFunc {
			var count int64
			return func(w http.ResponseWriter, _ *http.Request) {
				if count++; count%period < 2 {
					connection, _, err := http.NewResponseController(w).Hijack()
					if err == nil {
						_ = connection.Close()
					}
				}
			}
		}
		cache.answer(flip(3))
		mirror.answer(flip(5))
		n.environment = append(n.environment, "REGISTRY_HOSTS_INTERVAL=0", "REGISTRY_HOSTS_RETRY_INTERVAL=0", "REGISTRY_HOSTS_CONFIRM_INTERVAL=0")
		n.start()

		seen := map[string]bool{}
		read := n.published("docker.io")
		for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline) && (len(seen) < len(states) || cache.requests.Load() < 30); {
			content := read()
			n.Expect(states).To(HaveKey(content))
			seen[content] = true
		}
		n.Expect(seen).To(Equal(states))
	})
}

func TestScriptTakesNamesAsData(t *testing.T) {
	forEachShell(t, func(t *testing.T, shell string) {
		s := newServer(t, "127.0.0.1", nil)
		n := newNode(t, shell, cacheOf("docker.io", s, nil))
		canary := filepath.Join(t.TempDir(), "canary")
		// No upstream is called that, but the script does not rely on it.
		names := []string{"$(touch ${HOME}canary)", "`id`", "*", "a b", "-rf", "[a]", "%{http_code}", `back\slash`, "quote'\""}
		n.environment = append(n.environment, "HOME="+strings.TrimSuffix(canary, "canary"))
		for _, name := range names {
			n.Expect(os.CopyFS(filepath.Join(n.sources, name), os.DirFS(filepath.Join(n.sources, "docker.io")))).To(Succeed())
		}
		n.start()
		for _, name := range append(names, "docker.io") {
			n.Eventually(n.published(name)).Should(Equal(n.wanted("docker.io", cacheFragment)), name)
		}
		s.stop()
		n.Eventually(n.directories).Should(BeEmpty())
		n.Expect(canary).NotTo(BeAnExistingFile())
	})
}

func TestScriptWithoutCurl(t *testing.T) {
	forEachShell(t, func(t *testing.T, shell string) {
		s := newServer(t, "127.0.0.1", nil)
		n := newNode(t, shell, cacheOf("docker.io", s, nil))
		programs := t.TempDir()
		link := func(name string) {
			target, err := exec.LookPath(name)
			n.Expect(err).NotTo(HaveOccurred())
			n.Expect(os.Symlink(target, filepath.Join(programs, name))).To(Succeed())
		}
		// All that the script may use besides builtins.
		for _, name := range []string{"mkdir", "mv", "rm", "rmdir", "sleep", "sync"} {
			link(name)
		}
		n.environment = append(n.environment, "PATH="+programs)
		n.start()
		n.Eventually(n.logged).Should(ContainSubstring("there is no curl"))
		link("curl")
		n.Eventually(n.published("docker.io")).ShouldNot(BeEmpty())
		n.Expect(os.Remove(filepath.Join(programs, "curl"))).To(Succeed())
		n.Eventually(n.published("docker.io")).Should(BeEmpty())
		n.Consistently(n.published("docker.io")).Should(BeEmpty())
		n.Expect(strings.Count(n.logged(), "there is no curl")).To(Equal(1))
		n.Expect(n.logged()).NotTo(ContainSubstring("not found"))
	})
}

func TestScriptRunsOneCurlARound(t *testing.T) {
	forEachShell(t, func(t *testing.T, shell string) {
		const hosts = 5
		var now atomic.Int64
		var together atomic.Bool
		slow := func(_ http.ResponseWriter, r *http.Request) {
			if now.Add(1) == hosts {
				together.Store(true)
			}
			defer now.Add(-1)
			select {
			case <-time.After(500 * time.Millisecond):
			case <-r.Context().Done():
			}
		}
		registries, servers := []Registry{}, []*server{}
		for i := range hosts {
			s := newServer(t, "127.0.0.1", nil)
			s.answer(slow)
			servers = append(servers, s)
			registries = append(registries, cacheOf(fmt.Sprintf("r%d.example.com", i), s, nil))
		}
		n := newNode(t, shell, registries...)
		curl, err := exec.LookPath("curl")
		n.Expect(err).NotTo(HaveOccurred())
		programs := t.TempDir()
		calls := filepath.Join(programs, "calls")
		wrapper := fmt.Sprintf("#!/bin/sh\necho x >>'%s'\nexec '%s' \"$@\"\n", calls, curl)
		n.Expect(os.WriteFile(filepath.Join(programs, "curl"), []byte(wrapper), 0o700)).To(Succeed())
		n.environment = append(n.environment, "PATH="+programs+":"+os.Getenv("PATH"))

		n.start()
		for _, registry := range registries {
			n.Eventually(n.published(registry.Upstream)).ShouldNot(BeEmpty())
		}
		n.Eventually(together.Load).Should(BeTrue(), "the hosts were not asked at the same time")
		n.settle(servers[0])
		n.kill()
		content, err := os.ReadFile(calls)
		n.Expect(err).NotTo(HaveOccurred())
		rounds := int64(strings.Count(string(content), "\n"))
		for _, s := range servers {
			n.Expect(s.requests.Load()).To(BeNumerically("~", rounds, 1))
		}
	})
}

func TestScriptEndsRatherThanGoOnWithoutPauses(t *testing.T) {
	forEachShell(t, func(t *testing.T, shell string) {
		n := newNode(t, shell)
		n.environment = append(n.environment, "REGISTRY_HOSTS_INTERVAL=never")
		n.start()
		n.Expect(n.script.Wait()).To(MatchError("exit status 1"))
		n.script = nil
	})
}

func TestScriptRefusesUnknownArguments(t *testing.T) {
	n := newNode(t, "sh")
	n.Expect(n.command("withdrawn").Run()).To(MatchError("exit status 2"))
}

// BenchmarkRound measures the CPU time of a round with five healthy caches with
// TLS, of the shell and all that it starts. One round each 10 s may take 20 ms:
// 0.2 % of a core.
func BenchmarkRound(b *testing.B) {
	for _, shell := range []string{"dash", "bash"} {
		b.Run(shell, func(b *testing.B) {
			ca := newAuthority(b)
			registries, servers := []Registry{}, []*server{}
			for i := range 5 {
				s := newServer(b, "127.0.0.1", ca.certificate(b, time.Hour))
				servers = append(servers, s)
				registries = append(registries, cacheOf("r"+strconv.Itoa(i)+".example.com", s, ca.pem))
			}
			n := newNode(b, shell, registries...)
			n.environment = append(n.environment, "REGISTRY_HOSTS_INTERVAL=0.01")
			b.ResetTimer()
			n.start()
			n.Eventually(servers[0].requests.Load).WithTimeout(time.Minute).Should(BeNumerically(">=", b.N))
			b.StopTimer()
			n.Expect(n.script.Process.Signal(syscall.SIGTERM)).To(Succeed())
			n.Expect(n.script.Wait()).To(Succeed())
			used := n.script.ProcessState.UserTime() + n.script.ProcessState.SystemTime()
			n.script = nil
			round := used / time.Duration(servers[0].requests.Load())
			b.ReportMetric(float64(round.Microseconds())/1000, "cpu-ms/round")
			b.ReportMetric(round.Seconds()/10*100, "%core-at-10s")
		})
	}
}
