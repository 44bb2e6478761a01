// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package documentation_test

import (
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/gardener/gardener-extension-registry-cache/test/pages"
	"github.com/gardener/gardener-extension-registry-cache/test/upstream"
)

// What the plugin prints in other cases is tested in test/integration/plugin.
func pluginSpecs() {
	const page = "usage/kubectl-plugin.md"

	It("installs the plugin, whose arguments kubectl completes", func(ctx SpecContext) {
		docs.run(ctx, "export KUBECONFIG=seed.kubeconfig")

		By("installing a release, which is where GitHub would have it")
		docs.run(ctx, "VERSION=v0.1.0 hack/plugin.sh -platforms linux/amd64")
		github, err := land.StartRegistry(ctx, upstream.Speed{}, "", "", "github.com")
		Expect(err).NotTo(HaveOccurred())
		DeferCleanup(github.Close)
		github.Intercept(func(http.Handler) http.Handler {
			return http.StripPrefix("/gardener/gardener-extension-registry-cache/releases/download/v0.1.0", http.FileServer(http.Dir(filepath.Join(docs.dir, "bin/plugin"))))
		})
		Expect(docs.run(ctx, docs.block(page, "Install it", 2))).To(And(
			ContainSubstring("kubectl-registry_cache-linux-amd64.tar.gz: OK"), ContainSubstring("kubectl registry-cache")))

		By("installing what is built")
		installed, err := filepath.Glob(filepath.Join(docs.home(), ".local/bin/*"))
		Expect(err).NotTo(HaveOccurred())
		Expect(installed).To(ConsistOf(HaveSuffix("/kubectl-registry_cache")))
		Expect(os.Remove(installed[0])).To(Succeed())
		docs.run(ctx, docs.block(page, "Install it", 3))
		Expect(docs.run(ctx, "kubectl registry-cache --help; command -v kubectl-registry_cache")).To(HaveSuffix("/home/.local/bin/kubectl-registry_cache\n"))
		docs.run(ctx, docs.block(page, "Install it", 6))
		Expect(docs.run(ctx, "kubectl __complete registry-cache ''")).To(And(ContainSubstring("status\t"), ContainSubstring("explain-pull\t")))
	}, SpecTimeout(3*time.Minute))

	It("shows how the caches are, also to scripts", func(ctx SpecContext) {
		expectPull(ctx, false)
		commands, printed := docs.console(page, "status", 1)
		// A cache reports twice a minute at most.
		Eventually(docs.try).WithArguments(ctx, commands).WithTimeout(2 * time.Minute).WithPolling(2 * time.Second).Should(MatchRegexp(`(?m)^docker\.io +1/1 +[0-9]+%`))
		Expect(table(docs.run(ctx, commands), printed[0])).To(ConsistOf(
			MatchRegexp(`^docker\.io +1/1 +[0-9]+% +[0-9.]+.iB of [0-9]+[KMGT]iB \([0-9]+%\) +none +[0-9]+ +[0-9]+[smh] ago +https://10\.96\.[0-9.]+:5000 +-$`),
			HavePrefix("upstream.test ")))
		down := docs.block(page, "status", 2)
		Expect(docs.run(ctx, down)).To(BeEmpty())
		DeferCleanup(func(ctx SpecContext) {
			Expect(shoot.ScaleCache(ctx, upstreamHost, 1)).To(Succeed())
			Expect(land.AwaitCache(ctx, upstreamHost)).Error().NotTo(HaveOccurred())
		})
		Expect(shoot.ScaleCache(ctx, upstreamHost, 0)).To(Succeed())
		// A replica less is wanted at once, and none is ready a moment later.
		Eventually(docs.try).WithArguments(ctx, down).Should(Equal(upstreamHost + "\n"))
	}, SpecTimeout(4*time.Minute))

	It("shows what the caches do, until it is told to stop", func(ctx SpecContext) {
		commands, printed := docs.console(page, "top", 1)
		// Its own exit code: it ends well when it is told to, and is not killed. A table comes
		// every 5 seconds.
		output := docs.run(ctx, "timeout --foreground --preserve-status --signal INT --kill-after 10 20 "+strings.TrimSpace(commands))
		Expect(table(output, printed[0])).To(ContainElement(MatchRegexp(`^docker\.io +1/1 +[0-9.]+ `)))
		Expect(len(regexp.MustCompile(`(?m)^UPSTREAM +PODS `).FindAllString(output, -1))).To(BeNumerically(">=", 2), "tables")
		once := strings.Replace(docs.block(page, "top", 2), "--interval 30s", "--interval 1s", 1)
		Expect(table(docs.run(ctx, once), printed[0])).To(ConsistOf(HavePrefix("docker.io "), HavePrefix("upstream.test ")))
	}, SpecTimeout(time.Minute))

	It("lists images, also to scripts", func(ctx SpecContext) {
		commands, printed := docs.console(page, "images", 1)
		Expect(table(docs.run(ctx, commands), printed[0])).To(ContainElement(
			MatchRegexp(`^docker\.io/library/nginx:1\.29 +[0-9.]+.iB +[^ ]+ ago +(all|[0-9]+ of [0-9]+) +sha256:[0-9a-f]{64}$`)))
		Expect(docs.run(ctx, docs.block(page, "images", 2))).To(MatchRegexp(`(?m)^[1-9][0-9]+ library/nginx$`))
	}, SpecTimeout(time.Minute))

	It("explains where nodes get an image from", func(ctx SpecContext) {
		commands, printed := docs.console(page, "explain-pull", 1)
		output := docs.run(ctx, commands)
		Expect(labels(strings.Split(strings.TrimSpace(output), "\n"))).To(Equal(labels(printed)))
		Expect(output).To(And(
			MatchRegexp(`(?m)^Image: +docker\.io/library/nginx:1\.29$`), MatchRegexp(`(?m)^Cache: +registry-docker-io, 1 of 1 pods ready$`),
			MatchRegexp(`(?m)^Cached: +yes, all [0-9]+ blobs, `), MatchRegexp(`(?m)^ +tag 1\.29 was last sha256:[0-9a-f]{64}; `)))
	}, SpecTimeout(time.Minute))

	It("validates Shoots, of a file and of the garden", func(ctx SpecContext) {
		docs.run(ctx, `cat >shoot.yaml <<'END'
apiVersion: core.gardener.cloud/v1beta1
kind: Shoot
metadata:
  name: example
spec:
  extensions:
  - type: registry-cache
    providerConfig:
      apiVersion: registry.extensions.gardener.cloud/v1alpha3
      kind: RegistryConfig
      caches:
      - upstream: https://docker.io
END`)
		commands, printed := docs.console(page, "lint", 1)
		Expect(pages.TrimLines(docs.run(ctx, "set +e\n"+commands+"set -e"))).To(Equal(printed))
		docs.run(ctx, "export KUBECONFIG=garden.kubeconfig")
		Expect(docs.run(ctx, docs.block(page, "lint", 2))).To(ContainSubstring("Shoot garden-dev/example: ok"))
	}, SpecTimeout(time.Minute))
}

// table expects that a table has the columns that a page shows, and returns its rows.
func table(output, header string) []string {
	GinkgoHelper()
	lines := pages.TrimLines(output)
	Expect(lines).NotTo(BeEmpty())
	columns := func(line string) []string { return strings.Split(strings.Join(strings.Fields(line), " "), " ") }
	Expect(columns(lines[0])).To(Equal(columns(header)))
	return lines[1:]
}

// labels are the beginnings of lines up to a colon, of those that have one there.
func labels(lines []string) []string {
	var found []string
	for _, line := range lines {
		if label, _, ok := strings.Cut(line, ": "); ok && !strings.HasPrefix(line, " ") {
			found = append(found, label)
		}
	}
	return found
}
