// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

// Package landscape is a Shoot with registry caches on a real cluster: our
// controller with its webhook on the Seed, the images of the caches in a
// registry, and what gardenlet does for a Shoot. Demo and end-to-end tests are
// made of its steps.
//
// What the cluster runs on is in package cluster; what a step is to show belongs
// in the demo and the tests.
package landscape

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/gardener/gardener/pkg/client/kubernetes"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	podsecurityapi "k8s.io/pod-security-admission/api"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/gardener/gardener-extension-registry-cache/test/cluster"
	"github.com/gardener/gardener-extension-registry-cache/test/gardener"
	"github.com/gardener/gardener-extension-registry-cache/test/process"
	"github.com/gardener/gardener-extension-registry-cache/test/sandbox"
)

const (
	extensionName = "gardener-extension-registry-cache"
	// extensionNamespace is where the extension runs in the Seed.
	extensionNamespace = "extension-registry-cache"

	pollInterval = 100 * time.Millisecond
)

// Options says what to run.
type Options struct {
	cluster.Options
	// Root is the folder of the repository.
	Root string
	// NoController leaves our controller to the caller. Without, it is run as a process
	// beside the Seed's API server.
	NoController bool
}

// Landscape is a running landscape.
type Landscape struct {
	*cluster.Cluster
	// SeedClient and ShootClient are an administrator's.
	SeedClient, ShootClient client.Client

	root       string
	progress   func(string)
	controller *process.Process
	// cgroups are those of the controller, as its container would have.
	cgroups sandbox.Cgroups
}

// Start runs a cluster and, unless told otherwise, our controller on it.
func Start(ctx context.Context, box *sandbox.Sandbox, options Options) (*Landscape, error) {
	l := &Landscape{root: options.Root, progress: options.Progress}
	if l.progress == nil {
		l.progress = func(string) {}
	}
	var err error
	if l.Cluster, err = cluster.Start(ctx, box, options.Options); err != nil {
		return nil, err
	}
	if l.SeedClient, err = client.New(l.Seed.Config, client.Options{Scheme: kubernetes.SeedScheme}); err != nil {
		return nil, fmt.Errorf("create client of the Seed: %w", err)
	}
	if l.ShootClient, err = client.New(l.Shoot.Config, client.Options{Scheme: kubernetes.ShootScheme}); err != nil {
		return nil, fmt.Errorf("create client of the Shoot: %w", err)
	}
	if err := l.publishProductImages(ctx); err != nil {
		return nil, err
	}
	if err := l.restrictPods(ctx); err != nil {
		return nil, err
	}
	if options.NoController {
		return l, nil
	}
	if l.cgroups, err = box.Cgroups.Create("controller"); err != nil {
		return nil, err
	}
	return l, l.startController(ctx)
}

// restrictPods has the API server of the Shoot refuse pods in kube-system that do
// not meet the restricted Pod Security Standard.
func (l *Landscape) restrictPods(ctx context.Context) error {
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: metav1.NamespaceSystem}}
	patch := client.MergeFrom(namespace.DeepCopy())
	metav1.SetMetaDataLabel(&namespace.ObjectMeta, podsecurityapi.EnforceLevelLabel, string(podsecurityapi.LevelRestricted))
	if err := l.ShootClient.Patch(ctx, namespace, patch); err != nil {
		return fmt.Errorf("enforce the Pod Security Standard: %w", err)
	}
	return nil
}

// startController runs our controller and returns when its webhook is registered.
func (l *Landscape) startController(ctx context.Context) error {
	if err := l.SeedClient.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: extensionNamespace}}); err != nil {
		return fmt.Errorf("create namespace of the extension: %w", err)
	}
	binary, err := process.FindBinary(extensionName)
	if err != nil {
		return err
	}
	ports, err := process.FreePorts(2)
	if err != nil {
		return err
	}
	certificates := filepath.Join(l.Dir, "extension-webhook")
	if err := os.MkdirAll(certificates, 0o700); err != nil {
		return fmt.Errorf("create folder of the webhook: %w", err)
	}
	health := net.JoinHostPort("127.0.0.1", strconv.Itoa(ports[1]))
	l.controller, err = process.New(process.Options{
		Name: extensionName, Binary: binary, LogDir: l.Logs, Cgroups: l.cgroups.Dirs(), ReadyURL: "http://" + health + "/readyz",
		Args: gardener.ControllerArguments(l.Seed.KubeconfigFile, extensionNamespace, "127.0.0.1", ports[0], certificates, health),
	})
	if err != nil {
		return err
	}
	if err := l.controller.Start(ctx); err != nil {
		return err
	}
	err = wait.PollUntilContextTimeout(ctx, pollInterval, time.Minute, true, func(ctx context.Context) (bool, error) {
		config := &admissionregistrationv1.MutatingWebhookConfiguration{}
		if err := l.SeedClient.Get(ctx, client.ObjectKey{Name: extensionName}, config); err != nil {
			return false, client.IgnoreNotFound(err)
		}
		return len(config.Webhooks) > 0 && len(config.Webhooks[0].ClientConfig.CABundle) > 0, nil
	})
	if err != nil {
		return fmt.Errorf("wait for the registration of the webhook: %w\n%s", err, process.Tail(filepath.Join(l.Logs, extensionName+".log")))
	}
	l.progress("our controller runs, and its webhook is registered in the Seed")
	return nil
}
