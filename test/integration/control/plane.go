// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package control

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	"github.com/gardener/gardener-extension-registry-cache/test/gardener"
	"github.com/gardener/gardener-extension-registry-cache/test/process"
	"github.com/gardener/gardener-extension-registry-cache/test/rights"
)

// serviceRanges are the networks of the cluster IPs of each kind of cluster. Both
// are loopback networks, so that nothing that a test connects to by accident is
// outside the machine.
var serviceRanges = map[string]string{
	"seed":  "127.97.0.0/16",
	"shoot": "127.96.0.0/16",
}

// plane is one API server with its etcd.
type plane struct {
	name  string
	kind  string
	dir   string
	logs  string
	guard *guard
	env   *envtest.Environment
	audit *rights.Log
	files []*os.File
}

// newPlane returns a plane that is not started yet, of a "seed" or a "shoot".
func newPlane(name, kind, dir, logs string, guard *guard) *plane {
	return &plane{name: name, kind: kind, dir: filepath.Join(dir, name), logs: logs, guard: guard}
}

func (p *plane) start(ctx context.Context) error {
	crds, err := gardener.DefinitionFiles(ctx, p.kind)
	if err != nil {
		return err
	}
	etcd, server := &envtest.Etcd{DataDir: filepath.Join(p.dir, "etcd")}, &envtest.APIServer{CertDir: filepath.Join(p.dir, "certs")}
	server.Configure().Set("service-cluster-ip-range", serviceRanges[p.kind])

	for binary, path := range map[string]*string{"etcd": &etcd.Path, "kube-apiserver": &server.Path} {
		if *path, err = p.guard.binary(binary); err != nil {
			return err
		}
	}
	for _, dir := range []string{etcd.DataDir, server.CertDir} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return fmt.Errorf("create folder of the %s: %w", p.name, err)
		}
	}
	var arguments map[string]string
	if p.audit, arguments, err = rights.NewLog(p.dir); err != nil {
		return err
	}
	for argument, value := range arguments {
		server.Configure().Set(argument, value)
	}
	etcdLog, err := p.log("etcd")
	if err != nil {
		return err
	}
	serverLog, err := p.log("kube-apiserver")
	if err != nil {
		return err
	}
	etcd.Out, etcd.Err, server.Out, server.Err = etcdLog, etcdLog, serverLog, serverLog

	p.env = &envtest.Environment{
		// An empty scheme: envtest looks in it for kinds with conversions.
		Scheme:       runtime.NewScheme(),
		ControlPlane: envtest.ControlPlane{APIServer: server, Etcd: etcd},
		// Of its own accord it waits for 20 s and 10 s, which a busy machine exceeds.
		ControlPlaneStartTimeout: 2 * time.Minute,
		ControlPlaneStopTimeout:  2 * time.Minute,
		CRDInstallOptions:        envtest.CRDInstallOptions{Paths: crds, ErrorIfPathMissing: true, MaxTime: time.Minute},
	}
	if _, err := p.env.Start(); err != nil {
		return fmt.Errorf("start control plane of the %s: %w\n%s", p.name, err, process.Tail(serverLog.Name()))
	}
	return nil
}

// addUser returns the kubeconfig of a user who may do what RBAC says.
func (p *plane) addUser(user envtest.User) ([]byte, error) {
	added, err := p.env.AddUser(user, nil)
	if err != nil {
		return nil, fmt.Errorf("add user %s to the %s: %w", user.Name, p.name, err)
	}
	kubeconfig, err := added.KubeConfig()
	if err != nil {
		return nil, fmt.Errorf("write kubeconfig of user %s of the %s: %w", user.Name, p.name, err)
	}
	return kubeconfig, nil
}

func (p *plane) stop() error {
	defer func() {
		for _, file := range p.files {
			_ = file.Close()
		}
	}()
	if p.env == nil {
		return nil
	}
	if err := p.env.Stop(); err != nil {
		return fmt.Errorf("stop control plane of the %s: %w", p.name, err)
	}
	return nil
}

func (p *plane) log(name string) (*os.File, error) {
	file, err := process.CreateLog(p.logs, p.name+"-"+name)
	if err == nil {
		p.files = append(p.files, file)
	}
	return file, err
}
