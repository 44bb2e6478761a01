// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package documentation_test

import (
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/gardener/gardener-extension-registry-cache/test/gardener"
)

const (
	// left prints what is left of the extension in a cluster, of all types: by its name, or
	// by the label of a cache. What a ManagedResource had is for the garbage collector of a
	// Seed, which comes twice a day.
	left = `types=$(kubectl api-resources --verbs list --output name | grep -vE '^(events|componentstatuses|endpoints)(\.|$)' | paste -sd ,)
collected=resources.gardener.cloud/garbage-collectable-reference
{
  kubectl get "$types" -A -o name -l "$collected!=true" 2>errors |
    { grep -E 'registry-?(cache|mirror)|upstream-test|docker-io|private-test' || :; }
  kubectl get "$types" -A -o name -l "upstream-host,$collected!=true" 2>errors
} | sort -u`
	// leftOnNode prints the same on the node: files, processes, and the unit, of which
	// systemd may remember the name for some time when its file is gone.
	leftOnNode = `find /var/lib/registry-hosts /etc/systemd/system -path '*registry-hosts*' ! -type d 2>/dev/null || :
grep -lsF registry-hosts.service /etc/containerd/certs.d/*/hosts.toml || :
grep -ls 'registry-hosts[.]sh' /proc/[0-9]*/cmdline || :
systemctl list-units --all --plain --no-legend 'registry-hosts*' | grep -vE ' not-found +inactive +dead ' || :`
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
		Expect(docs.run(ctx, docs.command(page, "With gardener-operator"))).To(And(
			ContainSubstring("extension.operator.gardener.cloud/registry-cache created"), MatchRegexp(`(?m)^NAME +INSTALLED `)))
		docs.run(ctx, "kubectl delete -f example/operator-extension.yaml\nkubectl delete"+files)
	}, SpecTimeout(time.Minute))

	It("is removed, and nothing of it stays", func(ctx SpecContext) {
		commands := docs.commands(page, "Remove it")
		Expect(commands).To(HaveLen(2))
		docs.run(ctx, "export KUBECONFIG=garden.kubeconfig")
		Expect(docs.run(ctx, commands[0])).To(MatchRegexp(`(?m)^garden-dev +good `))
		// What this looks for is there before.
		Expect(docs.run(ctx, left)).To(And(
			ContainSubstring("validatingwebhookconfiguration.admissionregistration.k8s.io/gardener-extension-admission-registry-cache\n"),
			ContainSubstring("controllerregistration.core.gardener.cloud/")))
		docs.run(ctx, "export KUBECONFIG=seed.kubeconfig")
		Expect(docs.run(ctx, left)).To(And(
			ContainSubstring("extension.extensions.gardener.cloud/registry-cache\n"), ContainSubstring("managedresource.resources.gardener.cloud/extension-registry-cache-services\n"),
			ContainSubstring("customresourcedefinition.apiextensions.k8s.io/registrycaches."), ContainSubstring("registrycache.registry.extensions.gardener.cloud/registry-docker-io\n"),
			ContainSubstring("statefulset.apps/registry-docker-io\n"), ContainSubstring("persistentvolumeclaim/cache-volume-registry-upstream-test-0\n"),
			ContainSubstring("deployment.apps/gardener-extension-registry-cache\n"), ContainSubstring("namespace/extension-registry-cache\n")))
		Expect(onNode(ctx, leftOnNode)).To(And(
			ContainSubstring("/var/lib/registry-hosts/docker.io/10-cache.toml\n"), ContainSubstring("/var/lib/registry-hosts/upstream.test/10-cache.toml\n"),
			ContainSubstring("/etc/systemd/system/registry-hosts.service\n"), MatchRegexp(`registry-hosts\.service +loaded active`), MatchRegexp(`/proc/[0-9]+/cmdline\n`),
			ContainSubstring(popularHostsTOML+"\n"), ContainSubstring("/etc/containerd/certs.d/upstream.test/hosts.toml\n")))
		docs.run(ctx, "export KUBECONFIG=garden.kubeconfig")

		By("removing it from the Shoots")
		docs.run(ctx, `for shoot in $(kubectl -n garden-dev get shoots -o name); do
  kubectl -n garden-dev patch $shoot --type merge -p '{"spec": {"extensions": null, "resources": null}}'
done`)
		Expect(docs.run(ctx, commands[0])).To(Equal("No resources found\nNo resources found\n"))
		Expect(shoot.DisableExtension(ctx)).To(Succeed())
		_, err := shoot.UpdateNode(ctx)
		Expect(err).NotTo(HaveOccurred())
		Eventually(onNode).WithArguments(ctx, leftOnNode).Should(BeEmpty())

		By("removing it")
		docs.run(ctx, "kubectl delete -f example/controller-registration.yaml")
		// Nobody finalizes namespaces of the garden here, as its kube-controller-manager does.
		docs.run(ctx, strings.TrimSpace(commands[1])+" --wait=false")
		Expect(docs.run(ctx, left+" | { grep -vx namespace/extension-registry-cache || :; }")).To(BeEmpty())
		docs.run(ctx, "export KUBECONFIG=seed.kubeconfig")
		Eventually(docs.try).WithArguments(ctx, left).WithTimeout(2 * time.Minute).WithPolling(2 * time.Second).Should(BeEmpty())
		// As gardenlet goes on to do.
		_, err = shoot.WriteOperatingSystemConfig(ctx)
		Expect(err).NotTo(HaveOccurred())
	}, SpecTimeout(6*time.Minute))
}
