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

// Dirs are the folders of the control groups.
func (c Cgroups) Dirs() []string {
	dirs := make([]string, 0, len(c))
	for _, group := range c {
		dirs = append(dirs, group.Dir)
	}
	return dirs
}

// WorkingSet is the memory, in bytes, that Kubernetes counts for a container in
// these control groups: all that is charged to them, but for files that have not
// been used lately.
func (c Cgroups) WorkingSet() (uint64, error) {
	for _, group := range c {
		switch {
		case group.Hierarchy == "":
			return workingSet(group.Dir, "memory.current", "inactive_file")
		case group.has("memory"):
			return workingSet(group.Dir, "memory.usage_in_bytes", "total_inactive_file")
		}
	}
	return 0, errors.New("no control group has the controller memory")
}

func workingSet(dir, usageFile, inactive string) (uint64, error) {
	content, err := os.ReadFile(filepath.Join(dir, usageFile)) //nolint:gosec // a control group
	if err != nil {
		return 0, fmt.Errorf("read memory of a control group: %w", err)
	}
	usage, err := strconv.ParseUint(strings.TrimSpace(string(content)), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("read memory of a control group: %w", err)
	}
	stat, err := os.ReadFile(filepath.Join(dir, "memory.stat")) //nolint:gosec // a control group
	if err != nil {
		return 0, fmt.Errorf("read memory of a control group: %w", err)
	}
	for line := range strings.Lines(string(stat)) {
		var unused uint64
		if _, err := fmt.Sscanf(line, inactive+" %d\n", &unused); err == nil {
			return usage - min(usage, unused), nil
		}
	}
	return 0, fmt.Errorf("memory.stat of control group %s has no %s", dir, inactive)
}

// Create makes control groups of a name below these, in place of earlier ones,
// whose processes it ends. No process may be in these groups themselves.
func (c Cgroups) Create(name string) (Cgroups, error) {
	for _, group := range c {
		if err := removeCgroup(filepath.Join(group.Dir, name)); err != nil {
			return nil, err
		}
	}
	return createBelow(c, name)
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

// hierarchies returns the mounted hierarchies, as control groups at their roots:
// those of cgroup v1 where these have the controllers, and else that of v2.
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
		group := Cgroup{Dir: fields[4]}
		switch {
		case details[0] == "cgroup2" && len(unified) == 0:
			unified = Cgroups{group}
		case details[0] == "cgroup":
			options := slices.DeleteFunc(strings.Split(details[2], ","), isCommonOption)
			group.Hierarchy = strings.Join(options, ",")
			if !slices.ContainsFunc(legacy, func(other Cgroup) bool { return other.Hierarchy == group.Hierarchy }) {
				legacy = append(legacy, group)
			}
		}
	}
	// Some machines have a hierarchy of v1 for another purpose beside cgroup v2.
	if slices.ContainsFunc(legacy, func(group Cgroup) bool { return group.has(neededControllers...) }) {
		return legacy, nil
	}
	return unified, nil
}

// has says whether a hierarchy of v1 has any of the controllers.
func (g Cgroup) has(controllers ...string) bool {
	return slices.ContainsFunc(strings.Split(g.Hierarchy, ","), func(name string) bool { return slices.Contains(controllers, name) })
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
		if root.Hierarchy != "" {
			continue
		}
		if err := enableControllers(root.Dir); err != nil {
			return fmt.Errorf("no control group below %s can have controllers (in a container, move its processes out of the root): %w", root.Dir, err)
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
	return createBelow(roots, name)
}

func createBelow(parents Cgroups, name string) (Cgroups, error) {
	groups := make(Cgroups, 0, len(parents))
	for _, parent := range parents {
		if parent.Hierarchy == "" {
			if err := enableControllers(parent.Dir); err != nil {
				return nil, err
			}
		}
		group := Cgroup{Dir: filepath.Join(parent.Dir, name), Hierarchy: parent.Hierarchy}
		if err := os.Mkdir(group.Dir, 0o755); err != nil { //nolint:gosec // control groups are readable
			return nil, fmt.Errorf("create control group: %w", err)
		}
		if group.has("cpuset") {
			if err := inheritCPUs(parent.Dir, group.Dir); err != nil {
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

// enableControllers lets the groups below one of cgroup v2 use the controllers
// that a node needs. At the root it stays so; systemd does the same for most.
func enableControllers(dir string) error {
	for _, name := range neededControllers {
		if err := os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte("+"+name), 0); err != nil {
			return fmt.Errorf("enable controller %s: %w", name, err)
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
		errs = append(errs, removeCgroup(group.Dir))
	}
	return errors.Join(errs...)
}

// removeCgroup removes a control group and those below it, after it has ended the
// processes in them. One that does not exist is no error.
func removeCgroup(dir string) error {
	if err := retry(func() error { return tryRemoveCgroup(dir) }); err != nil {
		return fmt.Errorf("remove control groups: %w", err)
	}
	return nil
}

func tryRemoveCgroup(dir string) error {
	var dirs []string
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.IsDir() {
			dirs = append(dirs, path)
		}
		return ignoreMissing(err)
	})
	errs := []error{err}
	slices.Reverse(dirs) // children first
	for _, dir := range dirs {
		errs = append(errs, killCgroup(dir), ignoreMissing(os.Remove(dir)))
	}
	return errors.Join(errs...)
}

func killCgroup(dir string) error {
	content, err := os.ReadFile(filepath.Join(dir, "cgroup.procs")) //nolint:gosec // a control group
	if err != nil {
		return ignoreMissing(err)
	}
	for _, field := range strings.Fields(string(content)) {
		// Id 0 is a process of another namespace.
		if pid, err := strconv.Atoi(field); err == nil && pid > 0 {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
	}
	return nil
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
