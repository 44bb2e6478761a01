// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package scale_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"golang.org/x/sync/errgroup"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	v1beta1helper "github.com/gardener/gardener/pkg/api/core/v1beta1/helper"
	resourcemanagerconfigv1alpha1 "github.com/gardener/gardener/pkg/apis/config/resourcemanager/v1alpha1"
	gardencorev1beta1 "github.com/gardener/gardener/pkg/apis/core/v1beta1"
	v1beta1constants "github.com/gardener/gardener/pkg/apis/core/v1beta1/constants"
	extensionsv1alpha1 "github.com/gardener/gardener/pkg/apis/extensions/v1alpha1"
	resourcesv1alpha1 "github.com/gardener/gardener/pkg/apis/resources/v1alpha1"
	"github.com/gardener/gardener/pkg/client/kubernetes"
	"github.com/gardener/gardener/pkg/utils/kubernetes/health"

	"github.com/gardener/gardener-extension-registry-cache/pkg/apis/registry/v1alpha3"
	"github.com/gardener/gardener-extension-registry-cache/test/gardener"
	"github.com/gardener/gardener-extension-registry-cache/test/integration/control"
	"github.com/gardener/gardener-extension-registry-cache/test/process"
)

const (
	extensionNamespace = "extension-registry-cache"
	// writers is how many Shoots are prepared at a time.
	writers = 8
)

// figures are what was measured with a number of Extensions.
type figures struct {
	count int
	// first is the reconcile that creates all, again one that has nothing to do, idle
	// the time in which nobody asks for anything, checked the same with health checks.
	first, again, idle, checked phase
	// ready is what the process holds once its caches are filled, before there are
	// Extensions; settled what it holds in the end.
	ready, settled memory
}

// phase is what happened while all Extensions were at one thing.
type phase struct {
	took, cpu   time.Duration
	peak        memory
	files       int
	seed, shoot requests
}

// seedWithShoots is a Seed, the extension in it, and the Shoots of one measurement.
type seedWithShoots struct {
	environment *control.Environment
	client      client.Client
	extension   *process.Process
	kubeconfig  []byte
	shoots      []string
	// requests of the extension.
	seedRequests, shootRequests counter
}

// measure runs everything with so many Extensions.
func measure(ctx context.Context, count int) figures {
	GinkgoHelper()
	f := figures{count: count}
	By(fmt.Sprintf("preparing %d Shoots", count))
	s := newSeed(ctx, count)
	defer func() {
		Expect(s.extension.Stop()).To(Succeed())
		Expect(s.environment.Stop()).To(Succeed())
	}()
	f.ready = residentMemory(s.extension.PID())

	By("reconciling all for the first time")
	f.first = s.observe(func(begin time.Time) {
		s.forAll(ctx, s.createExtension)
		s.awaitAll(ctx, begin)
	})
	s.awaitManagedResources(ctx)
	s.createClaims(ctx)

	By("reconciling all again")
	f.again = s.observe(func(begin time.Time) {
		s.forAll(ctx, s.requestReconciliation)
		s.awaitAll(ctx, begin)
	})

	By("doing nothing")
	// Connections to Shoots are closed when nothing came through them for 90 s.
	sleep(ctx, idleTime()/2)
	f.idle = s.observe(func(time.Time) { sleep(ctx, idleTime()) })
	f.settled = residentMemory(s.extension.PID())

	By("checking the health of all")
	Expect(s.extension.Stop()).To(Succeed())
	s.startExtension(ctx)
	s.awaitConditions(ctx)
	// Each Shoot is checked every 30 s.
	f.checked = s.observe(func(time.Time) { sleep(ctx, max(idleTime(), 35*time.Second)) })
	return f
}

// idleTime is a minute when the figures are wanted, and short else.
func idleTime() time.Duration {
	if os.Getenv("SCALE") != "" {
		return time.Minute
	}
	return 15 * time.Second
}

func sleep(ctx context.Context, duration time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(duration):
	}
}

func newSeed(ctx context.Context, count int) *seedWithShoots {
	GinkgoHelper()
	s := &seedWithShoots{}
	var err error
	s.environment, err = control.Start(ctx, control.Options{TuneResourceManager: serveMany, WithoutControllerManager: true})
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(s.environment.Stop) // again, where a measurement ends early
	s.client, err = client.New(s.environment.Seed, client.Options{Scheme: kubernetes.SeedScheme})
	Expect(err).NotTo(HaveOccurred())
	seedProxy, err := control.StartProxy(s.environment.Seed, s.seedRequests.wrap)
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(seedProxy.Stop)
	shootProxy, err := control.StartProxy(s.environment.Shoot, ownObjects, s.shootRequests.wrap)
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(shootProxy.Stop)

	for i := range count {
		s.shoots = append(s.shoots, fmt.Sprintf("s%05d", i))
	}
	s.forAll(ctx, func(ctx context.Context, shoot string) error {
		namespace, err := s.environment.NewShootNamespace(ctx, shootResource(shoot))
		if err != nil {
			return err
		}
		return gardener.NewNamespace(ctx, s.client, namespace, kubeconfigOf(shoot, shootProxy.Kubeconfig))
	})
	Expect(s.client.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: extensionNamespace}})).To(Succeed())
	s.kubeconfig = seedProxy.Kubeconfig
	// Health checks ask each Shoot every 30 s whether anybody changes anything or not,
	// which would hide what reconciles do.
	s.startExtension(ctx, "--disable-controllers=healthcheck")
	return s
}

// serveMany makes the gardener-resource-manager of one Shoot serve the
// ManagedResources of all: it should not be what is measured.
func serveMany(config *resourcemanagerconfigv1alpha1.ResourceManagerConfiguration) {
	for _, connection := range []*resourcemanagerconfigv1alpha1.ClientConnection{&config.SourceClientConnection, config.TargetClientConnection} {
		connection.QPS, connection.Burst = 1000, 2000
	}
	config.Controllers.ManagedResource.ConcurrentSyncs = ptr.To(10)
	config.Controllers.ManagedResource.SyncPeriod = &metav1.Duration{Duration: 24 * time.Hour}
	config.Controllers.Health.ConcurrentSyncs = ptr.To(10)
	config.Controllers.Health.SyncPeriod = &metav1.Duration{Duration: 24 * time.Hour}
	config.Controllers.GarbageCollector.Enabled = false
}

func shootResource(name string) *gardencorev1beta1.Shoot {
	return &gardencorev1beta1.Shoot{
		TypeMeta:   metav1.TypeMeta{APIVersion: gardencorev1beta1.SchemeGroupVersion.String(), Kind: "Shoot"},
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "garden-scale"},
		Spec: gardencorev1beta1.ShootSpec{
			Kubernetes: gardencorev1beta1.Kubernetes{Version: "1.36.3"},
			Provider:   gardencorev1beta1.Provider{Type: "local", Workers: []gardencorev1beta1.Worker{{Name: "pool"}}},
		},
	}
}

func namespaceOf(shoot string) string { return "shoot--scale--" + shoot }

func (s *seedWithShoots) startExtension(ctx context.Context, arguments ...string) {
	GinkgoHelper()
	directory := GinkgoT().TempDir()
	path := filepath.Join(directory, "kubeconfig")
	Expect(os.WriteFile(path, s.kubeconfig, 0o600)).To(Succeed())
	ports, err := process.FreePorts(2)
	Expect(err).NotTo(HaveOccurred())
	healthAddress := net.JoinHostPort("127.0.0.1", strconv.Itoa(ports[1]))
	s.extension, err = process.New(process.Options{
		Name: "extension", Binary: extensionBinary, LogDir: directory, ReadyURL: "http://" + healthAddress + "/readyz",
		Args: append(gardener.ControllerArguments(path, extensionNamespace, "127.0.0.1", ports[0], filepath.Join(directory, "webhook"), healthAddress),
			arguments...),
	})
	Expect(err).NotTo(HaveOccurred())
	Expect(s.extension.Start(ctx)).To(Succeed())
}

// observe returns what a piece of work cost the extension and the API servers.
func (s *seedWithShoots) observe(work func(begin time.Time)) phase {
	GinkgoHelper()
	pid := s.extension.PID()
	// Times in a status are whole seconds: what ended in the phase before is not taken
	// for what ends in this one.
	time.Sleep(2 * time.Second)
	s.seedRequests.take()
	s.shootRequests.take()
	resetPeakMemory(pid)
	begin, cpu := time.Now(), cpuTime(pid)
	work(begin)
	return phase{
		took: time.Since(begin), cpu: cpuTime(pid) - cpu, peak: peakMemory(pid), files: openFiles(pid),
		seed: s.seedRequests.take(), shoot: s.shootRequests.take(),
	}
}

// forAll does something for all Shoots.
func (s *seedWithShoots) forAll(ctx context.Context, do func(ctx context.Context, shoot string) error) {
	GinkgoHelper()
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(writers)
	for _, shoot := range s.shoots {
		group.Go(func() error { return do(ctx, shoot) })
	}
	Expect(group.Wait()).To(Succeed())
}

func (s *seedWithShoots) createExtension(ctx context.Context, shoot string) error {
	var caches []map[string]any
	for _, upstream := range upstreams(shoot) {
		caches = append(caches, map[string]any{"upstream": upstream})
	}
	config, err := json.Marshal(map[string]any{
		"apiVersion": v1alpha3.SchemeGroupVersion.String(), "kind": "RegistryConfig", "caches": caches,
	})
	if err != nil {
		return err
	}
	extension := s.extensionOf(shoot)
	metav1.SetMetaDataAnnotation(&extension.ObjectMeta, v1beta1constants.GardenerOperation, v1beta1constants.GardenerOperationReconcile)
	extension.Spec.Type, extension.Spec.ProviderConfig = v1alpha3.ExtensionType, &runtime.RawExtension{Raw: config}
	return s.client.Create(ctx, extension)
}

func (s *seedWithShoots) requestReconciliation(ctx context.Context, shoot string) error {
	extension := s.extensionOf(shoot)
	patch := client.MergeFrom(extension.DeepCopy())
	metav1.SetMetaDataAnnotation(&extension.ObjectMeta, v1beta1constants.GardenerOperation, v1beta1constants.GardenerOperationReconcile)
	return s.client.Patch(ctx, extension, patch)
}

func (s *seedWithShoots) extensionOf(shoot string) *extensionsv1alpha1.Extension {
	return &extensionsv1alpha1.Extension{ObjectMeta: metav1.ObjectMeta{Namespace: namespaceOf(shoot), Name: v1alpha3.ExtensionType}}
}

// awaitAll waits until all Extensions were reconciled after begin.
func (s *seedWithShoots) awaitAll(ctx context.Context, begin time.Time) {
	GinkgoHelper()
	Eventually(func(g Gomega) {
		extensions := &extensionsv1alpha1.ExtensionList{}
		g.Expect(s.client.List(ctx, extensions)).To(Succeed())
		open := 0
		for _, extension := range extensions.Items {
			operation := ptr.Deref(extension.Status.LastOperation, gardencorev1beta1.LastOperation{})
			if extension.Annotations[v1beta1constants.GardenerOperation] != "" || operation.State != gardencorev1beta1.LastOperationStateSucceeded ||
				operation.LastUpdateTime.Time.Before(begin.Truncate(time.Second)) {
				open++
			}
		}
		g.Expect(open).To(BeZero(), "Extensions that are not reconciled")
		g.Expect(extensions.Items).To(HaveLen(len(s.shoots)))
	}).WithContext(ctx).WithTimeout(time.Hour).WithPolling(time.Second).Should(Succeed())
}

// awaitManagedResources waits until everything is in the Shoots, so that
// gardener-resource-manager has nothing to do any more.
func (s *seedWithShoots) awaitManagedResources(ctx context.Context) {
	GinkgoHelper()
	Eventually(func(g Gomega) {
		list := &resourcesv1alpha1.ManagedResourceList{}
		g.Expect(s.client.List(ctx, list)).To(Succeed())
		g.Expect(list.Items).To(HaveLen(4 * len(s.shoots)))
		for i := range list.Items {
			g.Expect(health.CheckManagedResourceApplied(&list.Items[i])).To(Succeed())
		}
	}).WithContext(ctx).WithTimeout(time.Hour).WithPolling(2 * time.Second).Should(Succeed())
}

// awaitConditions waits until the health of all was checked.
func (s *seedWithShoots) awaitConditions(ctx context.Context) {
	GinkgoHelper()
	Eventually(func(g Gomega) {
		extensions := &extensionsv1alpha1.ExtensionList{}
		g.Expect(s.client.List(ctx, extensions)).To(Succeed())
		unchecked := slices.DeleteFunc(extensions.Items, func(extension extensionsv1alpha1.Extension) bool {
			return v1beta1helper.GetCondition(extension.Status.Conditions, gardencorev1beta1.ShootSystemComponentsHealthy) != nil
		})
		g.Expect(unchecked).To(BeEmpty())
	}).WithContext(ctx).WithTimeout(10 * time.Minute).WithPolling(time.Second).Should(Succeed())
}

// createClaims does what StatefulSets' controller does: the extension looks for claims
// of StatefulSets that have none.
func (s *seedWithShoots) createClaims(ctx context.Context) {
	GinkgoHelper()
	shoot, err := client.New(s.environment.Shoot, client.Options{Scheme: kubernetes.ShootScheme})
	Expect(err).NotTo(HaveOccurred())
	statefulSets := &appsv1.StatefulSetList{}
	Expect(shoot.List(ctx, statefulSets)).To(Succeed())
	Expect(statefulSets.Items).To(HaveLen(cachesPerShoot * len(s.shoots)))
	for _, statefulSet := range statefulSets.Items {
		template := statefulSet.Spec.VolumeClaimTemplates[0]
		Expect(shoot.Create(ctx, &corev1.PersistentVolumeClaim{
			ObjectMeta: metav1.ObjectMeta{
				Namespace: statefulSet.Namespace, Name: template.Name + "-" + statefulSet.Name + "-0", Labels: statefulSet.Spec.Selector.MatchLabels,
			},
			Spec: template.Spec,
		})).To(Succeed())
	}
}
