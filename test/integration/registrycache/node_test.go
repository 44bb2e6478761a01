// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package registrycache_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	dockerconfig "github.com/containerd/containerd/v2/core/remotes/docker/config"
	"github.com/containerd/containerd/v2/plugins/content/local"
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"github.com/onsi/gomega/gexec"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	extensionsv1alpha1 "github.com/gardener/gardener/pkg/apis/extensions/v1alpha1"

	"github.com/gardener/gardener-extension-registry-cache/pkg/hosts"
)

// node is what of a node takes part in a pull: the files of its
// OperatingSystemConfig, the script of the unit, and the very code by which
// containerd resolves and fetches.
type node struct {
	root   string
	script *gexec.Session
}

// newNode returns a node with the files of an OperatingSystemConfig.
func newNode(osc *extensionsv1alpha1.OperatingSystemConfig) *node {
	GinkgoHelper()
	n := &node{root: GinkgoT().TempDir()}
	for path, data := range filesOf(osc) {
		target := filepath.Join(n.root, path)
		Expect(os.MkdirAll(filepath.Dir(target), 0o750)).To(Succeed())
		// Paths in the fragments are absolute, and this node's root is not /.
		if strings.HasSuffix(path, ".toml") {
			data = strings.ReplaceAll(data, hosts.Directory, filepath.Join(n.root, hosts.Directory))
		}
		Expect(os.WriteFile(target, []byte(data), 0o600)).To(Succeed())
	}
	return n
}

// start runs the script as the unit does.
func (n *node) start(osc *extensionsv1alpha1.OperatingSystemConfig) {
	GinkgoHelper()
	unit := osc.Spec.Units[len(osc.Spec.Units)-1]
	Expect(unit.Name).To(Equal(hosts.UnitName))
	script := hosts.Directory + "/registry-hosts.sh"
	Expect(*unit.Content).To(ContainSubstring("\nExecStart=/bin/sh " + script + "\n"))

	cmd := exec.Command("sh", filepath.Join(n.root, script))
	cmd.Env = append(os.Environ(),
		"REGISTRY_HOSTS_DIR="+filepath.Join(n.root, hosts.Directory),
		"CERTS_DIR="+n.certs(),
		"REGISTRY_HOSTS_INTERVAL=1", "REGISTRY_HOSTS_RETRY_INTERVAL=0.2",
	)
	var err error
	n.script, err = gexec.Start(cmd, GinkgoWriter, GinkgoWriter)
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(n.stop)
}

func (n *node) stop() {
	n.script.Terminate().Wait(10 * time.Second)
}

// certs is where containerd looks for hosts.toml files.
func (n *node) certs() string {
	return filepath.Join(n.root, "etc/containerd/certs.d")
}

// hostsTOML is the path of an upstream's hosts.toml, which may not exist.
func (n *node) hostsTOML(upstreamHost string) string {
	return filepath.Join(n.certs(), upstreamHost, "hosts.toml")
}

// pull pulls an image with all its platforms into an empty content store, as
// containerd does, which verifies every digest. It returns what was pulled.
func (n *node) pull(ctx context.Context, reference string) (pulled, error) {
	directory, err := os.MkdirTemp(n.root, "content-")
	if err != nil {
		return pulled{}, err
	}
	store, err := local.NewStore(directory)
	if err != nil {
		return pulled{}, err
	}
	resolver := docker.NewResolver(docker.ResolverOptions{
		Hosts: dockerconfig.ConfigureHosts(ctx, dockerconfig.HostOptions{HostDir: dockerconfig.HostDirFromRoot(n.certs())}),
	})
	before := time.Now()
	name, descriptor, err := resolver.Resolve(ctx, reference)
	if err != nil {
		return pulled{}, err
	}
	fetcher, err := resolver.Fetcher(ctx, name)
	if err != nil {
		return pulled{}, err
	}
	handler := images.Handlers(remotes.FetchHandler(store, fetcher), images.ChildrenHandler(store))
	if err := images.Dispatch(ctx, handler, nil, descriptor); err != nil {
		return pulled{}, err
	}
	result := pulled{root: descriptor, took: time.Since(before)}
	err = store.Walk(ctx, func(info content.Info) error {
		result.contents++
		result.bytes += info.Size
		return nil
	})
	return result, err
}

// pulled is the result of a pull.
type pulled struct {
	root ocispec.Descriptor
	// contents is the number of manifests, configs and layers.
	contents int
	// bytes is the size of all of them.
	bytes int64
	took  time.Duration
}
