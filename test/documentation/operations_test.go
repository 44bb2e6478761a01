// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package documentation_test

import (
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
)

// operationsSpecs use the plugin, which has to be installed.
func operationsSpecs() {
	const sizing, troubleshooting, switching = "operations/sizing.md", "operations/troubleshooting.md", "operations/switch.md"

	It("tells what nodes pull, to choose upstreams and sizes", func(ctx SpecContext) {
		docs.run(ctx, "export KUBECONFIG=shoot.kubeconfig")
		Expect(docs.run(ctx, docs.command(sizing, "Which upstreams"))).To(MatchRegexp(`(?m)^ +[1-9][0-9]* registry\.example\.com$`))
		Expect(docs.run(ctx, docs.command(sizing, "The volume"))).To(MatchRegexp(`(?m)^registry\.example\.com +[0-9]+\.[0-9]{2} GiB$`))
	}, SpecTimeout(time.Minute))

	It("sees before a switch from the existing extension that Shoots are accepted, and after it that all went well", func(ctx SpecContext) {
		Expect(docs.run(ctx, docs.command(switching, "Before"))).To(And(ContainSubstring("Shoot garden-dev/good: ok"), ContainSubstring("Shoot garden-dev/example: ok")))
		Expect(docs.run(ctx, docs.command(switching, "Switch"))).To(ContainSubstring("shoot.core.gardener.cloud/example annotated"))
		after := docs.commands(switching, "See that it went well")
		Expect(after).To(HaveLen(2))
		Expect(docs.run(ctx, after[0])).To(And(
			MatchRegexp(`(?m)^extension-registry-cache +gardener-extension-registry-cache-.* Running `),
			MatchRegexp(`(?m)^`+shoot.Namespace+` Succeeded 20`)))
		Expect(docs.run(ctx, after[1])).To(And(
			MatchRegexp(`(?m)^docker\.io +1/1 `), MatchRegexp(`(?m)^registry-docker-io-0 +true +registry\.example\.com/dev/registry-cache:`)))
	}, SpecTimeout(time.Minute))

	It("looks at what is wrong, and switches one cache off and on", func(ctx SpecContext) {
		look := docs.commands(troubleshooting, "Troubleshooting")
		Expect(look).To(HaveLen(2))
		Expect(docs.run(ctx, look[0])).To(And(
			MatchRegexp(`(?m)^Cache: +registry-docker-io, 1 of 1 pods ready$`), ContainSubstring("persistentvolumeclaim/cache-volume-registry-docker-io-0")))
		Expect(docs.run(ctx, ofShoot(look[1]))).To(And(
			ContainSubstring("managedresource.resources.gardener.cloud/extension-registry-cache-services"), ContainSubstring(`"state":"Succeeded"`)))
		off := docs.commands(troubleshooting, "Switch it off")
		Expect(off).To(HaveLen(2))
		docs.run(ctx, ofShoot(off[0]))
		awaitHostsTOML(ctx, false)
		expectPull(ctx, true)
		docs.run(ctx, off[1])
		Eventually(docs.try).WithArguments(ctx, "KUBECONFIG=shoot.kubeconfig kubectl -n kube-system get statefulset registry-docker-io -o jsonpath='{.status.readyReplicas}'").
			WithTimeout(2 * time.Minute).Should(Equal("1"))
		awaitHostsTOML(ctx, true)
		expectPull(ctx, false)
	}, SpecTimeout(4*time.Minute))
}
