// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

var (
	// nodeData are folders of the node that are on a disk: what is in them is
	// large, or cannot be on an overlay.
	nodeData = []string{"/var/lib/containerd", "/var/lib/kubelet", volumesDir}

	// notOfTheNode are files of the machine that would make its node another one:
	// which services there are, and what the components under test have left.
	notOfTheNode = []string{
		"etc/systemd/system/*", "etc/systemd/network/*", "usr/lib/systemd/system/*.wants", "usr/lib/systemd/system-generators",
		"etc/containerd", "etc/cni", "etc/kubernetes", "opt/cni", "var/lib/gardener-node-agent", "var/lib/registry-hosts",
		"var/log/journal",
	}

	// sysctls are those of the whole machine that a kubelet or systemd sets. The
	// node has files of its own in their place.
	sysctls = []string{
		"vm/overcommit_memory", "vm/panic_on_oom", "kernel/panic", "kernel/panic_on_oops", "kernel/keys/root_maxkeys", "kernel/keys/root_maxbytes",
		"fs/file-max", "fs/nr_open",
	}

	devices = []string{"null", "zero", "full", "random", "urandom", "tty", "kmsg"}
)

// mountRoot mounts the node's root folder: an overlay on the machine's own root,
// with disks and binaries mounted into it. The mounts outlive a boot.
func (n *Node) mountRoot(programs binaries) error {
	overlay := filepath.Join(n.dir, "overlay")
	if err := makeDirs(overlay, n.root()); err != nil {
		return err
	}
	if err := unix.Mount("tmpfs", overlay, "tmpfs", 0, "size=2g"); err != nil {
		return fmt.Errorf("mount tmpfs: %w", err)
	}
	upper, work := filepath.Join(overlay, "upper"), filepath.Join(overlay, "work")
	if err := makeDirs(upper, work); err != nil {
		return err
	}
	if err := unix.Mount("overlay", n.root(), "overlay", 0, "lowerdir=/,upperdir="+upper+",workdir="+work); err != nil {
		return fmt.Errorf("mount overlay: %w", err)
	}
	// No link in the overlay may lead out of it, for what is changed there would be
	// changed on the machine.
	root, err := os.OpenRoot(n.root())
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }()
	for _, pattern := range notOfTheNode {
		matches, err := fs.Glob(root.FS(), pattern)
		if err != nil {
			return err
		}
		for _, match := range matches {
			if err := root.RemoveAll(match); err != nil {
				return err
			}
		}
	}
	for _, dir := range nodeData {
		source := filepath.Join(n.dir, "data", dir)
		if err := makeDirs(source); err != nil {
			return err
		}
		if err := n.mount(root, source, dir); err != nil {
			return err
		}
	}
	return n.mountBinaries(root, programs)
}

// mount mounts a folder of the machine to a path on the node.
func (n *Node) mount(root *os.Root, source, path string) error {
	// A link of the machine's to another disk is not followed.
	if info, err := root.Lstat(relative(path)); err == nil && info.Mode()&fs.ModeSymlink != 0 {
		if err := root.Remove(relative(path)); err != nil {
			return err
		}
	}
	if err := root.MkdirAll(relative(path), 0o755); err != nil {
		return err
	}
	return bind(source, filepath.Join(n.root(), path))
}

// mountBinaries mounts the folders of the binaries and links to those that the
// node is to have. Not the files alone: runc runs a copy of itself, which it takes
// from the folder that it is in.
func (n *Node) mountBinaries(root *os.Root, programs binaries) error {
	mounted := map[string]string{}
	for dir, names := range nodeBinaries {
		if err := root.MkdirAll(relative(dir), 0o755); err != nil {
			return err
		}
		for _, name := range names {
			source := filepath.Dir(programs[name])
			if mounted[source] == "" {
				mounted[source] = fmt.Sprintf("/opt/test-binaries/%d", len(mounted))
				if err := n.mount(root, source, mounted[source]); err != nil {
					return err
				}
			}
			link := relative(filepath.Join(dir, name))
			// One that the machine has.
			if err := root.RemoveAll(link); err != nil {
				return err
			}
			if err := root.Symlink(filepath.Join(mounted[source], filepath.Base(programs[name])), link); err != nil {
				return err
			}
		}
	}
	return nil
}

// installFiles writes the files, and the links that have systemd start our units.
func (n *Node) installFiles(contents map[string][]byte) error {
	root, err := os.OpenRoot(n.root())
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }()
	for path, content := range contents {
		target := relative(path)
		if err := root.MkdirAll(filepath.Dir(target), 0o755); err != nil {
			return err
		}
		// The machine's may be a link.
		if err := root.RemoveAll(target); err != nil {
			return err
		}
		if err := root.WriteFile(target, content, 0o644); err != nil {
			return err
		}
	}
	const wants = "etc/systemd/system/multi-user.target.wants"
	if err := root.MkdirAll(wants, 0o755); err != nil {
		return err
	}
	for _, unit := range slices.Concat(nodeUnits, []string{"systemd-journald.service"}) {
		if err := root.Symlink("/lib/systemd/system/"+unit, filepath.Join(wants, unit)); err != nil {
			return err
		}
	}
	return nil
}

// relative is a path of the node as an os.Root takes it.
func relative(path string) string { return strings.TrimPrefix(path, "/") }

// mountNode mounts what every boot has anew, makes the root folder that of the
// process, and lets go of the machine's. It runs in the namespaces of the node.
func mountNode(config nodeConfig) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	root := config.Root
	for _, mount := range []struct{ kind, target, options string }{
		{"proc", "/proc", ""},
		{"sysfs", "/sys", ""},
		{"tmpfs", "/run", "mode=755"},
		{"tmpfs", "/tmp", ""},
		{"tmpfs", "/dev", "mode=755"},
	} {
		if err := unix.Mount(mount.kind, filepath.Join(root, mount.target), mount.kind, 0, mount.options); err != nil {
			return fmt.Errorf("mount %s: %w", mount.target, err)
		}
	}
	for _, step := range []func(root string) error{
		makeDevices, setSysctls,
		func(root string) error { return mountCgroups(root, config) },
		changeRoot,
	} {
		if err := step(root); err != nil {
			return err
		}
	}
	return nil
}

func makeDevices(root string) error {
	dev := filepath.Join(root, "dev")
	for _, name := range devices {
		target := filepath.Join(dev, name)
		if err := os.WriteFile(target, nil, 0o600); err != nil {
			return err
		}
		if err := bind("/dev/"+name, target); err != nil {
			return err
		}
	}
	if err := makeDirs(filepath.Join(dev, "pts"), filepath.Join(dev, "shm")); err != nil {
		return err
	}
	if err := unix.Mount("devpts", filepath.Join(dev, "pts"), "devpts", 0, "newinstance,ptmxmode=0666,mode=620"); err != nil {
		return fmt.Errorf("mount /dev/pts: %w", err)
	}
	if err := unix.Mount("tmpfs", filepath.Join(dev, "shm"), "tmpfs", 0, ""); err != nil {
		return fmt.Errorf("mount /dev/shm: %w", err)
	}
	for name, target := range map[string]string{
		"ptmx": "pts/ptmx", "fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2",
	} {
		if err := os.Symlink(target, filepath.Join(dev, name)); err != nil {
			return err
		}
	}
	return nil
}

// setSysctls keeps the node from setting what would be the whole machine's, and
// sets what is its own.
func setSysctls(root string) error {
	for _, name := range sysctls {
		target := filepath.Join(root, "proc/sys", name)
		content, err := os.ReadFile(target) //nolint:gosec // a sysctl of the list
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("read sysctl: %w", err)
		}
		own := filepath.Join(root, "run/sysctl-"+strings.ReplaceAll(name, "/", "-"))
		if err := os.WriteFile(own, content, 0o600); err != nil { //nolint:gosec // a file in the node's own /run
			return err
		}
		if err := bind(own, target); err != nil {
			return err
		}
	}
	// /proc/sys/net is that of the node's own network.
	if err := os.WriteFile(filepath.Join(root, "proc/sys/net/ipv4/ip_forward"), []byte("1"), 0); err != nil {
		return fmt.Errorf("set sysctl: %w", err)
	}
	return nil
}

// mountCgroups mounts the hierarchies whose roots are the node's control groups.
func mountCgroups(root string, config nodeConfig) error {
	dir := filepath.Join(root, "sys/fs/cgroup")
	if config.Cgroups.Unified() {
		if err := unix.Mount("cgroup2", dir, "cgroup2", 0, ""); err != nil {
			return fmt.Errorf("mount cgroup v2: %w", err)
		}
		return nil
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "mode=755"); err != nil {
		return fmt.Errorf("mount folder of cgroup v1: %w", err)
	}
	for _, group := range config.Cgroups {
		name, options := group.Hierarchy, group.Hierarchy
		if named, ok := strings.CutPrefix(name, "name="); ok {
			name, options = named, "none,"+options
		}
		target := filepath.Join(dir, name)
		if err := makeDirs(target); err != nil {
			return err
		}
		if err := unix.Mount("cgroup", target, "cgroup", 0, options); err != nil {
			return fmt.Errorf("mount cgroup v1 %s: %w", name, err)
		}
		if err := linkControllers(dir, name); err != nil {
			return err
		}
	}
	return nil
}

// linkControllers gives controllers that share a hierarchy a name each.
func linkControllers(dir, hierarchy string) error {
	controllers := strings.Split(hierarchy, ",")
	if len(controllers) == 1 {
		return nil
	}
	for _, controller := range controllers {
		if err := os.Symlink(hierarchy, filepath.Join(dir, controller)); err != nil {
			return err
		}
	}
	return nil
}

func changeRoot(root string) error {
	const old = ".machine"
	if err := makeDirs(filepath.Join(root, old)); err != nil {
		return err
	}
	if err := unix.Chdir(root); err != nil {
		return fmt.Errorf("enter the root folder: %w", err)
	}
	if err := unix.PivotRoot(".", old); err != nil {
		return fmt.Errorf("change the root folder: %w", err)
	}
	if err := unix.Unmount("/"+old, unix.MNT_DETACH); err != nil {
		return fmt.Errorf("let go of the machine's root folder: %w", err)
	}
	if err := os.Remove("/" + old); err != nil {
		return err
	}
	// Volumes that are mounted on the node have to appear in containers.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SHARED, ""); err != nil {
		return fmt.Errorf("share mounts: %w", err)
	}
	return nil
}

func bind(source, target string) error {
	if err := unix.Mount(source, target, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("mount %s to %s: %w", source, target, err)
	}
	return nil
}

func makeDirs(dirs ...string) error {
	for _, dir := range dirs {
		if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // folders of an operating system
			return err
		}
	}
	return nil
}
