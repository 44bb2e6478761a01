// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package documentation_test

import (
	"context"
	"runtime"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"k8s.io/utils/ptr"

	"github.com/gardener/gardener-extension-registry-cache/pkg/apis/registry/v1alpha3"
	"github.com/gardener/gardener-extension-registry-cache/test/landscape"
)

// popularImage is what is pulled through the cache of popularHost.
const popularImage = popularHost + "/library/nginx:1.29"

func lifecycleSpecs() {
	const page = "operations/lifecycle.md"

	It("gives the Shoot a cache of the upstream that most pages are about", func(ctx SpecContext) {
		docs.run(ctx, "export KUBECONFIG=seed.kubeconfig")
		registry.Intercept(nil)
		image := newOwnImage()
		for _, tag := range []string{"1.29", "latest"} {
			Expect(landscape.Push(ctx, registry, "library/nginx", tag, image)).To(Succeed())
		}
		applyCaches(ctx)
		expectPull(ctx, true)
		expectPull(ctx, false)
	}, SpecTimeout(2*time.Minute))

	It("tells how far the growth of volumes is", func(ctx SpecContext) {
		Expect(docs.run(ctx, docs.command(page, "A volume grows"))).To(And(
			MatchRegexp(`(?m)^NAME +WANTED +IS$`),
			MatchRegexp(`(?m)^cache-volume-registry-docker-io-0 +10Gi +10Gi$`),
			MatchRegexp(`(?m)^cache-volume-registry-upstream-test-0 +10Gi +10Gi$`)))
	}, SpecTimeout(time.Minute))

	It("makes anew what is deleted on the way back to the existing extension, while the pod goes on", func(ctx SpecContext) {
		back := docs.commands(page, "From the existing extension")
		Expect(back).To(HaveLen(2))
		before, err := land.Pod(ctx, popularHost)
		Expect(err).NotTo(HaveOccurred())
		Expect(docs.run(ctx, back[0])).To(And(
			MatchRegexp(`secret "registry-docker-io-tls" deleted`), MatchRegexp(`statefulset.apps "registry-docker-io" deleted`),
			Not(ContainSubstring("-config")), Not(ContainSubstring("-credentials"))))
		Expect(land.Pod(ctx, popularHost)).To(HaveField("DeletionTimestamp", BeNil()))

		By("deleting what the existing extension knows nothing of")
		Expect(docs.run(ctx, "kubectl -n kube-system get registrycaches -o name")).To(ContainSubstring("/registry-docker-io\n"))
		docs.run(ctx, ofShoot(back[1]))
		Eventually(func() error {
			_, err := docs.try(ctx, "kubectl -n kube-system get registrycaches")
			return err
		}).Should(HaveOccurred())
		Expect(docs.run(ctx, "kubectl -n kube-system get role,rolebinding -l upstream-host -o name")).To(BeEmpty())

		By("reconciling, as the page says")
		output := docs.run(ctx, ofShoot(docs.command(page, "Operations by annotation")))
		Expect(output).To(And(ContainSubstring("registry-cache annotated"), MatchRegexp(`"state":"(Processing|Succeeded)","type":"Reconcile"`)))
		Eventually(docs.try).WithArguments(ctx, "kubectl -n kube-system get registrycaches,statefulsets,secrets -l upstream-host=docker.io -o name").
			WithTimeout(3 * time.Minute).Should(And(
			ContainSubstring("registrycache.registry.extensions.gardener.cloud/registry-docker-io\n"),
			ContainSubstring("statefulset.apps/registry-docker-io\n"), ContainSubstring("secret/registry-docker-io-tls\n")))
		after, err := land.AwaitCache(ctx, popularHost)
		Expect(err).NotTo(HaveOccurred())
		Expect(after.UID).To(Equal(before.UID), "the pod was left alone")
		Eventually(docs.try).WithArguments(ctx, "kubectl -n kube-system get pod registry-docker-io-0 -o jsonpath='{.metadata.ownerReferences[0].kind}'").
			Should(Equal("StatefulSet"))
		expectPull(ctx, false)
	}, SpecTimeout(5*time.Minute))
}

// newOwnImage returns an image all layers of which are its own: the node has to ask for
// each of them.
func newOwnImage() v1.Image {
	GinkgoHelper()
	image, err := random.Image(layerSize, layers)
	Expect(err).NotTo(HaveOccurred())
	config, err := image.ConfigFile()
	Expect(err).NotTo(HaveOccurred())
	config = config.DeepCopy()
	config.OS, config.Architecture = "linux", runtime.GOARCH
	image, err = mutate.ConfigFile(image, config)
	Expect(err).NotTo(HaveOccurred())
	return image
}

// ofShoot puts the Shoot's namespace where the page has that of its example.
func ofShoot(commands string) string {
	return strings.ReplaceAll(commands, "shoot--dev--example", shoot.Namespace)
}

// applyCaches gives the Shoot a cache of each upstream, and waits until the node uses
// them. Both go to the upstream by plain HTTP, see BeforeAll.
func applyCaches(ctx context.Context) {
	GinkgoHelper()
	_, err := shoot.ApplyCaches(ctx,
		v1alpha3.RegistryCache{Upstream: upstreamHost, RemoteURL: ptr.To("http://" + upstreamHost)},
		v1alpha3.RegistryCache{Upstream: popularHost, RemoteURL: ptr.To("http://" + popularRegistry)})
	Expect(err).NotTo(HaveOccurred())
	_, err = shoot.UpdateNode(ctx)
	Expect(err).NotTo(HaveOccurred())
	for _, host := range []string{upstreamHost, popularHost} {
		_, err := land.AwaitCache(ctx, host)
		Expect(err).NotTo(HaveOccurred())
		_, err = land.AwaitHostsTOML(ctx, host, true)
		Expect(err).NotTo(HaveOccurred())
	}
}

// expectPull has the node pull popularImage, and expects that the upstream sends its
// layers, or that it does not: then the cache has them.
func expectPull(ctx context.Context, fromUpstream bool) {
	GinkgoHelper()
	before := registry.Counts()
	Expect(land.PullAndForget(ctx, popularImage)).To(Succeed())
	sent := registry.Since(before).BlobBytes
	if fromUpstream {
		Expect(sent).To(BeNumerically(">", layers*layerSize))
	} else {
		Expect(sent).To(BeZero())
	}
}
