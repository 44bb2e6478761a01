// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package control

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	resourcemanagerconfigv1alpha1 "github.com/gardener/gardener/pkg/apis/config/resourcemanager/v1alpha1"
	"github.com/gardener/gardener/pkg/client/kubernetes"
	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	"github.com/gardener/gardener-extension-registry-cache/test/gardener"
	"github.com/gardener/gardener-extension-registry-cache/test/process"
	"github.com/gardener/gardener-extension-registry-cache/test/rights"
)

// Options says how to run the control planes. The zero value serves.
type Options struct {
	// LogDir is the folder, created if it is missing, that gets one log file
	// for each process. When it is empty the logs lie with the data of the
	// control planes and are removed with it.
	LogDir string
	// TuneResourceManager changes the configuration of gardener-resource-manager,
	// which is that of a single Shoot. Nil: nothing is changed.
	TuneResourceManager func(*resourcemanagerconfigv1alpha1.ResourceManagerConfiguration)
	// WithoutControllerManager leaves out kube-controller-manager: StatefulSets have no
	// pods then.
	WithoutControllerManager bool
}

// Environment is a running pair of control planes.
type Environment struct {
	// Seed and Shoot are configurations of an administrator of each API server.
	Seed, Shoot *rest.Config
	// SeedKubeconfig and ShootKubeconfig are the same as kubeconfig files.
	SeedKubeconfig, ShootKubeconfig []byte
	// SeedAudit is what ServiceAccounts have asked the Seed's API server for.
	SeedAudit *rights.Log
	// ShootProxy is between gardener-resource-manager and the Shoot's API server,
	// so that a test can give that faults. Others go by it if they are given its
	// kubeconfig.
	ShootProxy *Proxy

	seedClient client.Client
	seed       *plane
	// dir and logs are the folders of what is started, guard ends it.
	dir, logs string
	guard     *guard
	// stops ends what was started, in order.
	stops []func() error
	once  sync.Once
	err   error
}

// Start runs both control planes, gardener-resource-manager and
// kube-controller-manager and returns when all of them are ready. The binaries
// are looked up as envtest does: in TEST_ASSET_KUBE_APISERVER,
// TEST_ASSET_ETCD and so on, or in the folder KUBEBUILDER_ASSETS.
//
// ctx bounds the start only. After an error nothing is left running. All
// processes also end when the calling process dies without calling Stop,
// whatever it dies of.
func Start(ctx context.Context, options Options) (_ *Environment, err error) {
	e := &Environment{}
	defer func() {
		if err != nil {
			err = errors.Join(err, e.Stop())
		}
	}()

	dir, err := e.temporaryDir()
	if err != nil {
		return nil, err
	}
	logs := options.LogDir
	if logs == "" {
		logs = filepath.Join(dir, "logs")
	}
	if err := os.MkdirAll(logs, 0o750); err != nil {
		return nil, fmt.Errorf("create log folder: %w", err)
	}

	guard, err := startGuard(dir)
	if err != nil {
		return nil, err
	}
	e.stops = append([]func() error{guard.dismiss}, e.stops...)
	e.dir, e.logs, e.guard = dir, logs, guard

	seed, shoot := newPlane("seed", "seed", dir, logs, guard), newPlane("shoot", "shoot", dir, logs, guard)
	e.stops = append([]func() error{func() error { return stopPlanes(seed, shoot) }}, e.stops...)
	if err := startPlanes(ctx, seed, shoot); err != nil {
		return nil, err
	}
	e.Seed, e.SeedKubeconfig, e.SeedAudit, e.seed = seed.env.Config, seed.env.KubeConfig, seed.audit, seed
	e.Shoot, e.ShootKubeconfig = shoot.env.Config, shoot.env.KubeConfig
	if e.seedClient, err = client.New(e.Seed, client.Options{Scheme: kubernetes.SeedScheme}); err != nil {
		return nil, fmt.Errorf("create client of the Seed: %w", err)
	}

	if e.ShootProxy, err = StartProxy(e.Shoot); err != nil {
		return nil, err
	}
	e.stops = append([]func() error{e.ShootProxy.Stop}, e.stops...)
	if err := e.startManagers(ctx, options); err != nil {
		return nil, err
	}
	return e, nil
}

// AddSeedUser returns the kubeconfig of a user of the Seed, who may do what RBAC
// says.
func (e *Environment) AddSeedUser(user envtest.User) ([]byte, error) {
	return e.seed.addUser(user)
}

// Stop ends every process that Start started, waits for its end, and removes
// the data of the control planes. It may be called several times and from
// several goroutines; all calls return the first one's result.
func (e *Environment) Stop() error {
	e.once.Do(func() {
		var errs []error
		for _, stop := range e.stops {
			errs = append(errs, stop())
		}
		e.err = errors.Join(errs...)
	})
	return e.err
}

// startManagers starts what works on the objects of the API servers.
func (e *Environment) startManagers(ctx context.Context, options Options) error {
	binary, err := e.guard.binary("gardener-resource-manager")
	if err != nil {
		return err
	}
	var tune []func(*resourcemanagerconfigv1alpha1.ResourceManagerConfiguration)
	if options.TuneResourceManager != nil {
		tune = append(tune, options.TuneResourceManager)
	}
	resources, err := gardener.NewResourceManager(binary, e.dir, e.logs, e.SeedKubeconfig, e.ShootProxy.Kubeconfig, tune...)
	if err != nil {
		return err
	}
	managers := []*process.Process{resources.Process}
	e.stops = append([]func() error{resources.Stop}, e.stops...)
	if !options.WithoutControllerManager {
		controllers, err := newControllerManager(e.dir, e.logs, e.guard, e.ShootKubeconfig)
		if err != nil {
			return err
		}
		managers = append(managers, controllers)
		e.stops = append([]func() error{controllers.Stop}, e.stops...)
	}
	group, groupCtx := errgroup.WithContext(ctx)
	for _, manager := range managers {
		group.Go(func() error { return manager.Start(groupCtx) })
	}
	if err := group.Wait(); err != nil {
		return err
	}
	shoot, err := client.New(e.Shoot, client.Options{Scheme: kubernetes.ShootScheme})
	if err != nil {
		return fmt.Errorf("create client of the Shoot: %w", err)
	}
	return resources.ConfigureHighAvailability(ctx, shoot)
}

func (e *Environment) temporaryDir() (string, error) {
	dir, err := os.MkdirTemp("", "control-")
	if err != nil {
		return "", fmt.Errorf("create folder for control planes: %w", err)
	}
	e.stops = []func() error{func() error { return os.RemoveAll(dir) }}
	return dir, nil
}

func startPlanes(ctx context.Context, planes ...*plane) error {
	group, ctx := errgroup.WithContext(ctx)
	for _, p := range planes {
		group.Go(func() error { return p.start(ctx) })
	}
	return group.Wait()
}

func stopPlanes(planes ...*plane) error {
	var group errgroup.Group
	for _, p := range planes {
		group.Go(p.stop)
	}
	return group.Wait()
}
