// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/gardener/gardener/pkg/client/kubernetes"
	"golang.org/x/sync/errgroup"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/gardener/gardener-extension-registry-cache/test/gardener"
	"github.com/gardener/gardener-extension-registry-cache/test/process"
	"github.com/gardener/gardener-extension-registry-cache/test/sandbox"
)

// readyTimeout bounds what a busy machine takes until a node is ready.
const readyTimeout = 2 * time.Minute

// Options says how to run a cluster.
type Options struct {
	// Progress is told of each step as it is done. Nil, nobody is told.
	Progress func(step string)
	// OwnSeed makes the cluster its own Seed, as a managed or self-hosted one is: one
	// API server is that of both, and what is deployed to the Seed runs on the node.
	OwnSeed bool
}

// Cluster is a running cluster.
type Cluster struct {
	// Seed and Shoot are the API servers. Garden is that of a garden, once
	// StartGarden has started one.
	Seed, Shoot, Garden *APIServer
	// Node is the Shoot's only node.
	Node *Node
	// Internet is where registries are.
	Internet *Internet
	// Dir is a folder for files, also of the caller; Logs is that of the processes'
	// logs.
	Dir, Logs string

	binaries binaries
	progress func(string)
}

// Run is sandbox.Run for programs that start a cluster.
func Run(inside func(*sandbox.Sandbox) int, unsupported func(error) int) int {
	if os.Getenv(nodeVariable) != "" {
		// Becomes the node's systemd, and returns only if it could not.
		fmt.Fprintln(os.Stderr, "start node:", becomeNode())
		return 1
	}
	return sandbox.Run(inside, unsupported)
}

// Start runs a cluster and returns when its node is ready. It has to be called in
// a sandbox. ctx bounds the start only.
func Start(ctx context.Context, box *sandbox.Sandbox, options Options) (*Cluster, error) {
	c := &Cluster{Dir: filepath.Join(box.Dir, "files"), Logs: filepath.Join(box.Dir, "logs"), progress: options.Progress}
	if c.progress == nil {
		c.progress = func(string) {}
	}
	for _, dir := range []string{c.Dir, c.Logs} {
		if err := os.MkdirAll(dir, 0o750); err != nil {
			return nil, fmt.Errorf("create folder of the cluster: %w", err)
		}
	}
	var err error
	if c.binaries, err = findBinaries(); err != nil {
		return nil, err
	}
	if err := createNetwork(ctx); err != nil {
		return nil, err
	}
	if c.Internet, err = newInternet(ctx); err != nil {
		return nil, err
	}
	if err := c.startControlPlanes(ctx, options.OwnSeed); err != nil {
		return nil, err
	}
	if err := c.startNode(ctx, box); err != nil {
		return nil, err
	}
	return c, nil
}

// RecentLogs returns the end of the log of each process, and of the node's.
func (c *Cluster) RecentLogs(ctx context.Context) string {
	logs, err := filepath.Glob(filepath.Join(c.Logs, "*.log"))
	if err != nil {
		return err.Error()
	}
	var all strings.Builder
	for _, log := range logs {
		fmt.Fprintf(&all, "%s\n%s\n", filepath.Base(log), process.Tail(log))
	}
	return all.String() + c.Node.RecentLogs(ctx)
}

// startControlPlanes starts all that is not on the node.
func (c *Cluster) startControlPlanes(ctx context.Context, ownSeed bool) error {
	if err := c.startEtcd(ctx); err != nil {
		return err
	}
	c.progress("etcd is ready")
	servers := []*APIServer{newAPIServer("shoot", 6444, shootServices, "shoot")}
	if ownSeed {
		servers[0].crds = append(servers[0].crds, "seed")
	} else {
		servers = append(servers, newAPIServer("seed", 6443, "10.97.0.0/16", "seed"))
	}
	c.Shoot, c.Seed = servers[0], servers[len(servers)-1]
	group, groupCtx := errgroup.WithContext(ctx)
	for _, server := range servers {
		group.Go(func() error { return c.startAPIServer(groupCtx, server) })
	}
	if err := group.Wait(); err != nil {
		return err
	}
	c.progress("API servers of Seed and Shoot are ready, with the CRDs of Gardener")

	group, groupCtx = errgroup.WithContext(ctx)
	for _, start := range []func(context.Context) error{c.startControllerManager, c.startScheduler, c.startResourceManager} {
		group.Go(func() error { return start(groupCtx) })
	}
	if err := group.Wait(); err != nil {
		return err
	}
	c.progress("kube-controller-manager, kube-scheduler and gardener-resource-manager are ready")
	return nil
}

func (c *Cluster) startEtcd(ctx context.Context) error {
	return c.startProcess(ctx, process.Options{
		Name:     "etcd",
		ReadyURL: "http://127.0.0.1:2379/health",
		Args: []string{
			"--data-dir=" + filepath.Join(c.Dir, "etcd"),
			// Its data does not survive the machine anyway.
			"--unsafe-no-fsync",
			"--listen-client-urls=" + etcdURL, "--advertise-client-urls=" + etcdURL,
			"--listen-peer-urls=http://127.0.0.1:2380",
		},
	})
}

func (c *Cluster) startControllerManager(ctx context.Context) error {
	return c.startComponent(ctx, "kube-controller-manager", 10257,
		"--service-account-private-key-file="+c.Shoot.serviceAccountKeyFile, "--root-ca-file="+c.Shoot.caFile,
		"--use-service-account-credentials=true",
		"--allocate-node-cidrs=false",
		"--pvclaimbinder-sync-period=1s",
	)
}

func (c *Cluster) startScheduler(ctx context.Context) error {
	return c.startComponent(ctx, "kube-scheduler", 10259)
}

// startComponent starts one of the components that work on the Shoot.
func (c *Cluster) startComponent(ctx context.Context, name string, port int, arguments ...string) error {
	kubeconfig := c.Shoot.KubeconfigFile
	return c.startProcess(ctx, process.Options{
		Name:     name,
		ReadyURL: fmt.Sprintf("https://127.0.0.1:%d/healthz", port),
		Args: append(arguments,
			"--kubeconfig="+kubeconfig, "--authentication-kubeconfig="+kubeconfig, "--authorization-kubeconfig="+kubeconfig,
			"--bind-address=127.0.0.1", fmt.Sprintf("--secure-port=%d", port), "--cert-dir="+filepath.Join(c.Dir, name),
			"--leader-elect=false",
		),
	})
}

func (c *Cluster) startResourceManager(ctx context.Context) error {
	manager, err := gardener.NewResourceManager(c.binaries["gardener-resource-manager"], c.Dir, c.Logs, c.Seed.Kubeconfig, c.Shoot.Kubeconfig)
	if err != nil {
		return err
	}
	if err := manager.Start(ctx); err != nil {
		return err
	}
	shoot, err := client.New(c.Shoot.Config, client.Options{Scheme: kubernetes.ShootScheme})
	if err != nil {
		return fmt.Errorf("create client of the Shoot: %w", err)
	}
	return manager.ConfigureHighAvailability(ctx, shoot)
}

// startProcess starts one of the binaries outside of the node: that of the
// process' name, unless the options say another.
func (c *Cluster) startProcess(ctx context.Context, options process.Options) error {
	options.LogDir = c.Logs
	if options.Binary == "" {
		options.Binary = c.binaries[options.Name]
	}
	p, err := process.New(options)
	if err != nil {
		return err
	}
	return p.Start(ctx)
}

func (c *Cluster) startNode(ctx context.Context, box *sandbox.Sandbox) error {
	node, err := c.newNode(ctx, box)
	if err != nil {
		return err
	}
	c.Node = node
	if err := node.boot(ctx); err != nil {
		return err
	}
	c.progress("the node's systemd runs: containerd, kubelet, kube-proxy, gardener-node-agent")
	before := time.Now()
	if err := node.AwaitReady(ctx); err != nil {
		return err
	}
	c.progress(fmt.Sprintf("the node is Ready, %.1f s after it booted", time.Since(before).Seconds()))

	shoot, err := client.New(c.Shoot.Config, client.Options{Scheme: kubernetes.ShootScheme})
	if err != nil {
		return fmt.Errorf("create client of the Shoot: %w", err)
	}
	return c.startProvisioner(ctx, shoot)
}
