// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package documentation_test

import (
	"context"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"k8s.io/utils/ptr"

	mirrorv1alpha1 "github.com/gardener/gardener-extension-registry-cache/pkg/apis/mirror/v1alpha1"
	"github.com/gardener/gardener-extension-registry-cache/test/landscape"
	"github.com/gardener/gardener-extension-registry-cache/test/upstream"
)

// usageSpecs are what the owner of a Shoot does, in the garden and in the Shoot. The
// Shoot of the garden and the one with the node are two: nothing carries one to the
// other here.
func usageSpecs() {
	const (
		caches      = "usage/registry-cache.md"
		mirrors     = "usage/registry-mirror.md"
		credentials = "usage/credentials.md"
		works       = "See whether it works"
	)

	It("gives a cache credentials, and changes them", func(ctx SpecContext) {
		docs.run(ctx, "export KUBECONFIG=garden.kubeconfig")
		docs.run(ctx, "sed '1,/^---$/d; s/^  name: good$/  name: example/' example/admission/good.yaml | kubectl create -f -")
		// Other pages have an example-registry too.
		own := func(text string) string { return strings.ReplaceAll(text, "example-registry-v", "own-registry-v") }
		give := own(docs.command(credentials, "Give a cache credentials"))
		change := own(docs.command(credentials, "Change the credentials"))
		Expect(docs.run(ctx, give)).To(ContainSubstring("secret/own-registry-v1 created"))
		patchExample(ctx, own(docs.yaml(credentials, "Give a cache credentials")[0]))

		By("changing them, before and after there is a Secret")
		output, err := docs.try(ctx, change)
		Expect(err).To(HaveOccurred())
		Expect(output).To(ContainSubstring(`secrets "own-registry-v2" not found`))
		docs.run(ctx, strings.Replace(give, "own-registry-v1", "own-registry-v2", 1))
		docs.run(ctx, change)
		Expect(docs.run(ctx, "kubectl -n garden-dev get shoot example -o jsonpath='{.spec.resources[*].resourceRef.name}'")).To(Equal("own-registry-v2"))
	}, SpecTimeout(time.Minute))

	It("tells in the garden whether the Shoot's caches are well", func(ctx SpecContext) {
		commands := docs.commands(caches, works, 1, 2)
		Expect(docs.run(ctx, commands[0])).To(BeEmpty())
		Expect(docs.run(ctx, commands[1])).To(BeEmpty())
		// As Gardener reports.
		docs.run(ctx, `kubectl -n garden-dev patch shoot example --subresource status --type merge -p '{"status": {
			"lastErrors": [{"description": "not well configured"}],
			"conditions": [
				{"type": "EveryNodeReady", "status": "True", "reason": "Test", "message": "another", "lastTransitionTime": "2026-01-01T00:00:00Z", "lastUpdateTime": "2026-01-01T00:00:00Z"},
				{"type": "SystemComponentsHealthy", "status": "False", "reason": "Test", "message": "not well", "lastTransitionTime": "2026-01-01T00:00:00Z", "lastUpdateTime": "2026-01-01T00:00:00Z"}
			]}}'`)
		Expect(docs.run(ctx, commands[0])).To(ContainSubstring("not well configured"))
		Expect(docs.run(ctx, commands[1])).To(Equal("not well"))
		Expect(docs.run(ctx, docs.block(mirrors, works, 1))).To(ContainSubstring("not well configured"))
	}, SpecTimeout(time.Minute))

	It("tells in the Shoot how the caches are and what they do, and on the node whether it uses them", func(ctx SpecContext) {
		docs.run(ctx, "export KUBECONFIG=seed.kubeconfig")
		commands := docs.commands(caches, works, 3, 4, 5, 6)
		// A cache reports twice a minute at most.
		Eventually(docs.try).WithArguments(ctx, commands[0]).WithTimeout(2 * time.Minute).WithPolling(2 * time.Second).Should(And(
			MatchRegexp(`(?m)^registry-docker-io +docker\.io `), MatchRegexp(`(?m)^registry-upstream-test +upstream\.test `),
			ContainSubstring("  endpoint: https://10.96."), ContainSubstring("  hitRatio: ")))
		Expect(docs.run(ctx, commands[1])).To(And(
			ContainSubstring("statefulset.apps/registry-docker-io"), ContainSubstring("pod/registry-docker-io-0"),
			ContainSubstring("service/registry-docker-io"), ContainSubstring("persistentvolumeclaim/cache-volume-registry-docker-io-0"),
			MatchRegexp(`"msg":"Request".*"path":"/v2/library/nginx/[^"]*","status":200,.*"cache":"hit"`)))
		Expect(docs.run(ctx, commands[2])).To(MatchRegexp(`(?m)^registry_proxy_hits_total\{type="blob"\} [1-9]`))
		Expect(onNode(ctx, commands[3])).To(And(
			ContainSubstring("[host.'https://10.96."), ContainSubstring("Active: active (running)"), ContainSubstring("docker.io: wrote hosts.toml")))
	}, SpecTimeout(3*time.Minute))

	It("adds a mirror with a private CA, below a path", func(ctx SpecContext) {
		private, ca, err := land.StartPrivateRegistry(ctx, upstream.Speed{}, "harbor.example.com")
		Expect(err).NotTo(HaveOccurred())
		DeferCleanup(private.Close)
		Expect(os.WriteFile(filepath.Join(docs.dir, "ca.pem"), ca, 0o600)).To(Succeed())
		image, err := landscape.NewImage(layers, layerSize)
		Expect(err).NotTo(HaveOccurred())
		Expect(landscape.Push(ctx, private, "library/nginx", "latest", image)).To(Succeed())
		private.Intercept(belowProject)

		By("making the Secret, and referring to it")
		docs.run(ctx, "export KUBECONFIG=garden.kubeconfig")
		const section = "A mirror with a private CA"
		Expect(docs.run(ctx, docs.command(mirrors, section))).To(ContainSubstring("secret/harbor-ca-v1 created"))
		patchExample(ctx, docs.yaml(mirrors, section)[0])

		By("trying what the mirror wants")
		try := docs.command(mirrors, "A mirror below a path: overridePath")
		Expect(docs.run(ctx, "export CURL_CA_BUNDLE=ca.pem\n"+try+"unset CURL_CA_BUNDLE")).To(Equal("200\n"))
		Expect(docs.run(ctx, "export CURL_CA_BUNDLE=ca.pem\n"+strings.Replace(try, "/v2/docker-hub", "/v2", 1)+"unset CURL_CA_BUNDLE")).To(Equal("404\n"))

		By("looking at the node")
		Expect(shoot.ReferToSecret(ctx, "harbor-ca", map[string][]byte{"bundle.crt": ca})).To(Succeed())
		Expect(shoot.ApplyMirrors(ctx, mirrorv1alpha1.MirrorConfiguration{Upstream: popularHost, Hosts: []mirrorv1alpha1.MirrorHost{{
			Host: "https://harbor.example.com/v2/docker-hub", OverridePath: ptr.To(true), CABundleSecretReferenceName: ptr.To("harbor-ca"),
		}}})).To(Succeed())
		_, err = shoot.UpdateNode(ctx)
		Expect(err).NotTo(HaveOccurred())
		commands := docs.block(mirrors, works, 2)
		Eventually(os.ReadFile).WithArguments(land.Node.Path(popularHostsTOML)).Should(ContainSubstring("harbor.example.com"))
		Expect(onNode(ctx, commands)).To(And(
			MatchRegexp(`(?s)\[host\.'https://10\.96\..*\[host\.'https://harbor\.example\.com/v2/docker-hub'\]`),
			ContainSubstring("https://harbor.example.com/v2/docker-hub/: answers")))
		Expect(shoot.DisableMirrors(ctx)).To(Succeed())
		_, err = shoot.UpdateNode(ctx)
		Expect(err).NotTo(HaveOccurred())
	}, SpecTimeout(2*time.Minute))
}

// patchExample changes the Shoot example of the garden to what a page says, which its
// admission has to accept.
func patchExample(ctx context.Context, patch string) {
	GinkgoHelper()
	Expect(os.WriteFile(filepath.Join(docs.dir, "patch.yaml"), []byte(patch), 0o600)).To(Succeed())
	Expect(docs.run(ctx, "kubectl -n garden-dev patch shoot example --type merge --patch-file patch.yaml")).To(ContainSubstring("shoot.core.gardener.cloud/example patched"))
}

// belowProject serves a registry as Harbor does a proxy project.
func belowProject(next http.Handler) http.Handler {
	return http.StripPrefix("/v2/docker-hub", http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
		request.URL.Path = "/v2" + request.URL.Path
		next.ServeHTTP(w, request)
	}))
}
