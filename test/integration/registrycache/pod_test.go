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
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"github.com/onsi/gomega/gexec"
	appsv1 "k8s.io/api/apps/v1"
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
}

// startPod starts the pod that the StatefulSet controller made for a cache, and
// waits until it is ready by its own probe.
func startPod(ctx context.Context, name string) *pod {
	GinkgoHelper()
	p := &pod{object: &corev1.Pod{}, root: GinkgoT().TempDir(), address: clusterIP(ctx, name)}
	eventuallyInShoot(ctx, &appsv1.StatefulSet{}, name)
	eventuallyInShoot(ctx, p.object, name+"-0")
	Expect(p.object.Spec.Containers).To(HaveLen(1))
	p.mountVolumes(ctx)
	p.start()
	return p
}

func (p *pod) start() {
	GinkgoHelper()
	container := p.object.Spec.Containers[0]
	args := make([]string, 0, len(container.Args))
	for _, arg := range container.Args {
		flag, file, found := strings.Cut(arg, "=")
		Expect(found).To(BeTrue(), arg)
		args = append(args, flag+"="+p.containerize(file))
	}
	cmd := exec.Command(cacheBinary, args...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH")}
	for _, variable := range container.Env {
		cmd.Env = append(cmd.Env, variable.Name+"="+variable.Value)
	}
	var err error
	p.session, err = gexec.Start(cmd, GinkgoWriter, GinkgoWriter)
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(p.stop)

	probe := container.ReadinessProbe.HTTPGet
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
				secret := &corev1.Secret{}
				key := client.ObjectKey{Namespace: metav1.NamespaceSystem, Name: volume.Secret.SecretName}
				Expect(shoot.Get(ctx, key, secret)).To(Succeed())
				for name, content := range secret.Data {
					Expect(os.WriteFile(filepath.Join(directory, name), content, 0o600)).To(Succeed())
				}
			default:
				Fail("unexpected kind of volume " + volume.Name)
			}
		}
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
