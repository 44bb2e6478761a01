// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package documentation_test

import (
	"context"
	"crypto/tls"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	gomegatypes "github.com/onsi/gomega/types"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	gardencorev1beta1 "github.com/gardener/gardener/pkg/apis/core/v1beta1"
	v1beta1constants "github.com/gardener/gardener/pkg/apis/core/v1beta1/constants"
	extensionsv1alpha1 "github.com/gardener/gardener/pkg/apis/extensions/v1alpha1"
	gardenkubernetes "github.com/gardener/gardener/pkg/client/kubernetes"

	"github.com/gardener/gardener-extension-registry-cache/test/landscape"
	"github.com/gardener/gardener-extension-registry-cache/test/process"
	"github.com/gardener/gardener-extension-registry-cache/test/upstream"
)

// privateHost is an upstream that wants credentials: without them, which no node has,
// there is no pull. So whoever pulls does it through the cache, with its credentials.
const privateHost = "private.test"

// gardenctlSpecs follow operations/gardenctl.md, except for the commands of gardenctl
// itself: they name the clusters as the page does for who has no gardenctl.
//
// The garden, the Seed, the Shoot and the node are real. There is no gardenlet: when the
// page has changed or annotated the Shoot in the garden, follow does what gardenlet does.
func gardenctlSpecs() {
	const page = "operations/gardenctl.md"
	var (
		garden  client.Client
		private *upstream.Registry
	)
	// in runs blocks of a section in one of the clusters, with the examples' names
	// replaced by those that are here.
	try := func(ctx context.Context, cluster, section string, numbers ...int) (string, error) {
		GinkgoHelper()
		commands := strings.Join(docs.commands(page, section, numbers...), "")
		commands = strings.NewReplacer("shoot=example", "shoot=demo", "upstream=docker.io", "upstream="+privateHost).Replace(commands)
		docs.run(ctx, "export KUBECONFIG="+cluster+".kubeconfig")
		return docs.try(ctx, commands)
	}
	in := func(ctx context.Context, cluster, section string, numbers ...int) string {
		GinkgoHelper()
		output, err := try(ctx, cluster, section, numbers...)
		Expect(err).NotTo(HaveOccurred(), output)
		return output
	}
	follow := func(ctx context.Context) {
		GinkgoHelper()
		Expect(shoot.Follow(ctx, garden)).To(Succeed())
		_, err := shoot.UpdateNode(ctx)
		Expect(err).NotTo(HaveOccurred())
		// If its fragments have changed, the node asks the caches anew.
		_, err = land.AwaitHostsTOML(ctx, privateHost, true)
		Expect(err).NotTo(HaveOccurred())
	}

	BeforeAll(func(ctx SpecContext) {
		var err error
		private, err = land.StartRegistry(ctx, upstream.Speed{}, "robot", "change-me", privateHost)
		Expect(err).NotTo(HaveOccurred())
		DeferCleanup(private.Close)
		Expect(land.Internet.ServePlain(ctx, private, privateHost)).To(Succeed())
	})

	It("has the Shoot in the garden, whose API gives out its kubeconfig (gardenctl)", func(ctx SpecContext) {
		var err error
		garden, err = client.New(land.Garden.Config, client.Options{Scheme: gardenkubernetes.GardenScheme})
		Expect(err).NotTo(HaveOccurred())

		docs.run(ctx, "export KUBECONFIG=garden.kubeconfig")
		Eventually(func() (string, error) {
			return docs.try(ctx, "kubectl apply -f test/documentation/testdata/demo.yaml")
		}).Should(ContainSubstring("shoot.core.gardener.cloud/demo "))
		Expect(shoot.Publish(ctx, garden)).To(Succeed())
		follow(ctx)

		in(ctx, "garden", "The same without gardenctl")
		Expect(docs.run(ctx, `echo "$project_namespace $shoot_namespace"`)).To(Equal("garden-dev " + shoot.Namespace + "\n"))
		output, err := docs.try(ctx, "shoot=good\n"+docs.block(page, "The same without gardenctl", 2))
		Expect(err).To(HaveOccurred())
		Expect(output).To(ContainSubstring("no suitable advertised address for kube-apiserver found in .status.advertisedAddresses"))
		in(ctx, "garden", "The same without gardenctl", 2)
		docs.run(ctx, "export KUBECONFIG=shoot.kubeconfig")
		Expect(docs.run(ctx, "kubectl auth whoami")).To(ContainSubstring("gardener.cloud:admin:"))
		Expect(docs.run(ctx, "kubectl get nodes")).To(ContainSubstring("Ready"))
	}, SpecTimeout(3*time.Minute))

	It("shows the extension in the control plane (gardenctl)", func(ctx SpecContext) {
		// ManagedResources of RegistryCaches are not waited for.
		Eventually(func(g Gomega) {
			output, err := docs.try(ctx, "kubectl --kubeconfig seed.kubeconfig -n "+shoot.Namespace+" get managedresources")
			g.Expect(err).NotTo(HaveOccurred())
			// Applied, healthy, and not progressing.
			g.Expect(regexp.MustCompile(`(?m)^extension-registry-cache\S* +True +True +False `).FindAllString(output, -1)).To(HaveLen(4), output)
		}).Should(Succeed())
		output := in(ctx, "seed", "See the extension")
		Expect(output).To(And(
			MatchRegexp(`(?m)^registry-cache +registry-cache +Succeeded`), MatchRegexp(`(?m)^registry-mirror +registry-mirror +Succeeded`),
			ContainSubstring(`"upstream": "`+privateHost+`"`), MatchRegexp(`"endpoint": "https://10\.96\.`),
			MatchRegexp(`(?m)^extension-registry-cache +True`), MatchRegexp(`(?m)^extension-registry-cache-services +True`),
			MatchRegexp(`(?m)^extension-registry-cache-definition +True`), MatchRegexp(`(?m)^extension-registry-cache-reports +True`),
			ContainSubstring(`"ResourcesApplied"`),
			ContainSubstring("gardener-node-agent-pool /var/lib/registry-hosts/"+privateHost+"/10-cache.toml"),
			ContainSubstring("gardener-node-agent-pool /var/lib/registry-hosts/docker.io/20-mirror-01.toml")))
	}, SpecTimeout(2*time.Minute))

	It("reconciles by annotation (gardenctl)", func(ctx SpecContext) {
		before, err := shoot.InGarden(ctx, garden)
		Expect(err).NotTo(HaveOccurred())
		Expect(in(ctx, "garden", "Reconcile", 1)).To(And(ContainSubstring("demo annotated"), ContainSubstring(`"state":"Succeeded"`)))
		// What gardenlet goes by.
		after, err := shoot.InGarden(ctx, garden)
		Expect(err).NotTo(HaveOccurred())
		Expect(after.Generation).To(Equal(before.Generation + 1))
		Expect(after.Annotations).NotTo(HaveKey(v1beta1constants.GardenerOperation))

		extension := &extensionsv1alpha1.Extension{ObjectMeta: metav1.ObjectMeta{Namespace: shoot.Namespace, Name: "registry-cache"}}
		Expect(land.SeedClient.Get(ctx, client.ObjectKeyFromObject(extension), extension)).To(Succeed())
		last := extension.Status.LastOperation.LastUpdateTime
		// It is in whole seconds: the next one is to have another.
		time.Sleep(time.Until(last.Add(time.Second)))
		Expect(in(ctx, "seed", "Reconcile", 2)).To(And(ContainSubstring("registry-cache annotated"), ContainSubstring(`"lastUpdateTime"`)))
		Eventually(func(g Gomega) {
			g.Expect(land.SeedClient.Get(ctx, client.ObjectKeyFromObject(extension), extension)).To(Succeed())
			g.Expect(extension.Annotations).NotTo(HaveKey(v1beta1constants.GardenerOperation))
			g.Expect(extension.Status.LastOperation.State).To(Equal(gardencorev1beta1.LastOperationStateSucceeded))
			g.Expect(extension.Status.LastOperation.LastUpdateTime.Time).To(BeTemporally(">", last.Time))
		}).Should(Succeed())
	}, SpecTimeout(time.Minute))

	It("lists caches, with the plugin too (gardenctl)", func(ctx SpecContext) {
		plugin, err := process.FindBinary("kubectl-registry_cache")
		Expect(err).NotTo(HaveOccurred())
		err = os.Symlink(plugin, filepath.Join(land.Dir, "tools", "kubectl-registry_cache"))
		Expect(err).To(Or(Not(HaveOccurred()), Satisfy(func(err error) bool { return errors.Is(err, os.ErrExist) })))

		pushPrivate(ctx, private, "listed", "change-me")
		Eventually(land.PullAndForget).WithArguments(ctx, privateHost+"/listed:v1").Should(Succeed())
		Eventually(func(g Gomega) { // it reports every 30 seconds
			caches, err := docs.try(ctx, "kubectl --kubeconfig shoot.kubeconfig -n kube-system get registrycache registry-private-test -o jsonpath={.status.blobs}")
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(caches).NotTo(Or(BeEmpty(), Equal("0")))
		}).WithTimeout(2 * time.Minute).Should(Succeed())
		Expect(in(ctx, "shoot", "List and inspect caches")).To(And(
			MatchRegexp(`(?m)^registry-private-test +private\.test +https://10\.96\.`),
			MatchRegexp(`(?m)^registry-upstream-test +upstream\.test +https://10\.96\.`),
			MatchRegexp(`statefulset\.apps/registry-private-test +1/1`), ContainSubstring("kind: RegistryCache\n"),
			ContainSubstring(`"path":"/v2/listed/manifests/`),
			MatchRegexp(`(?m)^private\.test +1/1 `), ContainSubstring("private.test/listed:v1")))
	}, SpecTimeout(3*time.Minute))

	It("resizes a volume (gardenctl)", func(ctx SpecContext) {
		pod, err := land.Pod(ctx, privateHost)
		Expect(err).NotTo(HaveOccurred())
		Expect(in(ctx, "shoot", "Resize a volume", 2)).To(MatchRegexp(`registry-private-test-0 +10Gi +10Gi`))

		By("doing it where the StorageClass does not allow it")
		Expect(in(ctx, "garden", "Resize a volume", 1)).To(ContainSubstring("demo replaced"))
		inGarden, err := shoot.InGarden(ctx, garden)
		Expect(err).NotTo(HaveOccurred())
		Expect(string(inGarden.Spec.Extensions[1].ProviderConfig.Raw)).To(MatchRegexp(`"upstream":"private\.test".*"size":"20Gi"`))
		refused, cancel := context.WithTimeout(ctx, 30*time.Second)
		defer cancel()
		Expect(shoot.Follow(refused, garden)).To(MatchError(ContainSubstring("cannot grow from 10Gi to 20Gi, as its StorageClass \"default\" does not have allowVolumeExpansion: true")))

		By("doing it where it does")
		class := &storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: "default"}}
		Expect(land.ShootClient.Get(ctx, client.ObjectKeyFromObject(class), class)).To(Succeed())
		class.AllowVolumeExpansion = ptr.To(true)
		Expect(land.ShootClient.Update(ctx, class)).To(Succeed())
		follow(ctx)
		Expect(in(ctx, "shoot", "Resize a volume", 2)).To(MatchRegexp(`registry-private-test-0 +20Gi +10Gi`))

		By("growing the volume, as the storage driver does")
		claim := &corev1.PersistentVolumeClaim{}
		Expect(land.ShootClient.Get(ctx, client.ObjectKey{Namespace: metav1.NamespaceSystem, Name: "cache-volume-registry-private-test-0"}, claim)).To(Succeed())
		volume := &corev1.PersistentVolume{}
		Expect(land.ShootClient.Get(ctx, client.ObjectKey{Name: claim.Spec.VolumeName}, volume)).To(Succeed())
		volume.Spec.Capacity[corev1.ResourceStorage] = resource.MustParse("20Gi")
		Expect(land.ShootClient.Update(ctx, volume)).To(Succeed())
		claim.Status.Capacity[corev1.ResourceStorage] = resource.MustParse("20Gi")
		Expect(land.ShootClient.Status().Update(ctx, claim)).To(Succeed())
		Expect(in(ctx, "shoot", "Resize a volume", 2)).To(MatchRegexp(`registry-private-test-0 +20Gi +20Gi`))
		Expect(land.Pod(ctx, privateHost)).To(HaveField("UID", pod.UID))

		By("shrinking it")
		shrink := strings.Replace(docs.block(page, "Resize a volume", 1), "20Gi", "15Gi", 1)
		output, err := docs.try(ctx, "export KUBECONFIG=garden.kubeconfig\n"+shrink)
		Expect(err).To(HaveOccurred())
		Expect(output).To(ContainSubstring(`caches[1].volume.size: Invalid value: "15Gi": must not shrink`))

		By("having changed the Shoot meanwhile")
		output, err = docs.try(ctx, "export KUBECONFIG=garden.kubeconfig\nkubectl -n garden-dev get shoot demo -o json >shoot.json\nkubectl -n garden-dev label shoot demo changed=meanwhile\nkubectl replace -f shoot.json")
		Expect(err).To(HaveOccurred())
		Expect(output).To(And(ContainSubstring("Operation cannot be fulfilled on shoots"), ContainSubstring("the object has been modified")))
	}, SpecTimeout(4*time.Minute))

	It("reads hosts.toml on a node (gardenctl)", func(ctx SpecContext) {
		image, err := landscape.NewProgramImage(ctx, "/usr/sbin/chroot")
		Expect(err).NotTo(HaveOccurred())
		Expect(landscape.Push(ctx, registry, "debug", "v1", image)).To(Succeed())
		docs.run(ctx, "image="+upstreamHost+"/debug:v1")
		hosts := And(ContainSubstring("server = 'http://"+privateHost+"'"), MatchRegexp(`\[host\.'https://10\.96\.`))
		Expect(in(ctx, "shoot", "Read hosts.toml on a node", 2)).To(hosts)

		onNode, err := land.Node.Run(ctx, "sh", "-c", docs.block(page, "Read hosts.toml on a node", 3))
		Expect(err).NotTo(HaveOccurred())
		Expect(onNode).To(And(hosts, ContainSubstring("https://mirror.example.com"), ContainSubstring(privateHost+": wrote hosts.toml")))
	}, SpecTimeout(2*time.Minute))

	It("rotates the credentials of an upstream (gardenctl)", func(ctx SpecContext) {
		pod, err := land.Pod(ctx, privateHost)
		Expect(err).NotTo(HaveOccurred())
		shown := MatchRegexp(`^registry-private-test-credentials robot [0-9]+\n$`)
		before := in(ctx, "shoot", "Rotate the credentials of an upstream", 3)
		Expect(before).To(shown)
		Expect(in(ctx, "garden", "Rotate the credentials of an upstream", 1, 2)).To(And(ContainSubstring("example-registry-v2 created"), ContainSubstring("demo replaced")))
		follow(ctx)
		// The Secret may go between the commands of a block, when there is a new one.
		Eventually(try).WithArguments(ctx, "shoot", "Rotate the credentials of an upstream", 3).
			Should(And(shown, Not(Equal(before))), "the Secret has changed")

		By("withdrawing the old ones, after which the page says that it takes two minutes at most")
		Expect(private.SetUser("robot", "change-me-too")).To(Succeed())
		pushPrivate(ctx, private, "rotated", "change-me-too")
		Eventually(land.PullAndForget).WithArguments(ctx, privateHost+"/rotated:v1").WithTimeout(2 * time.Minute).WithPolling(time.Second).Should(Succeed())
		Expect(land.Pod(ctx, privateHost)).To(And(HaveField("UID", pod.UID), HaveField("Status.ContainerStatuses", HaveExactElements(HaveField("RestartCount", BeZero())))))
	}, SpecTimeout(5*time.Minute))

	It("rotates the certificate authority (gardenctl)", func(ctx SpecContext) {
		const section = "Rotate the certificate authority"
		authorities := func(phase gardencorev1beta1.CredentialsRotationPhase, trusted gomegatypes.GomegaMatcher) {
			GinkgoHelper()
			Expect(shoot.Report(ctx, garden, func(shoot *gardencorev1beta1.Shoot) {
				credentials := shoot.Status.Credentials
				if credentials == nil {
					credentials = &gardencorev1beta1.ShootCredentials{Rotation: &gardencorev1beta1.ShootCredentialsRotation{
						CertificateAuthorities: &gardencorev1beta1.CARotation{LastInitiationTime: ptr.To(metav1.Now())},
					}}
				}
				credentials.Rotation.CertificateAuthorities.Phase = phase
				shoot.Status.Credentials = credentials
			})).To(Succeed())
			Expect(in(ctx, "garden", section, 2)).To(ContainSubstring(`"phase": "` + string(phase) + `"`))
			// More than once: the controller may know of the phase a moment later.
			Eventually(func(g Gomega) {
				g.Expect(shoot.Follow(ctx, garden)).To(Succeed())
				g.Expect(try(ctx, "seed", section, 4)).To(trusted)
			}).Should(Succeed())
			follow(ctx)
			// Past the cache there is nothing without credentials, if it is withdrawn for a moment.
			Eventually(land.PullAndForget).WithArguments(ctx, privateHost+"/listed:v1").Should(Succeed())
		}
		Expect(in(ctx, "seed", section, 4)).To(Equal("1\n"))
		in(ctx, "garden", section, 1)
		Expect(shoot.InGarden(ctx, garden)).To(HaveField("Annotations", HaveKeyWithValue(v1beta1constants.GardenerOperation, "rotate-ca-start")))
		authorities(gardencorev1beta1.RotationPreparing, Equal("2\n"))

		By("completing it too early")
		output, err := docs.try(ctx, "export KUBECONFIG=garden.kubeconfig\n"+docs.block(page, section, 3))
		Expect(err).To(HaveOccurred())
		Expect(output).To(ContainSubstring("cannot complete CA rotation if .status.credentials.rotation.certificateAuthorities.phase is not 'Prepared'"))

		authorities(gardencorev1beta1.RotationPrepared, Equal("2\n"))
		By("waiting for the new certificate, for which the page says two minutes")
		secrets := &corev1.SecretList{}
		Expect(land.ShootClient.List(ctx, secrets, client.InNamespace(metav1.NamespaceSystem), client.MatchingLabels{"upstream-host": privateHost},
			client.MatchingFields{"type": string(corev1.SecretTypeTLS)})).To(Succeed())
		Expect(secrets.Items).To(HaveLen(1))
		renewed, _ := pem.Decode(secrets.Items[0].Data[corev1.TLSCertKey])
		Eventually(servedCertificate).WithArguments(ctx).WithTimeout(2 * time.Minute).WithPolling(time.Second).Should(Equal(renewed.Bytes))
		Expect(in(ctx, "garden", section, 3)).To(ContainSubstring("demo annotated"))
		authorities(gardencorev1beta1.RotationCompleting, Equal("1\n"))
		authorities(gardencorev1beta1.RotationCompleted, Equal("1\n"))
	}, SpecTimeout(5*time.Minute))
}

// servedCertificate is the one that the cache of the private upstream shows, in DER.
func servedCertificate(ctx context.Context) ([]byte, error) {
	pod, err := land.Pod(ctx, privateHost)
	if err != nil {
		return nil, err
	}
	// Which one it is is the question, not whether it is trusted.
	dialer := &tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true}}
	conn, err := dialer.DialContext(ctx, "tcp", net.JoinHostPort(pod.Status.PodIP, "5000"))
	if err != nil {
		return nil, fmt.Errorf("connect to the cache: %w", err)
	}
	defer func() { _ = conn.Close() }()
	return conn.(*tls.Conn).ConnectionState().PeerCertificates[0].Raw, nil
}

// pushPrivate pushes an image to the upstream that wants credentials.
func pushPrivate(ctx context.Context, registry *upstream.Registry, repository, password string) {
	GinkgoHelper()
	image, err := landscape.NewImage(layers, layerSize)
	Expect(err).NotTo(HaveOccurred())
	credentials := remote.WithAuth(&authn.Basic{Username: "robot", Password: password})
	Expect(landscape.Push(ctx, registry, repository, "v1", image, credentials)).To(Succeed())
}
