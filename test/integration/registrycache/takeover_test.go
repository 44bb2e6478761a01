// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package registrycache_test

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"fmt"
	"net"
	"net/http/httptest"
	"path/filepath"
	"time"

	"github.com/distribution/distribution/v3/configuration"
	"github.com/distribution/distribution/v3/registry/handlers"
	"github.com/go-logr/logr"
	"github.com/google/go-containerregistry/pkg/name"
	containerregistry "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/util/cert"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	v1beta1helper "github.com/gardener/gardener/pkg/api/core/v1beta1/helper"
	resourcesv1alpha1 "github.com/gardener/gardener/pkg/apis/resources/v1alpha1"
	"github.com/gardener/gardener/pkg/client/kubernetes"
	"github.com/gardener/gardener/pkg/utils/managedresources"
	secretsutils "github.com/gardener/gardener/pkg/utils/secrets"
	secretsmanager "github.com/gardener/gardener/pkg/utils/secrets/manager"

	"github.com/gardener/gardener-extension-registry-cache/pkg/upstream"
	upstreamtest "github.com/gardener/gardener-extension-registry-cache/test/upstream"
)

// A Shoot in which the existing extension v0.24 has deployed caches.
var _ = Describe("Switch in place", func() {
	DescribeTable("takes over Services, claims and what is cached", func(ctx SpecContext, tls bool, replicas int32) {
		source := startUpstream("", "")
		image, index := pushImage(source, "library/app", "v1"), pushIndex(source, "library/multi", "v1")
		namespace, root := newShoot(ctx), GinkgoT().TempDir()

		By("having the existing extension's objects, and a volume that a stock registry has filled")
		fillByStockRegistry(filepath.Join(root, "var/lib/registry"), source)
		existing := existingCache{namespace: namespace, upstream: source.Host(), remoteURL: source.URL(), name: upstream.ResourceName(source.Host()), tls: tls, replicas: replicas}
		existing.deploy(ctx)
		// The existing extension's StatefulSets wait for that before they make another pod.
		first, _ := awaitPodAndClaim(ctx, existing.name)
		setPodReady(ctx, first, corev1.ConditionTrue)
		before := existing.read(ctx)
		for _, claim := range before.claims {
			bindClaim(ctx, claim)
		}

		By("reconciling")
		wanted := cache{
			"upstream": source.Host(), "remoteURL": source.URL(), "volume": map[string]any{"size": existingVolumeSize},
			"http": map[string]any{"tls": tls}, "highAvailability": map[string]any{"enabled": replicas > 1},
		}
		status := reconcile(ctx, namespace, wanted)
		Expect(status.Caches).To(ConsistOf(HaveField("Endpoint", existing.scheme()+"://"+net.JoinHostPort(before.service.Spec.ClusterIP, "5000"))))
		if tls {
			Expect(cert.ParseCertsPEM(caBundle(ctx, namespace, status))).To(ConsistOf(before.authority), "nodes trust that already")
		}
		Eventually(func(g Gomega) {
			podObject := &corev1.Pod{}
			for ordinal := replicas - 1; ordinal > 0; ordinal-- {
				// It is replaced before the first one, which waits until it is ready.
				name := fmt.Sprintf("%s-%d", existing.name, ordinal)
				g.Expect(shoot.Get(ctx, client.ObjectKey{Namespace: metav1.NamespaceSystem, Name: name}, podObject)).To(Succeed())
				podObject.Status.Phase = corev1.PodRunning
				podObject.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
				g.Expect(shoot.Status().Update(ctx, podObject)).To(Succeed())
			}
			g.Expect(shoot.Get(ctx, client.ObjectKeyFromObject(before.pod), podObject)).To(Succeed())
			g.Expect(podObject.UID).NotTo(Equal(before.pod.UID))
			g.Expect(podObject.Spec.Containers[0].Image).NotTo(Equal(existingImage))
		}).WithContext(ctx).WithTimeout(time.Minute).Should(Succeed())
		eventuallyNotInShoot(ctx, &corev1.Secret{}, existing.configSecretName())

		after := existing.read(ctx)
		Expect(after.service.UID).To(Equal(before.service.UID))
		Expect(after.service.Spec.ClusterIP).To(Equal(before.service.Spec.ClusterIP))
		Expect(after.statefulSet.UID).NotTo(Equal(before.statefulSet.UID), "its podManagementPolicy is another")
		for i, claim := range after.claims {
			Expect(claim.UID).To(Equal(before.claims[i].UID))
			Expect(claim.DeletionTimestamp).To(BeNil())
			Expect(claim.Spec.VolumeName).To(Equal(volumeOf(before.claims[i])))
		}
		if tls {
			Expect(after.authority).To(Equal(before.authority))
		}
		Expect(after.budget).To(Equal(before.budget))

		By("reconciling again, which replaces nothing")
		reconcile(ctx, namespace, wanted)
		awaitApplied(ctx, namespace)
		again := existing.read(ctx)
		Expect(again.statefulSet.UID).To(Equal(after.statefulSet.UID))
		Expect(again.pod.UID).To(Equal(after.pod.UID))

		By("pulling through the cache that runs on the same volume")
		if tls {
			eventuallyServedInShoot(ctx, existing.name, readTrust(ctx, namespace, existing.name).server)
		}
		osc := eventuallyMutated(ctx, newOperatingSystemConfig(namespace, "pool-a"))
		node := newNode(osc)
		node.start(osc)
		startPodIn(ctx, existing.name, root)
		Eventually(node.hostsTOML).WithArguments(source.Host()).Should(BeAnExistingFile())
		for reference, digest := range map[string]containerregistry.Hash{"library/app:v1": image, "library/multi:v1": index} {
			counts := node.expectPull(ctx, source, "cached by a stock registry, "+reference, reference, digest)
			Expect(counts.Blobs).To(BeZero())
			Expect(counts.Manifests).To(BeZero())
		}

		By("going back, which takes more than the existing extension does")
		for _, name := range []string{"extension-registry-cache-reports", "extension-registry-cache-definition"} {
			reports := &resourcesv1alpha1.ManagedResource{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
			Expect(seed.Delete(ctx, reports)).To(Succeed())
			Eventually(func() error { return seed.Get(ctx, client.ObjectKeyFromObject(reports), reports) }).WithContext(ctx).WithTimeout(time.Minute).
				Should(Satisfy(apierrors.IsNotFound))
		}
		Eventually(registryCaches).WithArguments(ctx, newOwner(environment.Shoot)).Should(BeEmpty())
		existing.deploy(ctx)
		Eventually(func(g Gomega) {
			managedResource := getManagedResource(ctx, namespace, "extension-registry-cache")
			applied := v1beta1helper.GetCondition(managedResource.Status.Conditions, resourcesv1alpha1.ResourcesApplied)
			g.Expect(applied).To(HaveValue(HaveField("Message", Or(ContainSubstring("field is immutable"), ContainSubstring("updates to statefulset spec")))))
		}).WithContext(ctx).Should(Succeed())
		ours := []client.DeleteAllOfOption{client.InNamespace(metav1.NamespaceSystem), client.HasLabels{"upstream-host"}}
		Expect(shoot.DeleteAllOf(ctx, &corev1.Secret{}, append(ours, client.MatchingFields{"type": string(corev1.SecretTypeTLS)})...)).To(Succeed())
		Expect(shoot.DeleteAllOf(ctx, &appsv1.StatefulSet{}, append(ours, client.PropagationPolicy(metav1.DeletePropagationOrphan))...)).To(Succeed())
		Eventually(func(g Gomega) {
			back := existing.read(ctx)
			g.Expect(back.statefulSet.Spec.PodManagementPolicy).To(Equal(appsv1.OrderedReadyPodManagement))
			g.Expect(back.service.UID).To(Equal(before.service.UID))
			for i, claim := range back.claims {
				g.Expect(claim.UID).To(Equal(before.claims[i].UID))
			}
		}).WithContext(ctx).WithTimeout(time.Minute).Should(Succeed())
	},
		Entry("with TLS", true, int32(1), SpecTimeout(4*time.Minute)),
		Entry("with plain HTTP, highly available", false, int32(2), SpecTimeout(4*time.Minute)),
	)
})

const (
	existingImage      = "registry.example.com/3rd/registry:3.1.1"
	existingVolumeSize = "20Gi"
	existingIdentity   = "extension-registry-cache"
	existingCAName     = "ca-extension-registry-cache"
)

// existingCache is a cache that the existing extension has deployed. What it is
// made of is what a switch has to cope with: the names and fields by which it finds
// its own, a StatefulSet and Secrets that cannot be updated to just anything.
type existingCache struct {
	namespace, upstream, remoteURL, name string
	tls                                  bool
	// replicas are two if it is highly available.
	replicas int32
}

// cacheObjects are the objects that outlive a switch, and the pod of before or
// after it.
type cacheObjects struct {
	service     *corev1.Service
	statefulSet *appsv1.StatefulSet
	pod         *corev1.Pod
	claims      []*corev1.PersistentVolumeClaim
	// authority is nil without TLS.
	authority *x509.Certificate
	// budget is the UID of the PodDisruptionBudget, and empty without high availability.
	budget types.UID
}

func (e existingCache) read(ctx context.Context) cacheObjects {
	GinkgoHelper()
	o := cacheObjects{service: &corev1.Service{}, statefulSet: &appsv1.StatefulSet{}}
	eventuallyInShoot(ctx, o.service, e.name)
	eventuallyInShoot(ctx, o.statefulSet, e.name)
	o.pod, _ = awaitPodAndClaim(ctx, e.name)
	for ordinal := range e.replicas {
		claim := &corev1.PersistentVolumeClaim{}
		eventuallyInShoot(ctx, claim, fmt.Sprintf("cache-volume-%s-%d", e.name, ordinal))
		o.claims = append(o.claims, claim)
	}
	if e.replicas > 1 {
		budget := &policyv1.PodDisruptionBudget{}
		eventuallyInShoot(ctx, budget, e.name)
		o.budget = budget.UID
	}
	if !e.tls {
		return o
	}
	secrets := &corev1.SecretList{}
	Expect(seed.List(ctx, secrets, client.InNamespace(e.namespace), client.MatchingLabels{
		"manager-identity": existingIdentity, "name": existingCAName,
	})).To(Succeed())
	Expect(secrets.Items).To(HaveLen(1))
	authorities, err := cert.ParseCertsPEM(secrets.Items[0].Data["ca.crt"])
	Expect(err).NotTo(HaveOccurred())
	o.authority = authorities[0]
	return o
}

func (e existingCache) deploy(ctx context.Context) {
	GinkgoHelper()
	e.deployManagedResource(ctx, "extension-registry-cache-services", e.service())
	service := &corev1.Service{}
	eventuallyInShoot(ctx, service, e.name)
	objects := []client.Object{e.configSecret(), e.statefulSet()}
	if e.tls {
		objects = append(objects, e.tlsSecret(e.generateCertificates(ctx, net.ParseIP(service.Spec.ClusterIP))))
	}
	if e.replicas > 1 {
		objects = append(objects, e.podDisruptionBudget())
	}
	e.deployManagedResource(ctx, "extension-registry-cache", objects...)
}

func (e existingCache) deployManagedResource(ctx context.Context, name string, objects ...client.Object) {
	GinkgoHelper()
	data, err := managedresources.NewRegistry(kubernetes.ShootScheme, kubernetes.ShootCodec, kubernetes.ShootSerializer).AddAllAndSerialize(objects...)
	Expect(err).NotTo(HaveOccurred())
	Expect(managedresources.CreateForShoot(ctx, seed, e.namespace, name, "registry-cache", false, data)).To(Succeed())
}

// generateCertificates leaves the Secrets of an authority and of a server in the
// Seed, and returns the latter.
func (e existingCache) generateCertificates(ctx context.Context, address net.IP) *corev1.Secret {
	GinkgoHelper()
	manager, err := secretsmanager.New(ctx, logr.Discard(), clock.RealClock{}, seed, existingIdentity, secretsmanager.WithNamespaces(e.namespace))
	Expect(err).NotTo(HaveOccurred())
	_, err = manager.Generate(ctx, &secretsutils.CertificateSecretConfig{
		Name: existingCAName, CommonName: existingCAName, CertType: secretsutils.CACert, Validity: ptr.To(2 * 365 * 24 * time.Hour),
	}, secretsmanager.Persist(), secretsmanager.Rotate(secretsmanager.KeepOld))
	Expect(err).NotTo(HaveOccurred())
	server, err := manager.Generate(ctx, &secretsutils.CertificateSecretConfig{
		Name: e.name + "-tls", CommonName: e.name, CertType: secretsutils.ServerCert, Validity: ptr.To(90 * 24 * time.Hour),
		DNSNames: []string{e.name + ".kube-system.svc"}, IPAddresses: []net.IP{address},
	}, secretsmanager.SignedByCA(existingCAName), secretsmanager.Rotate(secretsmanager.InPlace))
	Expect(err).NotTo(HaveOccurred())
	return server
}

func (e existingCache) labels() map[string]string {
	return map[string]string{"app": e.name, "upstream-host": upstream.Label(e.upstream)}
}

func (e existingCache) objectMeta(name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: metav1.NamespaceSystem, Name: name, Labels: e.labels()}
}

func (e existingCache) service() *corev1.Service {
	service := &corev1.Service{
		ObjectMeta: e.objectMeta(e.name),
		Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeClusterIP, Selector: e.labels(), Ports: []corev1.ServicePort{
			{Name: "registry-cache", Port: 5000, Protocol: corev1.ProtocolTCP, TargetPort: intstr.FromString("registry-cache")},
			{Name: "debug", Port: 5001, Protocol: corev1.ProtocolTCP, TargetPort: intstr.FromString("debug")},
		}},
	}
	service.Annotations = map[string]string{"upstream": e.upstream, "remote-url": e.remoteURL, "scheme": e.scheme()}
	return service
}

func (e existingCache) scheme() string {
	if e.tls {
		return "https"
	}
	return "http"
}

func (e existingCache) podDisruptionBudget() *policyv1.PodDisruptionBudget {
	return &policyv1.PodDisruptionBudget{
		ObjectMeta: e.objectMeta(e.name),
		Spec: policyv1.PodDisruptionBudgetSpec{
			MaxUnavailable: ptr.To(intstr.FromInt32(1)), Selector: &metav1.LabelSelector{MatchLabels: e.labels()},
		},
	}
}

func (e existingCache) configSecretName() string { return e.name + "-config-0a1b2c3d" }

// configSecret is immutable, and its name is of its content.
func (e existingCache) configSecret() *corev1.Secret {
	return &corev1.Secret{
		ObjectMeta: e.objectMeta(e.configSecretName()), Type: corev1.SecretTypeOpaque, Immutable: ptr.To(true),
		Data: map[string][]byte{"config.yml": []byte("version: 0.1\nproxy:\n  remoteurl: " + e.remoteURL + "\n")},
	}
}

// tlsSecret has the name that it has today, but nothing of it can be updated.
func (e existingCache) tlsSecret(server *corev1.Secret) *corev1.Secret {
	return &corev1.Secret{
		ObjectMeta: e.objectMeta(e.name + "-tls"), Type: corev1.SecretTypeOpaque, Immutable: ptr.To(true), Data: server.Data,
	}
}

func (e existingCache) statefulSet() *appsv1.StatefulSet {
	podLabels := e.labels()
	podLabels["app.kubernetes.io/name"] = "registry-cache"
	podLabels["networking.gardener.cloud/to-dns"] = "allowed"
	podLabels["networking.gardener.cloud/to-public-networks"] = "allowed"
	statefulSet := &appsv1.StatefulSet{
		ObjectMeta: e.objectMeta(e.name),
		Spec: appsv1.StatefulSetSpec{
			Replicas: &e.replicas, RevisionHistoryLimit: ptr.To[int32](2),
			Selector: &metav1.LabelSelector{MatchLabels: e.labels()},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: podLabels},
				Spec: corev1.PodSpec{
					AutomountServiceAccountToken: ptr.To(false),
					PriorityClassName:            "system-cluster-critical",
					SecurityContext: &corev1.PodSecurityContext{
						RunAsUser: ptr.To[int64](65532), RunAsGroup: ptr.To[int64](65532), FSGroup: ptr.To[int64](65532),
						RunAsNonRoot: ptr.To(true), SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
					},
					Containers: []corev1.Container{{
						Name: "registry-cache", Image: existingImage,
						Ports: []corev1.ContainerPort{{Name: "registry-cache", ContainerPort: 5000}, {Name: "debug", ContainerPort: 5001}},
						SecurityContext: &corev1.SecurityContext{
							AllowPrivilegeEscalation: ptr.To(false), Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
						},
						VolumeMounts: []corev1.VolumeMount{
							{Name: "cache-volume", MountPath: "/var/lib/registry"},
							{Name: "existing-config", MountPath: "/etc/distribution"},
						},
					}},
					Volumes: []corev1.Volume{
						{Name: "existing-config", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: e.configSecretName()}}},
					},
				},
			},
			VolumeClaimTemplates: []corev1.PersistentVolumeClaim{{
				ObjectMeta: metav1.ObjectMeta{Name: "cache-volume"},
				Spec: corev1.PersistentVolumeClaimSpec{
					AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
					Resources:   corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse(existingVolumeSize)}},
				},
			}},
		},
	}
	if e.tls {
		podSpec := &statefulSet.Spec.Template.Spec
		podSpec.Containers[0].VolumeMounts = append(podSpec.Containers[0].VolumeMounts,
			corev1.VolumeMount{Name: "existing-certificate", MountPath: "/etc/distribution/certs"})
		podSpec.Volumes = append(podSpec.Volumes, corev1.Volume{
			Name: "existing-certificate", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: e.name + "-tls"}},
		})
	}
	return statefulSet
}

// volumeOf is the name of the volume that a claim is bound to.
func volumeOf(claim *corev1.PersistentVolumeClaim) string {
	return "volume-of-" + claim.Name
}

// bindClaim binds a claim to a volume, which there is no controller for here.
func bindClaim(ctx context.Context, claim *corev1.PersistentVolumeClaim) {
	GinkgoHelper()
	volume := &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: volumeOf(claim)},
		Spec: corev1.PersistentVolumeSpec{
			AccessModes: claim.Spec.AccessModes, Capacity: claim.Spec.Resources.Requests,
			ClaimRef:               &corev1.ObjectReference{Kind: "PersistentVolumeClaim", Namespace: claim.Namespace, Name: claim.Name, UID: claim.UID},
			PersistentVolumeSource: corev1.PersistentVolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/var/empty"}},
		},
	}
	Expect(shoot.Create(ctx, volume)).To(Succeed())
	DeferCleanup(deleteVolume, volume, NodeTimeout(time.Minute))

	patch := client.MergeFrom(claim.DeepCopy())
	claim.Spec.VolumeName = volume.Name
	Expect(shoot.Patch(ctx, claim, patch)).To(Succeed())
	patch = client.MergeFrom(claim.DeepCopy())
	claim.Status = corev1.PersistentVolumeClaimStatus{Phase: corev1.ClaimBound, AccessModes: claim.Spec.AccessModes, Capacity: claim.Spec.Resources.Requests}
	Expect(shoot.Status().Patch(ctx, claim, patch)).To(Succeed())
}

func deleteVolume(ctx SpecContext, volume *corev1.PersistentVolume) {
	GinkgoHelper()
	// There is no controller here either that would remove the finalizer.
	patch := client.RawPatch(client.Merge.Type(), []byte(`{"metadata":{"finalizers":null}}`))
	Expect(shoot.Patch(ctx, volume, patch)).To(Succeed())
	Expect(shoot.Delete(ctx, volume)).To(Succeed())
}

// fillByStockRegistry pulls all images of an upstream through a stock registry that
// keeps them in a folder.
func fillByStockRegistry(folder string, source *upstreamtest.Registry) {
	GinkgoHelper()
	config := &configuration.Configuration{
		Proxy: configuration.Proxy{RemoteURL: source.URL(), TTL: ptr.To(168 * time.Hour)},
		Storage: configuration.Storage{
			"filesystem": configuration.Parameters{"rootdirectory": folder},
			"delete":     configuration.Parameters{"enabled": true},
		},
	}
	config.HTTP.Secret = rand.Text()
	app := handlers.NewApp(context.Background(), config)
	server := httptest.NewServer(app)
	before := source.Counts()
	for _, repository := range []string{"library/app", "library/multi"} {
		reference, err := name.ParseReference(server.Listener.Addr().String()+"/"+repository+":v1", name.Insecure)
		Expect(err).NotTo(HaveOccurred())
		descriptor, err := remote.Get(reference)
		Expect(err).NotTo(HaveOccurred())
		if descriptor.MediaType.IsImage() {
			image, err := descriptor.Image()
			Expect(err).NotTo(HaveOccurred())
			Expect(upstreamtest.ReadImage(image)).To(Succeed())
			continue
		}
		index, err := descriptor.ImageIndex()
		Expect(err).NotTo(HaveOccurred())
		manifest, err := index.IndexManifest()
		Expect(err).NotTo(HaveOccurred())
		for _, platform := range manifest.Manifests {
			image, err := index.Image(platform.Digest)
			Expect(err).NotTo(HaveOccurred())
			Expect(upstreamtest.ReadImage(image)).To(Succeed())
		}
	}
	// Three images of a manifest, a configuration and layers, and an index. It stores
	// them after it has served them.
	Eventually(func() ([]string, error) {
		return filepath.Glob(filepath.Join(folder, "docker/registry/v2/blobs/sha256/*/*/data"))
	}).Should(HaveLen(3*(2+layers) + 1))
	Eventually(func() ([]string, error) {
		return filepath.Glob(filepath.Join(folder, "docker/registry/v2/repositories/library/*/_manifests/tags/v1/current/link"))
	}).Should(HaveLen(2))
	Eventually(func() ([]string, error) {
		return filepath.Glob(filepath.Join(folder, "docker/registry/v2/repositories/library/*/_layers/sha256/*/link"))
	}).Should(HaveLen(3 * (1 + layers)))
	Expect(source.Since(before).Blobs).To(BeNumerically(">", 0))
	server.Close()
	Expect(app.Shutdown()).To(Succeed())
}
