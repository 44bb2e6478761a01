// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/gardener/gardener-extension-registry-cache/test/process"
	"github.com/gardener/gardener-extension-registry-cache/test/upstream"
)

// What needs a kubelet: the pod's own token, and port forwarding. The rest of the plugin
// is in test/integration/plugin.
var _ = Describe("The owner of a Shoot", func() {
	It("sees with kubectl registry-cache how a cache is, and what it has", func(ctx SpecContext) {
		registry := startUpstream(ctx, upstream.Speed{}, "", "", "seen.test")
		pushImage(ctx, registry, "app")
		pullDirect(ctx, registry, "seen.test", "app", "direct, seen")
		applyCaches(ctx, cache("seen.test"))

		Expect(ask(ctx, "explain-pull", "seen.test/app:v1")).To(And(
			MatchRegexp(`Cache: +registry-seen-test, 1 of 1 pods ready`), MatchRegexp(`Cached: +no: not pulled through this cache yet`)))
		Expect(ask(ctx, "images", "seen.test")).To(MatchRegexp(`^IMAGE +SIZE +LAST USED +CACHED +DIGEST\n$`))

		expectCold(pull(ctx, registry, "seen.test", "app", "cold, seen"))
		// The node may have the layer that all images of these tests have.
		complete := fmt.Sprintf("(yes, all %d|in part: %d of %d)", layers+3, layers+2, layers+3)
		Eventually(ask).WithArguments(ctx, "explain-pull", "seen.test/app:v1").Should(
			MatchRegexp(`Cached: +%s blobs, ([0-9.]+MiB, )?last used [0-9]+s ago\n`, complete))
		Expect(ask(ctx, "images", "seen.test")).To(MatchRegexp(`seen\.test/app:v1 +[0-9.]+MiB +[0-9]+s ago +(all|[0-9]+ of [0-9]+) +sha256:[0-9a-f]{64}\n`))
		Expect(ask(ctx, "top", "--once", "--interval", "1s")).To(MatchRegexp(`seen\.test +1/1 +[0-9.]+ `))

		By("reporting, at most 30 seconds later")
		Eventually(ask).WithArguments(ctx, "status").WithTimeout(2 * time.Minute).Should(
			MatchRegexp(`seen\.test +1/1 +[0-9]+% +[0-9.]+[KMGT]?i?B of [0-9.]+[KMGT]iB \([0-9]+%\) +none +[0-9]+ +[0-9]+s ago +https://`))
	}, SpecTimeout(5*time.Minute))
})

// ask runs the plugin with the kubeconfig of the Shoot.
func ask(ctx context.Context, args ...string) (string, error) {
	binary, err := process.FindBinary("kubectl-registry_cache")
	if err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, binary, append(args, "--kubeconfig", land.Shoot.KubeconfigFile)...)
	var failed *exec.ExitError
	out, err := cmd.Output()
	if errors.As(err, &failed) {
		return "", fmt.Errorf("%w: %s", err, failed.Stderr)
	}
	return string(out), err
}
