// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package documentation_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/gardener/gardener/pkg/utils/imagevector"

	"github.com/gardener/gardener-extension-registry-cache/pkg/apis/registry/v1alpha3"
	"github.com/gardener/gardener-extension-registry-cache/test/landscape"
	"github.com/gardener/gardener-extension-registry-cache/test/pages"
	"github.com/gardener/gardener-extension-registry-cache/test/upstream"
)

const (
	controllerName, controllerNamespace = "gardener-extension-registry-cache", "extension-registry-cache"
	admissionName, admissionNamespace   = "gardener-extension-admission-registry-cache", "garden"

	upstreamHost = "upstream.test"
	// popularHost is the upstream that most pages are about, and popularRegistry the
	// name at which it is reached.
	popularHost, popularRegistry = "docker.io", "registry-1.docker.io"
	layers                       = 2
	layerSize                    = 1 << 20
)

// The specs build on one another: the first ones install what the others need. To run
// one of them focus on "installs" too.
var _ = Describe("The documentation", Ordered, ContinueOnFailure, func() {
	BeforeAll(func(ctx SpecContext) {
		var err error
		registry, err = land.StartRegistry(ctx, upstream.Speed{}, "", "", upstreamHost, popularRegistry)
		Expect(err).NotTo(HaveOccurred())
		DeferCleanup(registry.Close)
		// Caches are the released image, which does not trust the test's authority.
		Expect(land.Internet.ServePlain(ctx, registry, upstreamHost)).To(Succeed())
		shoot, err = land.NewShoot(ctx)
		Expect(err).NotTo(HaveOccurred())
	})

	installationSpecs()
	gardenctlSpecs()
	runbookSpecs()
	lifecycleSpecs()
	nodeSpecs()
	usageSpecs()
	pluginSpecs()
	operationsSpecs()
	developmentSpecs()
	removalSpecs()
})

var (
	registry *upstream.Registry
	shoot    *landscape.Shoot
)

func installationSpecs() {
	// first and second are the images of the versions, by their names.
	var first, second map[string]string

	It("installs what it has pushed: a release", func(ctx SpecContext) {
		docs.run(ctx, docs.command("operations/installation.md", "Before you begin"))
		first = pushedImages()
		Expect(first).To(HaveEach(ContainSubstring(":v1.0.0@sha256:")))
	}, SpecTimeout(5*time.Minute))

	It("installs the admission, which a garden asks about Shoots", func(ctx SpecContext) {
		for i, commands := range docs.commands("operations/installation.md", "Admission") {
			docs.run(ctx, commands)
			if i == 0 {
				By("making what a garden has")
				Eventually(func() (string, error) {
					return docs.try(ctx, "kubectl apply -f test/integration/admission/testdata/garden.yaml")
				}).WithTimeout(time.Minute).ShouldNot(BeEmpty())
			}
		}
		expectPods(ctx, admissionNamespace, admissionName, 2, first[controllerName])

		By("telling the garden's API server the name of the admission, as one outside of the runtime cluster has to be")
		service := &corev1.Service{}
		Expect(land.SeedClient.Get(ctx, client.ObjectKey{Namespace: admissionNamespace, Name: admissionName}, service)).To(Succeed())
		land.Internet.SetAddress(admissionName+"."+admissionNamespace, net.ParseIP(service.Spec.ClusterIP))

		By("registering the extension")
		docs.run(ctx, "export KUBECONFIG=garden.kubeconfig")
		docs.run(ctx, docs.command("operations/installation.md", "With a ControllerRegistration"))

		By("creating Shoots")
		// A garden needs a moment until it knows what was created just before.
		Eventually(func() (string, error) {
			return docs.try(ctx, "kubectl apply -f example/admission/good.yaml")
		}).Should(ContainSubstring("shoot.core.gardener.cloud/good created"))
		expectRefusal(ctx)
		expectNothingForbidden(ctx, admissionNamespace, admissionName)
	}, SpecTimeout(3*time.Minute))

	It("installs the controller, through whose caches the node pulls", func(ctx SpecContext) {
		docs.run(ctx, docs.command("operations/installation.md", "Controller"))
		expectPods(ctx, controllerNamespace, controllerName, 1, first[controllerName])

		By("bringing caches to a Shoot")
		reconcile(ctx, shoot, first["registry-cache"], "v1.0.0")
		Eventually(os.ReadFile).WithArguments(land.Node.Path("/etc/containerd/certs.d/" + upstreamHost + "/hosts.toml")).Should(ContainSubstring("10.96."))

		By("pulling")
		pushImage(ctx, registry, "app")
		cold, err := land.Run(ctx, registry, upstreamHost, upstreamHost+"/app:v1")
		Expect(err).NotTo(HaveOccurred())
		Expect(cold.CacheBytes).To(BeNumerically(">", layers*layerSize))
		Expect(cold.Upstream.BlobBytes).To(Equal(cold.CacheBytes))
		warm, err := land.Run(ctx, registry, upstreamHost, upstreamHost+"/app:v1")
		Expect(err).NotTo(HaveOccurred())
		Expect(warm.CacheBytes).To(BeNumerically(">", layers*layerSize))
		Expect(warm.Upstream.Blobs).To(BeZero())
		AddReportEntry("Pulls", ReportEntryVisibilityAlways, fmt.Sprintf("cold %.2f s, warm %.2f s", cold.Duration.Seconds(), warm.Duration.Seconds()))
		expectNothingForbidden(ctx, controllerNamespace, controllerName)
	}, SpecTimeout(3*time.Minute))

	It("sees that it works", func(ctx SpecContext) {
		output := docs.run(ctx, docs.command("operations/installation.md", "See that it works"))
		Expect(strings.Count(output, "Running")).To(Equal(3), "all pods are listed")
		Expect(output).To(MatchRegexp(`(?m)^extension-registry-cache +gardener-extension-heartbeat `))
	}, SpecTimeout(time.Minute))

	It("upgrades to the next version and rolls back, while pulls go on and none fails", func(ctx SpecContext) {
		upgrade := docs.commands("operations/installation.md", "Upgrade and rollback", 1, 3)

		load := startLoad(ctx, registry, shoot)
		load.mark("before the upgrade")
		load.awaitAll(false)

		By("upgrading")
		load.mark("while the controller is upgraded")
		docs.run(ctx, upgrade[0])
		second = pushedImages()
		expectPods(ctx, controllerNamespace, controllerName, 1, second[controllerName])
		load.mark("while the cache is upgraded")
		reconcile(ctx, shoot, second["registry-cache"], "v1.1.0")
		load.mark("with the next version")
		load.awaitAll(false)

		By("rolling back")
		load.mark("while the controller is rolled back")
		docs.run(ctx, upgrade[1])
		expectPods(ctx, controllerNamespace, controllerName, 1, first[controllerName])
		load.mark("while the cache is rolled back")
		reconcile(ctx, shoot, first["registry-cache"], "v1.0.0")
		load.mark("with the earlier version")
		load.awaitAll(false)
		load.stop()

		Expect(second[controllerName]).NotTo(Equal(first[controllerName]))
		Expect(second["registry-cache"]).NotTo(Equal(first["registry-cache"]))
		expectNothingForbidden(ctx, controllerNamespace, controllerName)
	}, SpecTimeout(10*time.Minute))

	It("upgrades the admission and rolls it back, and it goes on to judge Shoots", func(ctx SpecContext) {
		upgrade := docs.commands("operations/installation.md", "Upgrade and rollback", 2, 4)
		for i, images := range []map[string]string{second, first} {
			docs.run(ctx, upgrade[i])
			expectPods(ctx, admissionNamespace, admissionName, 2, images[controllerName])
			docs.run(ctx, "export KUBECONFIG=garden.kubeconfig")
			Expect(docs.run(ctx, "sed '1,/^---$/d; s/^  name: good$/  name: another/' example/admission/good.yaml | kubectl create --dry-run=server -f -")).
				To(ContainSubstring("shoot.core.gardener.cloud/another created"))
			expectRefusal(ctx)
			expectNothingForbidden(ctx, admissionNamespace, admissionName)
		}
	}, SpecTimeout(4*time.Minute))
}

func runbookSpecs() {
	// Each command fails if what it looks for is not there.
	It("has runbooks whose commands find what they look for", func(ctx SpecContext) {
		runbook := func(section string) string {
			GinkgoHelper()
			commands := docs.commands("operations/alerts.md", section)
			Expect(commands).NotTo(BeEmpty())
			return docs.run(ctx, strings.Replace(strings.Join(commands, ""), "host=docker.io", "host="+upstreamHost, 1))
		}
		docs.run(ctx, "export KUBECONFIG=seed.kubeconfig shoot_namespace="+shoot.Namespace)
		pushImage(ctx, registry, "missed")
		pushImage(ctx, registry, "broken")

		By("having the cache restart")
		Expect(land.KillCache(ctx, upstreamHost)).To(Succeed())
		Eventually(func() ([]corev1.ContainerStatus, error) {
			pod, err := land.Pod(ctx, upstreamHost)
			if err != nil {
				return nil, err
			}
			return pod.Status.ContainerStatuses, nil
		}).Should(ConsistOf(HaveField("RestartCount", BeEquivalentTo(1))))
		_, err := land.AwaitCache(ctx, upstreamHost)
		Expect(err).NotTo(HaveOccurred())
		Expect(runbook("How to look at a cache")).To(And(
			ContainSubstring("statefulset.apps/registry-upstream-test"), ContainSubstring("persistentvolumeclaim/"),
			ContainSubstring(`"msg":"Serving"`), ContainSubstring("registry_cache_build_info")))
		Expect(runbook("RegistryCacheDown")).To(And(
			MatchRegexp(`Restart Count: +1`), MatchRegexp(`Status: +Bound`), ContainSubstring(`"msg":"Serving"`)))

		By("pulling what the cache does not have")
		Eventually(os.ReadFile).WithArguments(land.Node.Path("/etc/containerd/certs.d/" + upstreamHost + "/hosts.toml")).Should(ContainSubstring("10.96."))
		_, err = land.Run(ctx, registry, upstreamHost, upstreamHost+"/missed:v1")
		Expect(err).NotTo(HaveOccurred())
		Expect(runbook("RegistryCacheHitRatioCollapsed")).To(And(
			MatchRegexp(`"path":"/v2/missed/[^"]*",[^\n]*"cache":"miss"`), ContainSubstring(`Pulling image "upstream.test/missed:v1"`)))

		By("sending other content than asked for")
		registry.Intercept(changeBlobs)
		Expect(land.PullAndForget(ctx, upstreamHost+"/broken:v1")).NotTo(Succeed())
		Expect(runbook("RegistryCacheDigestMismatch")).To(ContainSubstring(`"repository":"broken"`))

		By("having the upstream fail")
		registry.Intercept(func(http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) })
		})
		Eventually(func(g Gomega) {
			// From the cache, for a while without a question to the upstream.
			g.Expect(land.PullAndForget(ctx, upstreamHost+"/missed:v1")).To(Succeed())
			g.Expect(land.CacheLogs(ctx, upstreamHost)).To(ContainSubstring(`"cache":"stale"`))
		}).WithTimeout(2 * time.Minute).Should(Succeed())
		Expect(runbook("RegistryCacheServesStale")).To(MatchRegexp(`"path":"/v2/missed/manifests/v1",[^\n]*"cache":"stale"`))

		By("looking at volume and certificate")
		Expect(runbook("RegistryCacheVolumeTooSmall")).To(And(ContainSubstring("Bound"), ContainSubstring("cluster.test/folder")))
		Expect(runbook("RegistryCachePersistentVolumeUsageCritical")).To(ContainSubstring("Listed the blobs of the volume"))
		Expect(runbook("RegistryCachePersistentVolumeFullInFourDays")).To(ContainSubstring("Listed the blobs of the volume"))
		Expect(runbook("RegistryCacheCertificateExpires")).To(And(MatchRegexp(`Type: +registry-cache`), ContainSubstring("notAfter=")))
	}, SpecTimeout(5*time.Minute))
}

// changeBlobs has all blobs begin with something else.
func changeBlobs(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, "/blobs/") {
			w = &changedBlob{ResponseWriter: w}
		}
		next.ServeHTTP(w, r)
	})
}

type changedBlob struct {
	http.ResponseWriter
	begun bool
}

func (b *changedBlob) Write(content []byte) (int, error) {
	if !b.begun && len(content) > 0 {
		content = append([]byte{content[0] + 1}, content[1:]...)
		b.begun = true
	}
	return b.ResponseWriter.Write(content)
}

// pushedImages are the images that the last release has pushed, by their names.
func pushedImages() map[string]string {
	GinkgoHelper()
	content, err := os.ReadFile(filepath.Join(docs.dir, "bin/images/images.yaml"))
	Expect(err).NotTo(HaveOccurred())
	vector, _, err := imagevector.Read(content)
	Expect(err).NotTo(HaveOccurred())
	images := map[string]string{}
	for _, source := range vector {
		images[source.Name] = *source.Repository + ":" + *source.Tag
	}
	Expect(images).To(And(HaveLen(2), HaveKey(controllerName), HaveKey("registry-cache")))
	return images
}

// expectPods expects that a Deployment has so many pods and no others, which are
// ready and run an image, by its digest.
func expectPods(ctx context.Context, namespace, name string, count int, image string) {
	GinkgoHelper()
	_, digest, found := strings.Cut(image, "@")
	Expect(found).To(BeTrue())
	deployment := &appsv1.Deployment{}
	Expect(land.SeedClient.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, deployment)).To(Succeed())
	Expect(deployment.Status.ReadyReplicas).To(BeEquivalentTo(count))
	// One that was replaced goes on answering webhooks for a while.
	Eventually(func(g Gomega) {
		pods := &corev1.PodList{}
		g.Expect(land.SeedClient.List(ctx, pods, client.InNamespace(namespace), client.MatchingLabels{"app.kubernetes.io/name": name})).To(Succeed())
		g.Expect(pods.Items).To(HaveLen(count))
		for _, pod := range pods.Items {
			g.Expect(pod.Spec.Containers).To(HaveExactElements(HaveField("Image", image)))
			g.Expect(pod.Status.ContainerStatuses).To(HaveExactElements(And(
				HaveField("Ready", true), HaveField("RestartCount", BeZero()), HaveField("ImageID", HaveSuffix("@"+digest)))))
		}
	}).Should(Succeed())
}

// expectRefusal expects that the garden refuses the bad examples, in the words that
// stand in them.
func expectRefusal(ctx context.Context) {
	GinkgoHelper()
	for _, example := range []string{"bad-values.yaml", "bad-fields.yaml"} {
		output, err := docs.try(ctx, "kubectl apply -f example/admission/"+example)
		Expect(err).To(HaveOccurred())
		content, err := os.ReadFile(filepath.Join("../../example/admission", example))
		Expect(err).NotTo(HaveOccurred())
		printed := pages.Printed(string(content))
		Expect(printed).NotTo(BeEmpty())
		Expect(pages.TrimLines(output)).To(Equal(printed))
	}
}

// expectNothingForbidden expects that pods log, and not of rights that they lack.
func expectNothingForbidden(ctx context.Context, namespace, name string) {
	GinkgoHelper()
	clientset, err := kubernetes.NewForConfig(land.Seed.Config)
	Expect(err).NotTo(HaveOccurred())
	pods := &corev1.PodList{}
	Expect(land.SeedClient.List(ctx, pods, client.InNamespace(namespace), client.MatchingLabels{"app.kubernetes.io/name": name})).To(Succeed())
	for _, pod := range pods.Items {
		log, err := clientset.CoreV1().Pods(namespace).GetLogs(pod.Name, &corev1.PodLogOptions{}).DoRaw(ctx)
		Expect(err).NotTo(HaveOccurred())
		Expect(string(log)).To(And(ContainSubstring(`"level":"info"`), Not(ContainSubstring("is forbidden"))))
	}
}

// reconcile brings a cache of the upstream to a Shoot, as gardenlet reconciles it,
// and waits until it runs an image, and the version that this is.
func reconcile(ctx context.Context, shoot *landscape.Shoot, image, version string) {
	GinkgoHelper()
	_, err := shoot.ApplyCaches(ctx, v1alpha3.RegistryCache{Upstream: upstreamHost, RemoteURL: ptr.To("http://" + upstreamHost)})
	Expect(err).NotTo(HaveOccurred())
	Eventually(func(g Gomega) {
		pod, err := land.Pod(ctx, upstreamHost)
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(pod.Spec.Containers[0].Image).To(Equal(image))
	}).Should(Succeed())
	pod, err := land.AwaitCache(ctx, upstreamHost)
	Expect(err).NotTo(HaveOccurred())
	_, digest, _ := strings.Cut(image, "@")
	Expect(pod.Status.ContainerStatuses[0].ImageID).To(HaveSuffix("@" + digest))
	response, err := http.Get("http://" + net.JoinHostPort(pod.Status.PodIP, "5001") + "/metrics")
	Expect(err).NotTo(HaveOccurred())
	defer func() { _ = response.Body.Close() }()
	metrics, err := io.ReadAll(response.Body)
	Expect(err).NotTo(HaveOccurred())
	Expect(string(metrics)).To(MatchRegexp(`registry_cache_build_info\{.*version="` + version + `"`))
	_, err = shoot.UpdateNode(ctx)
	Expect(err).NotTo(HaveOccurred())
}

func pushImage(ctx context.Context, registry *upstream.Registry, repository string) {
	GinkgoHelper()
	image, err := landscape.NewImage(layers, layerSize)
	Expect(err).NotTo(HaveOccurred())
	Expect(landscape.Push(ctx, registry, repository, "v1", image)).To(Succeed())
}
