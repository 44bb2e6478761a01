// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package node_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"github.com/pelletier/go-toml/v2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/gardener/gardener-extension-registry-cache/test/process"
)

const (
	// Versions of containerd's configuration file.
	configVersion2x = 3
	configVersion17 = 2
	// progressTimeout is for how long containerd waits for the next byte. Its
	// default of 5 minutes is too long for a test.
	progressTimeout = 5 * time.Second
)

// imagesPlugin is the part of CRI that pulls, by the version of the configuration.
var imagesPlugin = map[int]string{
	configVersion2x: "io.containerd.cri.v1.images",
	configVersion17: "io.containerd.grpc.v1.cri",
}

// containerd is a daemon that runs no containers. It has its own folders, and
// shares certsDir with others.
type containerd struct {
	// version is what the daemon says.
	version string

	name, binary, dir, metrics string
	configVersion              int
	process                    *process.Process
	images                     runtimeapi.ImageServiceClient
}

// startContainerd runs a daemon until the suite ends.
func startContainerd(ctx context.Context, name string, configVersion int) *containerd {
	GinkgoHelper()
	binary, err := process.FindBinary(name)
	Expect(err).NotTo(HaveOccurred())
	output, err := exec.CommandContext(ctx, binary, "--version").Output()
	Expect(err).NotTo(HaveOccurred())
	words := strings.Fields(string(output))
	Expect(len(words)).To(BeNumerically(">", 2), string(output))
	version, _, _ := strings.Cut(words[2], "+")

	ports, err := process.FreePorts(1)
	Expect(err).NotTo(HaveOccurred())
	c := &containerd{
		version: version, name: name, binary: binary, dir: folder(name), configVersion: configVersion,
		metrics: fmt.Sprintf("127.0.0.1:%d", ports[0]),
	}
	config, err := toml.Marshal(c.config())
	Expect(err).NotTo(HaveOccurred())
	Expect(os.WriteFile(c.path("config.toml"), config, 0o600)).To(Succeed())

	conn, err := grpc.NewClient("unix://"+c.path("containerd.sock"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(conn.Close)
	c.images = runtimeapi.NewImageServiceClient(conn)
	c.start(ctx)
	DeferCleanup(func() error { return c.process.Stop() })
	return c
}

func (c *containerd) path(name string) string { return filepath.Join(c.dir, name) }

// config has the pulls as nodes have them; all else keeps out of the way.
func (c *containerd) config() map[string]any {
	return map[string]any{
		"version": c.configVersion,
		"root":    c.path("root"),
		"state":   c.path("state"),
		"grpc":    map[string]any{"address": c.path("containerd.sock")},
		"metrics": map[string]any{"address": c.metrics},
		"plugins": map[string]any{
			imagesPlugin[c.configVersion]: map[string]any{
				"image_pull_progress_timeout": progressTimeout.String(),
				"registry":                    map[string]any{"config_path": certsDir},
			},
			"io.containerd.internal.v1.opt": map[string]any{"path": c.path("opt")},
			"io.containerd.nri.v1.nri":      map[string]any{"disable": true},
		},
	}
}

func (c *containerd) start(ctx context.Context) {
	GinkgoHelper()
	var err error
	c.process, err = process.New(process.Options{
		Name: c.name, Binary: c.binary, Args: []string{"--config", c.path("config.toml")},
		LogDir: logDir(), ReadyURL: "http://" + c.metrics + "/v1/metrics",
	})
	Expect(err).NotTo(HaveOccurred())
	Expect(c.process.Start(ctx)).To(Succeed())
	Eventually(func() error {
		_, err := c.images.ListImages(ctx, &runtimeapi.ListImagesRequest{})
		return err
	}, "20s").Should(Succeed())
}

// restart is what a new configuration, or an update, does.
func (c *containerd) restart(ctx context.Context) {
	GinkgoHelper()
	Expect(c.process.Stop()).To(Succeed())
	c.start(ctx)
}

// pull pulls an image as the kubelet does, and returns how long that took and the
// id of the image.
func (c *containerd) pull(ctx context.Context, reference string) (time.Duration, string, error) {
	started := time.Now()
	response, err := c.images.PullImage(ctx, &runtimeapi.PullImageRequest{Image: &runtimeapi.ImageSpec{Image: reference}})
	return time.Since(started), response.GetImageRef(), err
}

// forget removes all images with their content, so that the next pull really
// pulls. It takes more than one attempt if the daemon learns of a pull after a
// removal, for it then adds a name of the image.
func (c *containerd) forget(ctx context.Context) {
	GinkgoHelper()
	if len(c.list(ctx)) == 0 {
		return
	}
	Eventually(func(g Gomega) {
		for _, listed := range c.list(ctx) {
			_, err := c.images.RemoveImage(ctx, &runtimeapi.RemoveImageRequest{Image: &runtimeapi.ImageSpec{Image: listed.Id}})
			g.Expect(err).NotTo(HaveOccurred())
		}
		blobs, err := filepath.Glob(c.path("root/io.containerd.content.v1.content/blobs/sha256/*"))
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(blobs).To(BeEmpty())
	}, "20s").Should(Succeed())
}

func (c *containerd) list(ctx context.Context) []*runtimeapi.Image {
	GinkgoHelper()
	response, err := c.images.ListImages(ctx, &runtimeapi.ListImagesRequest{})
	Expect(err).NotTo(HaveOccurred())
	return response.Images
}
