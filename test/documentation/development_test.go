// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package documentation_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
)

func developmentSpecs() {
	const page = "development.md"

	It("runs the cache server and the script of nodes by hand, and pushes images to the registry of that", func(ctx SpecContext) {
		const byHand = "Run the cache server by hand"
		server := docs.block(page, byHand, 1)
		look, printed := docs.console(page, byHand, 2)
		script := docs.command(page, "Run the node script by hand")
		images := docs.command(page, "Container images")
		const runs = "sh pkg/hosts/registry-hosts.sh\n"
		Expect(script).To(HaveSuffix(runs))

		// One shell for all, for they need what runs in its background. The folder /tmp is
		// the machine's, and may have this repository in it: what the shell changes there
		// lies elsewhere and goes with it.
		await := `await() { for _ in $(seq 300); do if "$@"; then return; fi; sleep 0.1; done; echo "in vain: $*"; return 1; }`
		commands := strings.Join([]string{
			"trap 'kill $(jobs -p) 2>/dev/null || :' EXIT", "unset VERSION REGISTRY",
			"mkdir scratch", "mount -t tmpfs tmpfs scratch", "mkdir scratch/upper scratch/work",
			"mount -t overlay overlay -o lowerdir=/tmp,upperdir=$PWD/scratch/upper,workdir=$PWD/scratch/work /tmp",
			"rm -rf /tmp/registry-cache-example /tmp/node /tmp/layer.tar /tmp/hello.tar /tmp/stored.tar",
			await, server, look,
			"echo == images",
			images, "bin/crane ls 127.0.0.1:5555/registry-cache",
			"echo == stopped",
			"kill %1", "wait %1 || :", "bin/crane pull 127.0.0.1:5000/example/hello:v1 /tmp/stored.tar", "cmp /tmp/hello.tar /tmp/stored.tar",
			`curl -sS -o /dev/null -w 'not stored: %{http_code}\n' http://127.0.0.1:5000/v2/example/other/manifests/v1`,
			"echo == script",
			strings.TrimSuffix(script, runs) + "sh pkg/hosts/registry-hosts.sh &",
			"await test -f /tmp/node/certs.d/docker.io/hosts.toml",
			"cat /tmp/node/certs.d/docker.io/hosts.toml",
			"kill %2", "await test ! -f /tmp/node/certs.d/docker.io/hosts.toml", "kill %3", "wait %3 || :",
		}, "\n")
		Expect(os.WriteFile(filepath.Join(docs.dir, "by-hand.sh"), []byte(commands), 0o600)).To(Succeed())
		output := docs.run(ctx, "unshare --mount bash -euo pipefail by-hand.sh")

		cache, rest, found := strings.Cut(output, "\n== images\n")
		Expect(found).To(BeTrue())
		Expect(cache).To(And(
			MatchRegexp(`msg=Serving upstream=127\.0\.0\.1:5555 address=127\.0\.0\.1:5000 tls=false`),
			MatchRegexp(`msg=Request .*path=/v2/example/hello/manifests/v1 .*cache=miss`),
			ContainSubstring("\n"+strings.Join(printed[:4], "\n")+"\n"), MatchRegexp(`(?m)^ok$`),
			MatchRegexp(`(?m)^/tmp/registry-cache-example/storage/docker/registry/v2/blobs/sha256/../[0-9a-f]{64}/data$`)))
		pushed, rest, found := strings.Cut(rest, "\n== stopped\n")
		Expect(found).To(BeTrue())
		// What is logged may come a moment later than what is printed.
		Expect(rest).To(And(
			MatchRegexp(`msg=Request .*path=/v2/example/hello/manifests/v1 .*status=200 cache=stale`),
			MatchRegexp(`(?m)^not stored: 503$`), MatchRegexp(`msg=Request .*path=/v2/example/other/manifests/v1 .*status=503`)))
		_, hosts, found := strings.Cut(rest, "\n== script\n")
		Expect(found).To(BeTrue())
		Expect(hosts).To(And(
			ContainSubstring("[host.'http://127.0.0.1:5000']"), ContainSubstring("http://127.0.0.1:5000/v2/: answers"),
			ContainSubstring("docker.io: wrote hosts.toml"), ContainSubstring("http://127.0.0.1:5000/v2/: still does not answer, withdrawn"),
			ContainSubstring("docker.io: removed hosts.toml, pulls are direct")))
		version, err := os.ReadFile("../../VERSION")
		Expect(err).NotTo(HaveOccurred())
		Expect(pushed).To(MatchRegexp(`(?m)^` + regexp.QuoteMeta(strings.TrimSpace(string(version))) + `$`))
	}, SpecTimeout(5*time.Minute))
}
