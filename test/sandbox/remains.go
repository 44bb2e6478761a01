// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// namePrefix starts the names of folders and control groups.
	namePrefix = "registry-cache-sandbox-"

	// recordsDir has a file for each sandbox, with the path of its folder. It is the
	// same wherever the folders are, so that the remains of each are found.
	recordsDir = "/run/registry-cache-sandbox"
	// recordsLock is held while sandboxes are claimed.
	recordsLock = recordsDir + "/lock"
)

// remains are what a sandbox leaves behind when its processes have ended.
type remains struct {
	dir string
	// record is locked as long as the process lives that has made the sandbox.
	record *os.File
}

// Base is the folder of all sandboxes' folders. It has to be on a file system
// that can be the upper layer of an overlay, and large, which /tmp often is not.
func Base() string {
	if dir := os.Getenv("TMPDIR"); dir != "" {
		return dir
	}
	return "/var/tmp"
}

// claim makes the folder of a new sandbox, after it has removed what is left of
// earlier ones that were killed.
func claim() (*remains, error) {
	if err := os.MkdirAll(recordsDir, 0o755); err != nil { //nolint:gosec // nothing in it is secret
		return nil, fmt.Errorf("create folder of records: %w", err)
	}
	claims, err := lock(recordsLock, unix.LOCK_EX)
	if err != nil {
		return nil, err
	}
	defer func() { _ = claims.Close() }()
	if err := removeAbandoned(); err != nil {
		return nil, err
	}
	base, err := filepath.Abs(Base())
	if err != nil {
		return nil, fmt.Errorf("find folder of the sandbox: %w", err)
	}
	dir, err := os.MkdirTemp(base, namePrefix)
	if err != nil {
		return nil, fmt.Errorf("create folder of the sandbox: %w", err)
	}
	record, err := lock(recordOf(dir), unix.LOCK_EX|unix.LOCK_NB)
	if err == nil {
		_, err = record.WriteString(dir)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("record the sandbox: %w", err), os.RemoveAll(dir))
	}
	return &remains{dir: dir, record: record}, nil
}

func recordOf(dir string) string { return filepath.Join(recordsDir, filepath.Base(dir)) }

func (r *remains) name() string { return filepath.Base(r.dir) }

// remove is to be called when the first process of the sandbox has ended, or is
// about to.
func (r *remains) remove() error {
	defer func() { _ = r.record.Close() }()
	cgroups, err := cgroupsNamed(r.name())
	if err != nil {
		return err
	}
	if err := errors.Join(removeCgroups(cgroups), retry(func() error { return os.RemoveAll(r.dir) })); err != nil {
		return fmt.Errorf("remove the sandbox: %w", err)
	}
	// An error means that another process has removed it as well.
	_ = os.Remove(recordOf(r.dir))
	return nil
}

func removeAbandoned() error {
	records, err := filepath.Glob(filepath.Join(recordsDir, namePrefix+"*"))
	if err != nil {
		return fmt.Errorf("find earlier sandboxes: %w", err)
	}
	for _, path := range records {
		record, err := lock(path, unix.LOCK_EX|unix.LOCK_NB)
		if errors.Is(err, unix.EWOULDBLOCK) {
			continue // it is in use
		}
		if err != nil {
			return err
		}
		dir, err := os.ReadFile(path) //nolint:gosec // a record of ours
		if err != nil || !strings.HasPrefix(filepath.Base(string(dir)), namePrefix) {
			// Its owner was killed before it wrote it, or has just removed it.
			_ = errors.Join(os.Remove(path), record.Close())
			continue
		}
		fmt.Fprintln(os.Stderr, "removing what an earlier run left in", string(dir))
		if err := (&remains{dir: string(dir), record: record}).remove(); err != nil {
			// Not in the way of this run; the next one tries again.
			fmt.Fprintln(os.Stderr, err)
		}
	}
	return removeFromEarlierBoots()
}

// removeFromEarlierBoots removes folders whose record has not survived a reboot of
// the machine. Their processes and control groups have not either.
func removeFromEarlierBoots() error {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return fmt.Errorf("find out when the machine has booted: %w", err)
	}
	booted := time.Now().Add(-time.Duration(info.Uptime) * time.Second)
	dirs, err := filepath.Glob(filepath.Join(Base(), namePrefix+"*"))
	if err != nil {
		return fmt.Errorf("find earlier sandboxes: %w", err)
	}
	for _, dir := range dirs {
		if stat, err := os.Stat(dir); err != nil || stat.ModTime().After(booted) {
			continue
		}
		fmt.Fprintln(os.Stderr, "removing what an earlier run left in", dir)
		if err := os.RemoveAll(dir); err != nil {
			return fmt.Errorf("remove %s: %w", dir, err)
		}
	}
	return nil
}

// lock locks a file until it is closed or this process ends.
func lock(path string, how int) (*os.File, error) {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600) //nolint:gosec // a record of ours
	if err != nil {
		return nil, fmt.Errorf("lock: %w", err)
	}
	if err := unix.Flock(int(file.Fd()), how); err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), file.Close())
	}
	return file, nil
}

// retry does for a while what fails as long as processes are ending.
func retry(do func() error) error {
	var err error
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if err = do(); err == nil {
			return nil
		}
	}
	return err
}
