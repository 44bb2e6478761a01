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

	gardencorev1beta1 "github.com/gardener/gardener/pkg/apis/core/v1beta1"
	"github.com/gardener/gardener/pkg/client/kubernetes"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	"github.com/gardener/gardener-extension-registry-cache/test/gardener"
)

// Seed is a further Seed, to which the control plane of the Environment's Shoot
// can be migrated.
type Seed struct {
	// Config is the configuration of an administrator of its API server, and
	// Kubeconfig the same as a kubeconfig file.
	Config     *rest.Config
	Kubeconfig []byte

	client          client.Client
	shootKubeconfig []byte
	plane           *plane
	resources       *gardener.ResourceManager
}

// StartSeed runs a further Seed with a gardener-resource-manager between it and the
// Shoot, and returns when both are ready. The name is for folders and errors, and
// is given once. The Seed has to be stopped before the Environment is.
func (e *Environment) StartSeed(ctx context.Context, name string) (_ *Seed, err error) {
	logs := filepath.Join(e.logs, name)
	if err := os.MkdirAll(logs, 0o750); err != nil {
		return nil, fmt.Errorf("create log folder of Seed %s: %w", name, err)
	}
	s := &Seed{plane: newPlane(name, "seed", e.dir, logs, e.guard), shootKubeconfig: e.ShootKubeconfig}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Stop())
		}
	}()

	if err := s.plane.start(ctx); err != nil {
		return nil, err
	}
	s.Config, s.Kubeconfig = s.plane.env.Config, s.plane.env.KubeConfig
	if s.client, err = client.New(s.Config, client.Options{Scheme: kubernetes.SeedScheme}); err != nil {
		return nil, fmt.Errorf("create client of Seed %s: %w", name, err)
	}
	binary, err := e.guard.binary("gardener-resource-manager")
	if err != nil {
		return nil, err
	}
	if s.resources, err = gardener.NewResourceManager(binary, s.plane.dir, logs, s.Kubeconfig, e.ShootKubeconfig); err != nil {
		return nil, err
	}
	return s, s.resources.Start(ctx)
}

// NewShootNamespace creates in this Seed what Environment.NewShootNamespace creates
// in the first one.
func (s *Seed) NewShootNamespace(ctx context.Context, shoot *gardencorev1beta1.Shoot) (string, error) {
	return newShootNamespace(ctx, s.client, s.shootKubeconfig, shoot)
}

// AddUser returns the kubeconfig of a user of this Seed, who may do what RBAC says.
func (s *Seed) AddUser(user envtest.User) ([]byte, error) {
	return s.plane.addUser(user)
}

// Stop ends what StartSeed started. It is to be called once.
func (s *Seed) Stop() error {
	var err error
	if s.resources != nil {
		err = s.resources.Stop()
	}
	return errors.Join(err, s.plane.stop())
}
