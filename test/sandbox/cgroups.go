// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// neededControllers are those without which a kubelet does not start.
var neededControllers = []string{"cpu", "cpuset", "memory", "pids"}

// Cgroups are one control group in each hierarchy of the machine: in the single
// one of cgroup v2, or in all those of v1.
type Cgroups []Cgroup

// Cgroup is a control group in one hierarchy.
type Cgroup struct {
	// Dir is its folder, as the machine mounted it.
	Dir string
	// Hierarchy names the hierarchy as mount options do: the controllers of cgroup
	// v1, or name=systemd. It is empty for cgroup v2.
	Hierarchy string
}

// Unified says whether these are control groups of cgroup v2 alone.
func (c Cgroups) Unified() bool {
	return len(c) == 1 && c[0].Hierarchy == ""
}

// Join moves the running process into the control groups.
func (c Cgroups) Join() error {
	for _, group := range c {
		if err := os.WriteFile(filepath.Join(group.Dir, "cgroup.procs"), []byte("0"), 0); err != nil {
			return fmt.Errorf("join control group: %w", err)
		}
	}
	return nil
}

// Clear ends what runs in the control groups, and removes the groups below them.
func (c Cgroups) Clear() error {
	var errs []error
	for _, group := range c {
		errs = append(errs, clearCgroup(group.Dir, false))
	}
	return errors.Join(errs...)
}

// String is for parseCgroups.
func (c Cgroups) String() string {
	text, err := json.Marshal([]Cgroup(c))
	if err != nil {
		panic(err) // strings always can
	}
	return string(text)
}

func parseCgroups(text string) (Cgroups, error) {
	var cgroups Cgroups
	if err := json.Unmarshal([]byte(text), &cgroups); err != nil {
		return nil, fmt.Errorf("parse control groups: %w", err)
	}
	return cgroups, nil
}

// hierarchies returns the mounted hierarchies, as control groups at their roots.
// The one of cgroup v2 counts only where there is none of v1.
func hierarchies() (Cgroups, error) {
	file, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("read mounts: %w", err)
	}
	defer func() { _ = file.Close() }()
	var legacy, unified Cgroups
	for scanner := bufio.NewScanner(file); scanner.Scan(); {
		// See proc_pid_mountinfo(5): the file system's own fields follow a dash.
		mount, filesystem, _ := strings.Cut(scanner.Text(), " - ")
		fields, details := strings.Fields(mount), strings.Fields(filesystem)
		if len(fields) < 5 || len(details) < 3 {
			continue
		}
		switch details[0] {
		case "cgroup":
			options := slices.DeleteFunc(strings.Split(details[2], ","), isCommonOption)
			group := Cgroup{Dir: fields[4], Hierarchy: strings.Join(options, ",")}
			if !slices.ContainsFunc(legacy, func(other Cgroup) bool { return other.Hierarchy == group.Hierarchy }) {
				legacy = append(legacy, group)
			}
		case "cgroup2":
			unified = Cgroups{{Dir: fields[4]}}
		}
	}
	if len(legacy) > 0 {
		return legacy, nil
	}
	return unified, nil
}

// isCommonOption tells the options of a v1 hierarchy that are not its controllers.
func isCommonOption(option string) bool {
	name, _, _ := strings.Cut(option, "=")
	return slices.Contains([]string{"rw", "ro", "xattr", "noprefix", "clone_children", "release_agent", "favordynmods", "cpuset_v2_mode"}, name)
}

// checkCgroups returns an error unless a kubelet finds the controllers it needs.
func checkCgroups() error {
	roots, err := hierarchies()
	if err != nil {
		return err
	}
	if len(roots) == 0 {
		return errors.New("no control groups are mounted at /sys/fs/cgroup")
	}
	var available []string
	for _, root := range roots {
		available = append(available, strings.Split(root.Hierarchy, ",")...)
	}
	if roots.Unified() {
		content, err := os.ReadFile(filepath.Join(roots[0].Dir, "cgroup.controllers"))
		if err != nil {
			return fmt.Errorf("read the controllers of cgroup v2: %w", err)
		}
		available = strings.Fields(string(content))
	}
	for _, name := range neededControllers {
		if !slices.Contains(available, name) {
			return fmt.Errorf("the control groups have no controller %q", name)
		}
	}
	for _, root := range roots {
		if unix.Access(root.Dir, unix.W_OK) != nil {
			return fmt.Errorf("no control group can be made in %s", root.Dir)
		}
	}
	return nil
}

// createCgroups makes a control group of the given name in each hierarchy.
func createCgroups(name string) (Cgroups, error) {
	roots, err := hierarchies()
	if err != nil {
		return nil, err
	}
	groups := make(Cgroups, 0, len(roots))
	for _, root := range roots {
		if root.Hierarchy == "" {
			if err := enableControllers(root.Dir); err != nil {
				return nil, err
			}
		}
		group := Cgroup{Dir: filepath.Join(root.Dir, name), Hierarchy: root.Hierarchy}
		if err := os.Mkdir(group.Dir, 0o755); err != nil { //nolint:gosec // control groups are readable
			return nil, fmt.Errorf("create control group: %w", err)
		}
		if slices.Contains(strings.Split(root.Hierarchy, ","), "cpuset") {
			if err := inheritCPUs(root.Dir, group.Dir); err != nil {
				return nil, err
			}
		}
		groups = append(groups, group)
	}
	return groups, nil
}

// inheritCPUs gives a new group of the cpuset controller of v1, which may use
// nothing at first, what its parent may use.
func inheritCPUs(parent, group string) error {
	for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
		content, err := os.ReadFile(filepath.Join(parent, file)) //nolint:gosec // a control group
		if err == nil {
			err = os.WriteFile(filepath.Join(group, file), content, 0) //nolint:gosec // a control group
		}
		if err != nil {
			return fmt.Errorf("set up control group: %w", err)
		}
	}
	return nil
}

// enableControllers lets the groups below the root of cgroup v2 use all
// controllers that there are.
func enableControllers(root string) error {
	controllers, err := os.ReadFile(filepath.Join(root, "cgroup.controllers")) //nolint:gosec // a control group
	if err != nil {
		return fmt.Errorf("read controllers: %w", err)
	}
	for _, name := range strings.Fields(string(controllers)) {
		err := os.WriteFile(filepath.Join(root, "cgroup.subtree_control"), []byte("+"+name), 0) //nolint:gosec // a control group
		if err != nil && slices.Contains(neededControllers, name) {
			return fmt.Errorf("enable controller %s for control groups: %w", name, err)
		}
	}
	return nil
}

// cgroupsNamed returns the control groups of a name that exist.
func cgroupsNamed(name string) (Cgroups, error) {
	roots, err := hierarchies()
	if err != nil {
		return nil, err
	}
	var groups Cgroups
	for _, root := range roots {
		dir := filepath.Join(root.Dir, name)
		if _, err := os.Stat(dir); err == nil {
			groups = append(groups, Cgroup{Dir: dir, Hierarchy: root.Hierarchy})
		}
	}
	return groups, nil
}

func removeCgroups(groups Cgroups) error {
	var errs []error
	for _, group := range groups {
		errs = append(errs, clearCgroup(group.Dir, true))
	}
	return errors.Join(errs...)
}

// clearCgroup removes the groups below a folder, and itself if asked to, after it
// has ended the processes in them. It tries again for a while, for processes take
// a moment to end.
func clearCgroup(dir string, itself bool) error {
	var err error
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if err = tryClearCgroup(dir, itself); err == nil {
			return nil
		}
	}
	return fmt.Errorf("remove control groups: %w", err)
}

func tryClearCgroup(dir string, itself bool) error {
	var dirs []string
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.IsDir() && (itself || path != dir) {
			dirs = append(dirs, path)
		}
		return err
	})
	if err != nil {
		return err
	}
	slices.Reverse(dirs) // children first
	var errs []error
	for _, dir := range dirs {
		errs = append(errs, killCgroup(dir), os.Remove(dir))
	}
	return errors.Join(errs...)
}

func killCgroup(dir string) error {
	content, err := os.ReadFile(filepath.Join(dir, "cgroup.procs")) //nolint:gosec // a control group
	if err != nil {
		return err
	}
	for _, field := range strings.Fields(string(content)) {
		// Id 0 is a process of another namespace.
		if pid, err := strconv.Atoi(field); err == nil && pid > 0 {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
	}
	return nil
}
