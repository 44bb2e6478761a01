// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// neededSpace is more than a run has been seen to write to its folder.
const neededSpace = 3 << 30

// Supported returns an error that says in one line why this machine cannot run a
// sandbox, or nil.
func Supported() error {
	if os.Geteuid() != 0 {
		return errors.New("it needs to be root, to make namespaces and control groups")
	}
	for _, check := range []func() error{checkFolder, checkCgroups, checkNamespaces} {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}

// checkFolder looks for the space that containers' layers take.
func checkFolder() error {
	var stat unix.Statfs_t
	if err := unix.Statfs(Base(), &stat); err != nil {
		return fmt.Errorf("folder %s, which TMPDIR may change: %w", Base(), err)
	}
	if free := stat.Bavail * uint64(stat.Bsize); free < neededSpace { //nolint:gosec // a block size is positive
		return fmt.Errorf("folder %s has %d MiB free, %d MiB are needed: set TMPDIR to one with more", Base(), free>>20, neededSpace>>20)
	}
	return nil
}

// checkNamespaces makes the namespaces of a sandbox, and in them the mounts that
// are likeliest to be forbidden.
func checkNamespaces() error {
	cmd, err := self(stageProbe)
	if err != nil {
		return err
	}
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: Namespaces}
	if err := cmd.Run(); err != nil {
		// The last line, for what starts a program may have printed before.
		lines := strings.Split(strings.TrimSpace(output.String()), "\n")
		return errors.New(strings.TrimSpace(fmt.Sprintf("namespaces and mounts in them cannot be made here (%v) %s", err, lines[len(lines)-1])))
	}
	return nil
}

func runProbe() int {
	if err := prepareNamespaces(); err != nil {
		return fail(err)
	}
	if err := unix.Mount("tmpfs", "/tmp", "tmpfs", 0, ""); err != nil {
		return fail(fmt.Errorf("mount tmpfs: %w", err))
	}
	if err := probeOverlay(Base()); err != nil {
		return fail(err)
	}
	if err := unix.Unshare(unix.CLONE_NEWCGROUP); err != nil {
		return fail(fmt.Errorf("make a namespace of control groups: %w", err))
	}
	return 0
}

// probeOverlay mounts an overlay whose upper layer is below a folder, as
// containerd does for each container.
func probeOverlay(base string) (err error) {
	dir, err := os.MkdirTemp(base, "sandbox-probe-")
	if err != nil {
		return fmt.Errorf("create folder: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	layers := map[string]string{}
	for _, name := range []string{"lower", "upper", "work", "root"} {
		layers[name] = filepath.Join(dir, name)
		if err := os.Mkdir(layers[name], 0o700); err != nil {
			return fmt.Errorf("create folder: %w", err)
		}
	}
	options := fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", layers["lower"], layers["upper"], layers["work"])
	if err := unix.Mount("overlay", layers["root"], "overlay", 0, options); err != nil {
		return fmt.Errorf("mount an overlay in %s (set TMPDIR to a folder on a disk or in memory, not on an overlay): %w", base, err)
	}
	return unix.Unmount(layers["root"], 0)
}
