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

// checkFolder looks at the file system where containers' layers will be.
func checkFolder() error {
	var stat unix.Statfs_t
	if err := unix.Statfs(base(), &stat); err != nil {
		return fmt.Errorf("folder %s, which TMPDIR may change: %w", base(), err)
	}
	if stat.Type == unix.OVERLAYFS_SUPER_MAGIC {
		return fmt.Errorf("folder %s is on an overlay, on which containerd cannot put its own: set TMPDIR to one that is on a disk or in memory", base())
	}
	if free := stat.Bavail * uint64(stat.Bsize); free < neededSpace { //nolint:gosec // a block size is positive
		return fmt.Errorf("folder %s has %d MiB free, %d MiB are needed: set TMPDIR to one with more", base(), free>>20, neededSpace>>20)
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
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: namespaces}
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
	const dir = "/tmp"
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, ""); err != nil {
		return fail(fmt.Errorf("mount tmpfs: %w", err))
	}
	for _, name := range []string{"upper", "work", "root"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			return fail(err)
		}
	}
	if err := unix.Mount("overlay", dir+"/root", "overlay", 0, "lowerdir=/,upperdir="+dir+"/upper,workdir="+dir+"/work"); err != nil {
		return fail(fmt.Errorf("mount overlay: %w", err))
	}
	if err := unix.Unshare(unix.CLONE_NEWCGROUP); err != nil {
		return fail(fmt.Errorf("make a namespace of control groups: %w", err))
	}
	return 0
}
