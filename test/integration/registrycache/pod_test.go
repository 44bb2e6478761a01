// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package registrycache_test

import (
	"context"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"github.com/onsi/gomega/gexec"
	appsv1 "k8s.io/api/apps/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	configv1alpha1 "github.com/gardener/gardener-extension-registry-cache/pkg/apis/config/v1alpha1"
)

// pod is a cache's pod as it runs here, in place of a kubelet: the real binary
// with the arguments, environment and files that the pod in the Shoot's API
// server asks for, at the cluster IP of its Service. What a container would give
// it, a root folder and an address of its own, is written into its configuration.
type pod struct {
	object  *corev1.Pod
	root    string
	address string
	session *gexec.Session
	// hostname is what the process takes for the name of the machine, which in a pod is
	// the pod's; empty: that of this machine.
	hostname string
}

// startPod starts the pod that the StatefulSet controller made for a cache, and
// waits until it is ready by its own probe.
func startPod(ctx context.Context, name string) *pod {
	GinkgoHelper()
	return startPodIn(ctx, name, GinkgoT().TempDir())
}

// startPodIn starts a pod whose root is a given folder: what is where it mounts its
// claim is what the claim's volume holds.
func startPodIn(ctx context.Context, name, root string) *pod {
	GinkgoHelper()
	p := &pod{object: &corev1.Pod{}, root: root, address: clusterIP(ctx, name)}
	eventuallyInShoot(ctx, &appsv1.StatefulSet{}, name)
	eventuallyInShoot(ctx, p.object, name+"-0")
	Expect(p.object.Spec.Containers).To(HaveLen(1))
	p.mountVolumes(ctx)
	p.start()
	return p
}

func (p *pod) start() {
	GinkgoHelper()
	p.launch()
	p.awaitReady()
}

// launch starts the process of the pod.
func (p *pod) launch() {
	GinkgoHelper()
	container := p.object.Spec.Containers[0]
	args := make([]string, 0, len(container.Args))
	for _, arg := range container.Args {
		flag, file, found := strings.Cut(arg, "=")
		Expect(found).To(BeTrue(), arg)
		args = append(args, flag+"="+p.containerize(file))
	}
	cmd := exec.Command(cacheBinary, args...)
	if p.hostname != "" {
		cmd = exec.Command("unshare", slices.Concat(ownHostname(), []string{p.hostname, cacheBinary}, args)...)
	}
	cmd.Env = []string{"PATH=" + os.Getenv("PATH")}
	for _, variable := range container.Env {
		cmd.Env = append(cmd.Env, variable.Name+"="+variable.Value)
	}
	var err error
	p.session, err = gexec.Start(cmd, GinkgoWriter, GinkgoWriter)
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(p.stop)
}

// ownHostname are the arguments of unshare that run a command with a host name of its
// own: after them come the name and the command. It skips the spec where the machine
// does not allow that.
func ownHostname() []string {
	GinkgoHelper()
	args := []string{"--uts"}
	if os.Geteuid() != 0 {
		args = append(args, "--map-root-user")
	}
	args = append(args, "sh", "-c", `echo "$0" >/proc/sys/kernel/hostname && exec "$@"`)
	if output, err := exec.Command("unshare", append(slices.Clone(args), "tried", "true")...).CombinedOutput(); err != nil {
		if os.Getenv("REQUIRE_CLUSTER") != "" {
			Fail("processes cannot have a host name of their own: " + string(output))
		}
		Skip("processes cannot have a host name of their own here: " + string(output))
	}
	return args
}

// awaitReady waits until the pod is ready by its own probe.
func (p *pod) awaitReady() {
	GinkgoHelper()
	probe := p.object.Spec.Containers[0].ReadinessProbe.HTTPGet
	Expect(probe.Port.StrVal).To(Equal("debug"))
	Eventually(func() (int, error) {
		return getStatus("http://" + net.JoinHostPort(p.address, "5001") + probe.Path)
	}).Should(Equal(http.StatusOK))
}

// stop ends the process as a kubelet does.
func (p *pod) stop() {
	p.session.Terminate().Wait(time.Duration(*p.object.Spec.TerminationGracePeriodSeconds) * time.Second)
}

// kill ends the process as a node does that loses its power.
func (p *pod) kill() {
	p.session.Kill().Wait(10 * time.Second)
}

// mountVolumes puts the content of Secrets, and an empty folder for a claim, to
// where the container mounts them.
func (p *pod) mountVolumes(ctx context.Context) {
	GinkgoHelper()
	for _, mount := range p.object.Spec.Containers[0].VolumeMounts {
		directory := filepath.Join(p.root, mount.MountPath)
		Expect(os.MkdirAll(directory, 0o750)).To(Succeed())
		for _, volume := range p.object.Spec.Volumes {
			switch {
			case volume.Name != mount.Name:
			case volume.PersistentVolumeClaim != nil:
				claim := &corev1.PersistentVolumeClaim{}
				eventuallyInShoot(ctx, claim, volume.PersistentVolumeClaim.ClaimName)
			case volume.Secret != nil:
				mountSecret(ctx, directory, volume.Secret.SecretName)
			case volume.Projected != nil:
				p.mountProjected(ctx, directory, volume.Projected)
			default:
				Fail("unexpected kind of volume " + volume.Name)
			}
		}
	}
}

// mountProjected writes what a kubelet does for a pod that is to speak to the API
// server: a token of its ServiceAccount, and the authorities to trust.
func (p *pod) mountProjected(ctx context.Context, directory string, projected *corev1.ProjectedVolumeSource) {
	GinkgoHelper()
	for _, source := range projected.Sources {
		switch {
		case source.ServiceAccountToken != nil:
			account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: p.object.Namespace, Name: p.object.Spec.ServiceAccountName}}
			request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: source.ServiceAccountToken.ExpirationSeconds}}
			Expect(shoot.SubResource("token").Create(ctx, account, request)).To(Succeed())
			Expect(os.WriteFile(filepath.Join(directory, source.ServiceAccountToken.Path), []byte(request.Status.Token), 0o600)).To(Succeed())
		case source.ConfigMap != nil:
			Expect(source.ConfigMap.Name).To(Equal("kube-root-ca.crt"))
			Expect(source.ConfigMap.Items).To(HaveLen(1))
			Expect(os.WriteFile(filepath.Join(directory, source.ConfigMap.Items[0].Path), environment.Shoot.CAData, 0o600)).To(Succeed())
		default:
			Fail("unexpected source of a projected volume")
		}
	}
}

// syncSecret brings the files of a Secret up to date, which a kubelet does up to 90
// seconds after the Secret changed.
func (p *pod) syncSecret(ctx context.Context, name string) {
	GinkgoHelper()
	for _, mount := range p.object.Spec.Containers[0].VolumeMounts {
		for _, volume := range p.object.Spec.Volumes {
			if volume.Name == mount.Name && volume.Secret != nil && volume.Secret.SecretName == name {
				mountSecret(ctx, filepath.Join(p.root, mount.MountPath), name)
				return
			}
		}
	}
	Fail("the pod does not mount Secret " + name)
}

// mountSecret writes the content of a Secret as a kubelet does: the files are links
// into a folder that is replaced as a whole, by a link to it that is.
func mountSecret(ctx context.Context, directory, name string) {
	GinkgoHelper()
	secret := &corev1.Secret{}
	Expect(shoot.Get(ctx, client.ObjectKey{Namespace: metav1.NamespaceSystem, Name: name}, secret)).To(Succeed())
	const link, newLink = "..data", "..data_tmp"
	content, err := os.MkdirTemp(directory, "..")
	Expect(err).NotTo(HaveOccurred())
	for file, data := range secret.Data {
		Expect(os.WriteFile(filepath.Join(content, file), data, 0o600)).To(Succeed())
	}
	before, err := os.Readlink(filepath.Join(directory, link))
	Expect(err).To(Or(Not(HaveOccurred()), MatchError(os.ErrNotExist)))
	Expect(os.Symlink(filepath.Base(content), filepath.Join(directory, newLink))).To(Succeed())
	Expect(os.Rename(filepath.Join(directory, newLink), filepath.Join(directory, link))).To(Succeed())
	if before != "" {
		Expect(os.RemoveAll(filepath.Join(directory, before))).To(Succeed())
		return
	}
	for file := range secret.Data {
		Expect(os.Symlink(filepath.Join(link, file), filepath.Join(directory, file))).To(Succeed())
	}
}

// containerize rewrites a configuration file for a process without a container
// and returns its path.
func (p *pod) containerize(file string) string {
	GinkgoHelper()
	raw, err := os.ReadFile(filepath.Join(p.root, file))
	Expect(err).NotTo(HaveOccurred())
	config, err := configv1alpha1.DecodeCacheConfiguration(raw)
	Expect(err).NotTo(HaveOccurred())

	paths := []*string{&config.Storage.RootDirectory}
	if config.CredentialsDir != "" {
		paths = append(paths, &config.CredentialsDir)
	}
	if tls := config.Server.TLS; tls != nil {
		paths = append(paths, &tls.CertFile, &tls.KeyFile)
	}
	// Loopback addresses are not a pod's own here.
	config.Debug.InventoryPort = nil
	// There is no kube-proxy that has to learn of its end.
	config.Server.ShutdownDelay.Duration = 0
	if report := config.Report; report != nil {
		paths = append(paths, &report.CredentialsDir)
		// A kubelet names it in the environment.
		report.Server = "https://" + strings.TrimPrefix(environment.Shoot.Host, "https://")
	}
	for _, path := range paths {
		*path = filepath.Join(p.root, *path)
	}
	for _, address := range []*string{&config.Server.Address, &config.Debug.Address} {
		host, port, err := net.SplitHostPort(*address)
		Expect(err).NotTo(HaveOccurred())
		Expect(host).To(BeEmpty(), "a pod listens on all its addresses")
		*address = net.JoinHostPort(p.address, port)
	}

	raw, err = configv1alpha1.EncodeCacheConfiguration(config)
	Expect(err).NotTo(HaveOccurred())
	containerized := filepath.Join(p.root, "config.yaml")
	Expect(os.WriteFile(containerized, raw, 0o600)).To(Succeed())
	return containerized
}

// awaitStored waits until the cache has stored what it fetched, which may be
// after its clients have all of it.
func (p *pod) awaitStored() {
	GinkgoHelper()
	spool := filepath.Join(p.root, "var/lib/registry/registry-cache/spool")
	Expect(spool).To(BeADirectory(), "blobs in flight are not where they were")
	Eventually(func() ([]string, error) { return filepath.Glob(spool + "/*") }).Should(BeEmpty())
}
