// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/gardener/gardener/pkg/client/kubernetes"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/gardener/gardener-extension-registry-cache/test/process"
	"github.com/gardener/gardener-extension-registry-cache/test/sandbox"
)

const (
	// NodeName is the name of the node, in the Shoot and as a host.
	NodeName = "node1"

	// OperatingSystemConfigSecret is the Secret in the Shoot's kube-system in which
	// gardener-node-agent looks for the node's OperatingSystemConfig.
	OperatingSystemConfigSecret = "gardener-node-agent-pool"

	// nodePath is where commands are looked up on the node.
	nodePath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/opt/bin"

	shutdownTimeout = time.Minute
)

// Node is a running node.
type Node struct {
	dir     string
	box     *sandbox.Sandbox
	client  client.Client
	log     *os.File
	init    *exec.Cmd
	ended   chan struct{}
	booting time.Time
}

// newNode prepares a node's root folder.
func (c *Cluster) newNode(ctx context.Context, box *sandbox.Sandbox) (*Node, error) {
	n := &Node{dir: filepath.Join(box.Dir, "node"), box: box}
	var err error
	if n.client, err = client.New(c.Shoot.Config, client.Options{Scheme: kubernetes.ShootScheme}); err != nil {
		return nil, fmt.Errorf("create client of the Shoot: %w", err)
	}
	if n.log, err = process.CreateLog(c.Logs, "node-systemd"); err != nil {
		return nil, err
	}
	if err := n.mountRoot(c.binaries); err != nil {
		return nil, fmt.Errorf("prepare the node's root folder: %w", err)
	}
	contents, err := c.nodeFiles(ctx)
	if err != nil {
		return nil, err
	}
	if err := n.installFiles(contents); err != nil {
		return nil, fmt.Errorf("prepare the node's root folder: %w", err)
	}
	return n, nil
}

// boot starts the node's systemd.
func (n *Node) boot(ctx context.Context) error {
	n.booting = time.Now()
	cgroups, err := n.box.Cgroups.Create("node")
	if err != nil {
		return err
	}
	config, err := json.Marshal(nodeConfig{Root: n.root(), Cgroups: cgroups})
	if err != nil {
		return fmt.Errorf("marshal configuration of the node: %w", err)
	}
	program, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find own program: %w", err)
	}
	n.init = exec.Command(program) //nolint:gosec // the running program
	n.init.Env = append(os.Environ(), nodeVariable+"="+string(config))
	n.init.Stdout, n.init.Stderr = n.log, n.log
	n.init.SysProcAttr = &syscall.SysProcAttr{Cloneflags: sandbox.Namespaces, Setsid: true}
	proceed, err := n.init.StdinPipe()
	if err != nil {
		return fmt.Errorf("create pipe to the node: %w", err)
	}
	if err := n.init.Start(); err != nil {
		return fmt.Errorf("start the node: %w", err)
	}
	n.ended = make(chan struct{})
	go func(cmd *exec.Cmd, ended chan struct{}) {
		defer close(ended)
		_ = cmd.Wait()
	}(n.init, n.ended)

	if err := connectNode(ctx, n.init.Process.Pid); err != nil {
		return err
	}
	if err := proceed.Close(); err != nil {
		return fmt.Errorf("let the node go on: %w", err)
	}
	return nil
}

// Shutdown has the node's systemd stop all units and end. Like that of any node it
// takes the pods with it; what is on the disks stays for the next boot.
func (n *Node) Shutdown(ctx context.Context) error {
	// An error counts only if the node stays up: systemd may end before it could tell
	// systemctl of success.
	_, asked := n.Run(ctx, "systemctl", "poweroff")
	select {
	case <-n.ended:
		return nil
	case <-time.After(shutdownTimeout):
		return errors.Join(fmt.Errorf("the node did not go down within %s", shutdownTimeout), asked)
	case <-ctx.Done():
		return fmt.Errorf("shut down the node: %w", ctx.Err())
	}
}

// Boot boots a node that was shut down, and returns when it is Ready.
func (n *Node) Boot(ctx context.Context) error {
	if err := n.boot(ctx); err != nil {
		return err
	}
	return n.AwaitReady(ctx)
}

// AwaitReady returns when the kubelet of the last boot says that the node is
// Ready. After a failure the error has what the node's services logged last.
func (n *Node) AwaitReady(ctx context.Context) error {
	waiting, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	for tick := time.NewTicker(100 * time.Millisecond); ; {
		if n.isReady(waiting) {
			tick.Stop()
			return nil
		}
		select {
		case <-tick.C:
			continue
		case <-n.ended:
		case <-waiting.Done():
		}
		tick.Stop()
		return errors.Join(errors.New("the node did not become Ready"), waiting.Err(), errors.New(n.RecentLogs(context.WithoutCancel(ctx))))
	}
}

func (n *Node) isReady(ctx context.Context) bool {
	node := &corev1.Node{}
	if n.client.Get(ctx, client.ObjectKey{Name: NodeName}, node) != nil {
		return false
	}
	for _, condition := range node.Status.Conditions {
		if condition.Type == corev1.NodeReady {
			// The API knows seconds only: the last heartbeat of an earlier boot is never
			// later than the next boot, but one of this boot may not be either.
			return condition.Status == corev1.ConditionTrue && condition.LastHeartbeatTime.After(n.booting)
		}
	}
	return false
}

// RecentLogs returns the end of what systemd and its services logged.
func (n *Node) RecentLogs(ctx context.Context) string {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	journal, err := n.Run(ctx, "journalctl", "--no-pager", "--lines=60")
	if err != nil {
		journal = err.Error()
	}
	return process.Tail(n.log.Name()) + "\n" + journal
}

// Run runs a command on the node and returns what it printed.
func (n *Node) Run(ctx context.Context, command ...string) (string, error) {
	return run(ctx, "nsenter", append(n.enter(), command...)...)
}

// enter are the arguments of nsenter for a command on the node.
func (n *Node) enter() []string {
	return append([]string{"--target", strconv.Itoa(n.PID())}, enterNode...)
}

var enterNode = []string{
	"--mount", "--net", "--pid", "--uts", "--ipc", "--cgroup", "--", "env", "-i",
	"HOME=/root", "TERM=linux", "PATH=" + nodePath, "CONTAINERD_NAMESPACE=k8s.io",
}

// PID is the id of the node's systemd in the sandbox.
func (n *Node) PID() int { return n.init.Process.Pid }

// Path is where a file of the node is for this process.
func (n *Node) Path(path string) string {
	return filepath.Join("/proc", strconv.Itoa(n.PID()), "root", path)
}

// DiskPath is where a file on the node's disks is for this process, also while
// the node is down.
func (n *Node) DiskPath(path string) string {
	return filepath.Join(n.root(), path)
}

func (n *Node) root() string { return filepath.Join(n.dir, "root") }

// volume is the folder of a volume, for this process.
func (n *Node) volume(name string) string { return filepath.Join(n.dir, "data", volumesDir, name) }

// nodeVariable has the nodeConfig of a process that is to become a node.
const nodeVariable = "REGISTRY_CACHE_CLUSTER_NODE"

// nodeConfig is what the first process of a node needs to know.
type nodeConfig struct {
	// Root is the node's root folder, a mount point.
	Root string
	// Cgroups are what the node sees as the roots of all hierarchies.
	Cgroups sandbox.Cgroups
}

// becomeNode makes of this process, which is the first one in the namespaces of a
// node, the node's systemd.
func becomeNode() error {
	// The namespace of control groups is the thread's that makes it.
	runtime.LockOSThread()
	var config nodeConfig
	if err := json.Unmarshal([]byte(os.Getenv(nodeVariable)), &config); err != nil {
		return fmt.Errorf("parse %s: %w", nodeVariable, err)
	}
	// Until the node is connected to the network.
	if _, err := os.Stdin.Read(make([]byte, 1)); err == nil {
		return errors.New("unexpected input")
	}
	if err := config.Cgroups.Join(); err != nil {
		return err
	}
	if err := unix.Unshare(unix.CLONE_NEWCGROUP); err != nil {
		return fmt.Errorf("make namespace of control groups: %w", err)
	}
	if err := unix.Sethostname([]byte(NodeName)); err != nil {
		return fmt.Errorf("set host name: %w", err)
	}
	if err := mountNode(config); err != nil {
		return err
	}
	arguments := strings.Fields("/lib/systemd/systemd --system --unit=multi-user.target --log-target=console --show-status=no")
	return unix.Exec(arguments[0], arguments, []string{
		"container=registry-cache-test", "PATH=" + nodePath,
		// From version 256 on, systemd wants to be asked for cgroup v1.
		"SYSTEMD_CGROUP_ENABLE_LEGACY_FORCE=1", "SYSTEMD_PROC_CMDLINE=systemd.unified_cgroup_hierarchy=" + strconv.FormatBool(config.Cgroups.Unified()),
	})
}
