// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// namePrefix starts the names of folders and control groups.
const namePrefix = "registry-cache-sandbox-"

// remains are what a sandbox leaves behind when its processes have ended.
type remains struct {
	dir string
	// lock is held as long as the process lives that has made the sandbox.
	lock *os.File
}

// base is the folder of all sandboxes' folders. It has to be on a file system
// that can be the upper layer of an overlay, which /tmp often is not.
func base() string {
	if dir := os.Getenv("TMPDIR"); dir != "" {
		return dir
	}
	return "/var/tmp"
}

// claim makes the folder of a new sandbox, after it has removed what is left of
// earlier ones that were killed.
func claim() (*remains, error) {
	if err := removeAbandoned(); err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(base(), namePrefix)
	if err != nil {
		return nil, fmt.Errorf("create folder of the sandbox: %w", err)
	}
	lock, err := lock(dir)
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	return &remains{dir: dir, lock: lock}, nil
}

func (r *remains) name() string { return filepath.Base(r.dir) }

// remove is to be called when no process of the sandbox is left.
func (r *remains) remove() error {
	defer func() { _ = r.lock.Close() }()
	cgroups, err := cgroupsNamed(r.name())
	if err != nil {
		return err
	}
	if err := errors.Join(removeCgroups(cgroups), os.RemoveAll(r.dir)); err != nil {
		return fmt.Errorf("remove the sandbox: %w", err)
	}
	return nil
}

func removeAbandoned() error {
	dirs, err := filepath.Glob(filepath.Join(base(), namePrefix+"*"))
	if err != nil {
		return fmt.Errorf("find earlier sandboxes: %w", err)
	}
	for _, dir := range dirs {
		lock, err := lock(dir)
		if errors.Is(err, unix.EWOULDBLOCK) || errors.Is(err, os.ErrNotExist) {
			continue // it is in use, or its owner was faster
		}
		if err != nil {
			return err
		}
		fmt.Fprintln(os.Stderr, "removing what an earlier run left in", dir)
		if err := (&remains{dir: dir, lock: lock}).remove(); err != nil {
			return err
		}
	}
	return nil
}

// lock locks a folder until the returned file is closed, or this process ends.
func lock(dir string) (*os.File, error) {
	file, err := os.Open(dir) //nolint:gosec // a folder of ours
	if err != nil {
		return nil, fmt.Errorf("lock the sandbox: %w", err)
	}
	if err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", dir, err), file.Close())
	}
	return file, nil
}
