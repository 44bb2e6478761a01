// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package control_test

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	extensionsconfigv1alpha1 "github.com/gardener/gardener/extensions/pkg/apis/config/v1alpha1"
	extensionscontroller "github.com/gardener/gardener/extensions/pkg/controller"
	"github.com/gardener/gardener/extensions/pkg/util"
	v1beta1helper "github.com/gardener/gardener/pkg/api/core/v1beta1/helper"
	gardencorev1beta1 "github.com/gardener/gardener/pkg/apis/core/v1beta1"
	resourcesv1alpha1 "github.com/gardener/gardener/pkg/apis/resources/v1alpha1"
	"github.com/gardener/gardener/pkg/client/kubernetes"
	"github.com/gardener/gardener/pkg/utils/managedresources"
	. "github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/gardener/gardener-extension-registry-cache/test/integration/control"
)

// dieWithoutStop makes the test binary start an environment and wait for its
// killing, which TestProcessesEndWithTheirStarter does.
const dieWithoutStop = "CONTROL_TEST_DIE_WITHOUT_STOP"

func TestMain(m *testing.M) {
	if os.Getenv(dieWithoutStop) == "" {
		os.Exit(m.Run())
	}
	if _, err := control.Start(context.Background(), control.Options{}); err != nil {
		fmt.Println("error:", err)
		os.Exit(1)
	}
	fmt.Println("started")
	select {}
}

func TestManagedResources(t *testing.T) {
	g := NewWithT(t)
	ctx := t.Context()
	before := time.Now()
	environment, err := control.Start(ctx, control.Options{})
	g.Expect(err).NotTo(HaveOccurred())
	t.Cleanup(func() {
		stopped := time.Now()
		NewWithT(t).Expect(environment.Stop()).To(Succeed())
		t.Logf("stopped in %s", time.Since(stopped))
	})
	t.Logf("started in %s", time.Since(before))

	seed, err := client.New(environment.Seed, client.Options{Scheme: kubernetes.SeedScheme})
	g.Expect(err).NotTo(HaveOccurred())
	namespace, err := environment.NewShootNamespace(ctx, &gardencorev1beta1.Shoot{
		ObjectMeta: metav1.ObjectMeta{Namespace: "garden-dev", Name: "one"},
		Spec:       gardencorev1beta1.ShootSpec{Kubernetes: gardencorev1beta1.Kubernetes{Version: "1.36.3"}},
	})
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(namespace).To(Equal("shoot--dev--one"))

	// As an extension reads them.
	cluster, err := extensionscontroller.GetCluster(ctx, seed, namespace)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(cluster.Shoot.Spec.Kubernetes.Version).To(Equal("1.36.3"))
	g.Expect(cluster.Seed).NotTo(BeNil())
	g.Expect(cluster.CloudProfile).NotTo(BeNil())
	_, shoot, err := util.NewClientForShoot(ctx, seed, namespace, client.Options{}, extensionsconfigv1alpha1.RESTOptions{})
	g.Expect(err).NotTo(HaveOccurred())

	t.Run("Service", func(t *testing.T) { testService(t, seed, shoot, namespace) })
	t.Run("StatefulSet", func(t *testing.T) { testStatefulSet(t, seed, shoot, namespace) })
}

// testService shows that an object reaches the Shoot, healthy, and goes again.
func testService(t *testing.T, seed, shoot client.Client, namespace string) {
	g := NewWithT(t)
	ctx := t.Context()
	service := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: metav1.NamespaceSystem, Name: "example"},
		Spec:       corev1.ServiceSpec{Ports: []corev1.ServicePort{{Name: "web", Port: 80}}},
	}
	created := time.Now()
	g.Expect(deploy(ctx, seed, namespace, "service", service)).To(Succeed())
	g.Eventually(func(g Gomega) {
		managed := &resourcesv1alpha1.ManagedResource{}
		g.Expect(seed.Get(ctx, client.ObjectKey{Namespace: namespace, Name: "service"}, managed)).To(Succeed())
		for _, condition := range []gardencorev1beta1.ConditionType{resourcesv1alpha1.ResourcesApplied, resourcesv1alpha1.ResourcesHealthy} {
			g.Expect(v1beta1helper.GetCondition(managed.Status.Conditions, condition)).To(HaveField("Status", gardencorev1beta1.ConditionTrue))
		}
	}, "60s", "50ms").Should(Succeed())
	t.Logf("ManagedResource healthy after %s", time.Since(created))

	g.Expect(shoot.Get(ctx, client.ObjectKeyFromObject(service), service)).To(Succeed())
	g.Expect(net.ParseIP(service.Spec.ClusterIP).IsLoopback()).To(BeTrue(), service.Spec.ClusterIP)
	listener, err := net.Listen("tcp", net.JoinHostPort(service.Spec.ClusterIP, "0"))
	g.Expect(err).NotTo(HaveOccurred(), "a test can serve on the address of a Service")
	g.Expect(listener.Close()).To(Succeed())

	deleted := time.Now()
	g.Expect(withdraw(ctx, seed, namespace, "service")).To(Succeed())
	t.Logf("ManagedResource deleted after %s", time.Since(deleted))
	g.Expect(apierrors.IsNotFound(shoot.Get(ctx, client.ObjectKeyFromObject(service), service))).To(BeTrue())
}

// testStatefulSet shows that the controllers of the Shoot make what belongs to
// a StatefulSet, and that nothing of it outlives the ManagedResource:
// gardener-resource-manager deletes it in the foreground, which a garbage
// collector has to complete.
func testStatefulSet(t *testing.T, seed, shoot client.Client, namespace string) {
	g := NewWithT(t)
	ctx := t.Context()
	labels := map[string]string{"app": "example"}
	statefulSet := &appsv1.StatefulSet{
		ObjectMeta: metav1.ObjectMeta{Namespace: metav1.NamespaceSystem, Name: "example"},
		Spec: appsv1.StatefulSetSpec{
			Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels},
				Spec: corev1.PodSpec{
					PriorityClassName: "system-cluster-critical",
					Containers:        []corev1.Container{{Name: "web", Image: "registry.invalid/web:1"}},
				},
			},
			VolumeClaimTemplates: []corev1.PersistentVolumeClaim{{
				ObjectMeta: metav1.ObjectMeta{Name: "data"},
				Spec: corev1.PersistentVolumeClaimSpec{
					AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
					Resources:   corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}},
				},
			}},
		},
	}
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: metav1.NamespaceSystem, Name: "example-0"}}
	claim := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: metav1.NamespaceSystem, Name: "data-example-0"}}
	get := func(object client.Object) func() error {
		return func() error { return shoot.Get(ctx, client.ObjectKeyFromObject(object), object) }
	}

	created := time.Now()
	g.Expect(deploy(ctx, seed, namespace, "statefulset", statefulSet)).To(Succeed())
	for _, object := range []client.Object{statefulSet, claim, pod} {
		g.Eventually(get(object), "60s", "50ms").Should(Succeed(), "%T", object)
	}
	t.Logf("pod and claim created after %s", time.Since(created))
	g.Expect(metav1.IsControlledBy(pod, statefulSet)).To(BeTrue())
	g.Expect(pod.Status.Phase).To(Equal(corev1.PodPending))
	g.Expect(claim.Labels).To(HaveKeyWithValue("app", "example"), "by which gardener-resource-manager finds the claims")

	deleted := time.Now()
	g.Expect(withdraw(ctx, seed, namespace, "statefulset")).To(Succeed())
	t.Logf("ManagedResource deleted after %s", time.Since(deleted))
	for _, object := range []client.Object{statefulSet, pod, claim} {
		g.Eventually(get(object), "60s", "50ms").Should(MatchError(apierrors.IsNotFound, "IsNotFound"), "%T", object)
	}
	t.Logf("all objects gone after %s", time.Since(deleted))
}

// deploy writes a ManagedResource whose volumes go with it, as the caches' do.
func deploy(ctx context.Context, seed client.Client, namespace, name string, objects ...client.Object) error {
	data, err := managedresources.NewRegistry(kubernetes.ShootScheme, kubernetes.ShootCodec, kubernetes.ShootSerializer).AddAllAndSerialize(objects...)
	if err != nil {
		return err
	}
	secretName, secret := managedresources.NewSecret(seed, namespace, name, data, true)
	if err := secret.Reconcile(ctx); err != nil {
		return err
	}
	return managedresources.NewForShoot(seed, namespace, name, "test", false).
		WithSecretRef(secretName).
		DeletePersistentVolumeClaims(true).
		Reconcile(ctx)
}

// withdraw deletes a ManagedResource and waits until it is gone.
func withdraw(ctx context.Context, seed client.Client, namespace, name string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if err := managedresources.DeleteForShoot(ctx, seed, namespace, name); err != nil {
		return err
	}
	return managedresources.WaitUntilDeleted(ctx, seed, namespace, name)
}

func TestProcessesEndWithTheirStarter(t *testing.T) {
	g := NewWithT(t)
	temporary := t.TempDir()
	starter := exec.CommandContext(t.Context(), os.Args[0])
	starter.Env = append(os.Environ(), dieWithoutStop+"=true", "TMPDIR="+temporary)
	output, err := starter.StdoutPipe()
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(starter.Start()).To(Succeed())
	line, err := bufio.NewReader(output).ReadString('\n')
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(line).To(Equal("started\n"))
	g.Expect(running(temporary)).To(ContainElements(
		ContainSubstring("etcd"), ContainSubstring("kube-apiserver"),
		ContainSubstring("kube-controller-manager"), ContainSubstring("gardener-resource-manager")))

	g.Expect(starter.Process.Kill()).To(Succeed())
	g.Expect(starter.Wait()).To(MatchError(ContainSubstring("killed")))
	g.Eventually(func() []string { return running(temporary) }, "20s", "100ms").Should(BeEmpty())
	g.Eventually(func() ([]string, error) { return filepath.Glob(filepath.Join(temporary, "control-*")) }, "20s", "100ms").Should(BeEmpty())
}

func TestStartWithoutBinary(t *testing.T) {
	for _, binary := range []string{"etcd", "kube-apiserver", "kube-controller-manager", "gardener-resource-manager"} {
		t.Run(binary, func(t *testing.T) {
			g := NewWithT(t)
			temporary := t.TempDir()
			t.Setenv("TMPDIR", temporary)
			t.Setenv("TEST_ASSET_"+strings.ToUpper(strings.ReplaceAll(binary, "-", "_")), filepath.Join(temporary, "missing"))

			_, err := control.Start(t.Context(), control.Options{})

			g.Expect(err).To(MatchError(os.ErrNotExist))
			g.Expect(err).To(MatchError(ContainSubstring(binary)))
			g.Expect(running(temporary)).To(BeEmpty())
			g.Expect(os.ReadDir(temporary)).To(BeEmpty())
		})
	}
}

// running returns the command lines of all processes that name a folder.
func running(dir string) []string {
	var lines []string
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, file := range files {
		content, err := os.ReadFile(file)
		if line := strings.ReplaceAll(string(content), "\x00", " "); err == nil && strings.Contains(line, dir) {
			lines = append(lines, line)
		}
	}
	return lines
}
