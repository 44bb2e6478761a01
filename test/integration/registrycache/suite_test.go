// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

// Package registrycache_test runs the extension's own binaries between a real
// Seed and a real Shoot API server: from the block in a Shoot to the bytes that
// a node's containerd pulls.
package registrycache_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"github.com/onsi/gomega/gexec"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
	logf "sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"

	gardencorev1beta1 "github.com/gardener/gardener/pkg/apis/core/v1beta1"
	v1beta1constants "github.com/gardener/gardener/pkg/apis/core/v1beta1/constants"
	extensionsv1alpha1 "github.com/gardener/gardener/pkg/apis/extensions/v1alpha1"
	resourcesv1alpha1 "github.com/gardener/gardener/pkg/apis/resources/v1alpha1"
	"github.com/gardener/gardener/pkg/client/kubernetes"

	"github.com/gardener/gardener-extension-registry-cache/pkg/apis/registry/v1alpha3"
	"github.com/gardener/gardener-extension-registry-cache/test/charts"
	"github.com/gardener/gardener-extension-registry-cache/test/gardener"
	"github.com/gardener/gardener-extension-registry-cache/test/integration/control"
	"github.com/gardener/gardener-extension-registry-cache/test/process"
)

// extensionNamespace is where the extension runs in the Seed.
const extensionNamespace = charts.ExtensionNamespace

var (
	environment *control.Environment
	seed, shoot client.Client
	// extensionBinary and cacheBinary are the programs under test.
	extensionBinary, cacheBinary string
	// requestsFolder is that of [shared].
	requestsFolder string
	// extensionSession is the running controller with its webhook, which serves
	// health checks at healthURL.
	extensionSession *gexec.Session
	healthURL        string
)

func TestRegistryCache(t *testing.T) {
	RegisterFailHandler(Fail)
	RunSpecs(t, "Registry Cache Integration Suite")
}

// shared is what the first process of a parallel run hands to all.
type shared struct {
	// ExtensionBinary and CacheBinary are the programs under test, and Requests is a
	// folder for what each process has seen of requests of the extension.
	ExtensionBinary, CacheBinary, Requests string
}

// Each process has control planes and a controller of its own.
var _ = SynchronizedBeforeSuite(func() []byte {
	var (
		s   shared
		err error
	)
	s.ExtensionBinary, err = gexec.Build("github.com/gardener/gardener-extension-registry-cache/cmd/gardener-extension-registry-cache")
	Expect(err).NotTo(HaveOccurred())
	s.CacheBinary, err = gexec.Build("github.com/gardener/gardener-extension-registry-cache/cmd/registry-cache")
	Expect(err).NotTo(HaveOccurred())
	s.Requests, err = os.MkdirTemp("", "requests-")
	Expect(err).NotTo(HaveOccurred())
	encoded, err := json.Marshal(s)
	Expect(err).NotTo(HaveOccurred())
	return encoded
}, func(ctx SpecContext, encoded []byte) {
	logf.SetLogger(zap.New(zap.WriteTo(GinkgoWriter), zap.UseDevMode(true)))
	SetDefaultEventuallyTimeout(30 * time.Second)
	SetDefaultEventuallyPollingInterval(100 * time.Millisecond)

	var s shared
	Expect(json.Unmarshal(encoded, &s)).To(Succeed())
	extensionBinary, cacheBinary, requestsFolder = s.ExtensionBinary, s.CacheBinary, s.Requests

	var err error
	environment, err = control.Start(ctx, control.Options{})
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(environment.Stop)
	seed, err = client.New(environment.Seed, client.Options{Scheme: kubernetes.SeedScheme})
	Expect(err).NotTo(HaveOccurred())
	shoot, err = client.New(environment.Shoot, client.Options{Scheme: kubernetes.ShootScheme})
	Expect(err).NotTo(HaveOccurred())

	extensionSession, healthURL = startExtension(ctx, seed, environment.AddSeedUser)
}, NodeTimeout(10*time.Minute))

// startExtension runs the extension as its Deployment in a Seed does, with the
// rights and the arguments that its chart gives it, except that the API server
// reaches the webhook by URL. It returns the process, and where it serves health
// checks.
func startExtension(ctx context.Context, seed client.Client, addUser func(envtest.User) ([]byte, error)) (*gexec.Session, string) {
	GinkgoHelper()
	Expect(seed.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: extensionNamespace}})).To(Succeed())
	arguments := installChart(ctx, seed)
	directory := GinkgoT().TempDir()
	kubeconfig := filepath.Join(directory, "kubeconfig")
	seedKubeconfig, err := addUser(extensionUser)
	Expect(err).NotTo(HaveOccurred())
	Expect(os.WriteFile(kubeconfig, seedKubeconfig, 0o600)).To(Succeed())

	ports, err := process.FreePorts(2)
	Expect(err).NotTo(HaveOccurred())
	healthAddress := net.JoinHostPort("127.0.0.1", strconv.Itoa(ports[1]))
	health := "http://" + healthAddress
	// Of an argument that is given twice the second one counts.
	arguments = append(arguments, gardener.ControllerArguments(
		kubeconfig, extensionNamespace, "127.0.0.1", ports[0], filepath.Join(directory, "webhook"), healthAddress)[1:]...)
	cmd := exec.Command(extensionBinary, arguments...)
	session, err := gexec.Start(cmd, GinkgoWriter, GinkgoWriter)
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(func() { session.Terminate().Wait(30 * time.Second) })

	Eventually(func(g Gomega) {
		if session.ExitCode() >= 0 {
			StopTrying("the extension ended").Now()
		}
		g.Expect(getStatus(health + "/readyz")).To(Equal(http.StatusOK))
	}).WithTimeout(time.Minute).Should(Succeed(), func() string { return string(session.Err.Contents()) })
	return session, health
}

// getStatus returns the status code of a GET.
func getStatus(url string) (int, error) {
	response, err := http.Get(url)
	if err != nil {
		return 0, err
	}
	return response.StatusCode, response.Body.Close()
}

// newShoot creates what a Seed holds of a Shoot with a block of the extension.
// All Shoots here share one API server, so what a spec deploys there is deleted
// when it ends.
func newShoot(ctx context.Context, resources ...gardencorev1beta1.NamedResourceReference) string {
	GinkgoHelper()
	shootSpec := &gardencorev1beta1.Shoot{
		TypeMeta:   metav1.TypeMeta{APIVersion: gardencorev1beta1.SchemeGroupVersion.String(), Kind: "Shoot"},
		ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("s%d", time.Now().UnixNano()), Namespace: "garden-test"},
		Spec: gardencorev1beta1.ShootSpec{
			Kubernetes: gardencorev1beta1.Kubernetes{
				Version:               "1.36.3",
				VerticalPodAutoscaler: &gardencorev1beta1.VerticalPodAutoscaler{Enabled: true},
			},
			Provider:  gardencorev1beta1.Provider{Type: "local", Workers: []gardencorev1beta1.Worker{{Name: "pool"}}},
			Resources: resources,
		},
	}
	namespace, err := environment.NewShootNamespace(ctx, shootSpec)
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(cleanUp, namespace, NodeTimeout(2*time.Minute))
	return namespace
}

// cache is a cache as it stands in a Shoot.
type cache = map[string]any

// applyExtension does what gardenlet does when a Shoot is reconciled.
func applyExtension(ctx context.Context, namespace string, caches ...cache) *extensionsv1alpha1.Extension {
	GinkgoHelper()
	return applyExtensionConfig(ctx, namespace, registryConfig(caches))
}

// registryConfig returns caches as they stand in an Extension.
func registryConfig(caches []cache) []byte {
	GinkgoHelper()
	config, err := json.Marshal(map[string]any{
		"apiVersion": v1alpha3.SchemeGroupVersion.String(), "kind": "RegistryConfig", "caches": caches,
	})
	Expect(err).NotTo(HaveOccurred())
	return config
}

func applyExtensionConfig(ctx context.Context, namespace string, config []byte) *extensionsv1alpha1.Extension {
	GinkgoHelper()
	extension, err := gardener.RequestReconciliation(ctx, seed, namespace, v1alpha3.ExtensionType, rawExtension(string(config)))
	Expect(err).NotTo(HaveOccurred())
	return extension
}

// awaitExtension waits until the controller has worked off what applyExtension
// asked for, and returns the Extension. It fails if that ended otherwise.
func awaitExtension(ctx context.Context, extension *extensionsv1alpha1.Extension, state gardencorev1beta1.LastOperationState) *extensionsv1alpha1.Extension {
	GinkgoHelper()
	var requested time.Time
	if timestamp, found := extension.Annotations[v1beta1constants.GardenerTimestamp]; found {
		var err error
		requested, err = time.Parse(time.RFC3339Nano, timestamp)
		Expect(err).NotTo(HaveOccurred())
	}
	// The operation annotation goes shortly before the controller says that it begins:
	// only the time tells that this is not an older result.
	Eventually(func(g Gomega) {
		g.Expect(seed.Get(ctx, client.ObjectKeyFromObject(extension), extension)).To(Succeed())
		g.Expect(extension.Annotations).NotTo(HaveKey(v1beta1constants.GardenerOperation))
		g.Expect(extension.Status.ObservedGeneration).To(Equal(extension.Generation))
		g.Expect(extension.Status.LastOperation).NotTo(BeNil())
		g.Expect(extension.Status.LastOperation.LastUpdateTime.Time).NotTo(BeTemporally("<", requested.Truncate(time.Second)))
		g.Expect(extension.Status.LastOperation.State).To(Equal(state), "%+v", ptr.Deref(extension.Status.LastError, gardencorev1beta1.LastError{}))
	}).WithContext(ctx).Should(Succeed())
	return extension
}

// reconcile applies the caches and waits until they are deployed.
func reconcile(ctx context.Context, namespace string, caches ...cache) *v1alpha3.RegistryStatus {
	GinkgoHelper()
	extension := awaitExtension(ctx, applyExtension(ctx, namespace, caches...), gardencorev1beta1.LastOperationStateSucceeded)
	Expect(extension.Status.ProviderStatus).NotTo(BeNil())
	status, err := v1alpha3.DecodeStatus(extension.Status.ProviderStatus.Raw)
	Expect(err).NotTo(HaveOccurred())
	return status
}

// awaitQuiet waits until nobody works on an Extension: what the health check writes
// while it is reconciled has it reconciled once more.
func awaitQuiet(ctx context.Context, namespace string) {
	GinkgoHelper()
	version := ""
	Eventually(func() bool {
		before := version
		version = getExtension(ctx, namespace).ResourceVersion
		return version == before
	}).WithContext(ctx).WithPolling(2 * time.Second).Should(BeTrue())
}

func getExtension(ctx context.Context, namespace string) *extensionsv1alpha1.Extension {
	GinkgoHelper()
	extension := &extensionsv1alpha1.Extension{}
	Expect(seed.Get(ctx, client.ObjectKey{Namespace: namespace, Name: v1alpha3.ExtensionType}, extension)).To(Succeed())
	return extension
}

func deleteExtension(ctx SpecContext, namespace string) {
	GinkgoHelper()
	Expect(gardener.DeleteExtension(ctx, seed, namespace, v1alpha3.ExtensionType)).To(Succeed())
}

// cleanUp deletes an Extension at the end of a spec, and pods and claims that have lost
// their StatefulSet. All specs of a process share the API server of the Shoot: what goes
// later would be taken over by caches of the same name in the next spec.
func cleanUp(ctx SpecContext, namespace string) {
	GinkgoHelper()
	deleteExtension(ctx, namespace)
	Eventually(func(g Gomega) {
		managedResources := &resourcesv1alpha1.ManagedResourceList{}
		g.Expect(seed.List(ctx, managedResources, client.InNamespace(namespace))).To(Succeed())
		g.Expect(managedResources.Items).To(BeEmpty())

		statefulSets, pods, claims := &appsv1.StatefulSetList{}, &corev1.PodList{}, &corev1.PersistentVolumeClaimList{}
		for _, list := range []client.ObjectList{statefulSets, pods, claims} {
			g.Expect(shoot.List(ctx, list, client.InNamespace(metav1.NamespaceSystem))).To(Succeed())
		}
		var left []client.Object
		collect := func(object client.Object, pod string) {
			statefulSet := regexp.MustCompile("-[0-9]+$").ReplaceAllString(pod, "")
			stays := slices.ContainsFunc(statefulSets.Items, func(s appsv1.StatefulSet) bool { return s.Name == statefulSet && s.DeletionTimestamp == nil })
			if strings.HasPrefix(pod, "registry-") && !stays {
				left = append(left, object)
			}
		}
		for i := range pods.Items {
			collect(&pods.Items[i], pods.Items[i].Name)
		}
		for i := range claims.Items {
			collect(&claims.Items[i], strings.TrimPrefix(claims.Items[i].Name, "cache-volume-"))
		}
		for _, object := range left {
			g.Expect(client.IgnoreNotFound(shoot.Delete(ctx, object, client.GracePeriodSeconds(0)))).To(Succeed())
		}
		g.Expect(left).To(BeEmpty())
	}).WithContext(ctx).WithTimeout(time.Minute).Should(Succeed())
}

func rawExtension(raw string) *runtime.RawExtension {
	if raw == "" {
		return nil
	}
	return &runtime.RawExtension{Raw: []byte(raw)}
}
