// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package documentation_test

import (
	"fmt"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/gardener/gardener-extension-registry-cache/test/gardener"
)

// removalSpecs are the last ones: nothing is left then.
func removalSpecs() {
	const page = "operations/installation.md"

	It("registers the extension with gardener-operator, as far as its API goes", func(ctx SpecContext) {
		// There is no gardener-operator, so that nobody does what is asked for.
		definitions, err := gardener.DefinitionFiles(ctx, "runtime")
		Expect(err).NotTo(HaveOccurred())
		files := " -f " + strings.Join(definitions, " -f ")
		docs.run(ctx, "export KUBECONFIG=runtime.kubeconfig")
		docs.run(ctx, "kubectl create"+files+"\nkubectl wait --for condition=Established"+files)
		Expect(docs.run(ctx, docs.commands(page, "With gardener-operator")[0])).To(And(
			ContainSubstring("extension.operator.gardener.cloud/registry-cache created"), MatchRegexp(`(?m)^NAME +INSTALLED `)))
		docs.run(ctx, "kubectl delete -f example/operator-extension.yaml\nkubectl delete"+files)
	}, SpecTimeout(time.Minute))

	It("is removed, and nothing of it stays", func(ctx SpecContext) {
		commands := docs.commands(page, "Remove it")
		Expect(commands).To(HaveLen(2))
		docs.run(ctx, "export KUBECONFIG=garden.kubeconfig")
		Expect(docs.run(ctx, commands[0])).To(MatchRegexp(`(?m)^garden-dev +good `))

		By("removing it from the Shoots")
		docs.run(ctx, `for shoot in $(kubectl -n garden-dev get shoots -o name); do
  kubectl -n garden-dev patch $shoot --type merge -p '{"spec": {"extensions": null, "resources": null}}'
done`)
		Expect(docs.run(ctx, commands[0])).To(Equal("No resources found\nNo resources found\n"))
		Expect(shoot.DisableExtension(ctx)).To(Succeed())
		_, err := shoot.UpdateNode(ctx)
		Expect(err).NotTo(HaveOccurred())
		Expect(land.Node.Path(popularHostsTOML)).NotTo(BeAnExistingFile())

		By("removing it")
		docs.run(ctx, "kubectl delete -f example/controller-registration.yaml")
		// Nobody finalizes namespaces of the garden here, as its kube-controller-manager does.
		docs.run(ctx, strings.TrimSpace(commands[1])+" --wait=false")
		// What a ManagedResource had is for the garbage collector of a Seed, which comes
		// twice a day.
		const left = "kubectl get mutatingwebhookconfigurations,validatingwebhookconfigurations,clusterroles,clusterrolebindings%s -A -o name" +
			" -l 'resources.gardener.cloud/garbage-collectable-reference!=true' | { grep registry-cache || :; }"
		Expect(docs.run(ctx, fmt.Sprintf(left, ""))).To(BeEmpty())
		docs.run(ctx, "export KUBECONFIG=seed.kubeconfig")
		Eventually(docs.try).WithArguments(ctx, fmt.Sprintf(left, ",namespaces,all,secrets,configmaps,leases,roles,rolebindings,serviceaccounts,persistentvolumeclaims")).
			Should(BeEmpty())
		// As gardenlet goes on to do.
		_, err = shoot.WriteOperatingSystemConfig(ctx)
		Expect(err).NotTo(HaveOccurred())
	}, SpecTimeout(4*time.Minute))
}
