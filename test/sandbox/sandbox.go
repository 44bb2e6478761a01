// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

// Package sandbox lets a program make processes, mounts and networks as it
// likes, and leaves nothing of them on the machine: the program starts itself
// again in namespaces of its own, and when their first process ends, for
// whatever reason, the kernel ends everything in them. What namespaces do not
// hold, which is a folder and control groups, is removed after that or, when the
// program was killed, by the next one.
//
// The package is small and depends on little, so that whether a machine can run
// a sandbox is known before anything large is built. What runs inside is not for
// here.
package sandbox

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	// stageVariable tells a process which part of the way into the sandbox it is.
	stageVariable = "REGISTRY_CACHE_SANDBOX_STAGE"
	stageProbe    = "probe"
	stageInit     = "init"
	stageInside   = "inside"

	// dirVariable and cgroupsVariable tell processes inside what was made for them.
	dirVariable     = "REGISTRY_CACHE_SANDBOX_DIR"
	cgroupsVariable = "REGISTRY_CACHE_SANDBOX_CGROUPS"
	pidVariable     = "REGISTRY_CACHE_SANDBOX_PID"
)

var proxyVariables = []string{"HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"}

// Namespaces are those that everything inside shares, as flags of clone(2).
const Namespaces = unix.CLONE_NEWNS | unix.CLONE_NEWNET | unix.CLONE_NEWPID | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC

// Sandbox is what a program inside has of the machine.
type Sandbox struct {
	// Dir is an empty folder that goes with the sandbox.
	Dir string
	// Cgroups are control groups that go with the sandbox.
	Cgroups Cgroups
	// PID is the id, as the machine sees it, of the sandbox's first process, by
	// which a person can enter its namespaces.
	PID int
}

// Run starts the running program again in a sandbox, and returns its exit code;
// there, Run calls inside and never returns. If this machine cannot run a
// sandbox, nothing is started and Run returns what unsupported does. It has to
// be called first thing in main or TestMain.
//
// SIGINT, SIGTERM, SIGHUP and SIGQUIT end the sandbox at once, wherever it is.
func Run(inside func(*Sandbox) int, unsupported func(error) int) int {
	switch os.Getenv(stageVariable) {
	case stageInside:
		os.Exit(runInside(inside))
	case stageInit:
		os.Exit(runInit())
	case stageProbe:
		os.Exit(runProbe())
	}
	if err := Supported(); err != nil {
		return unsupported(err)
	}
	code, err := run()
	if err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		return 1
	}
	return code
}

// run makes the sandbox, waits for its end, and removes what is left of it.
func run() (code int, err error) {
	// The first process inside is killed when the thread ends that started it.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT)
	defer signal.Stop(signals)

	remains, err := claim()
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, remains.remove()) }()
	cgroups, err := createCgroups(remains.name())
	if err != nil {
		return 0, err
	}

	cmd, err := self(stageInit)
	if err != nil {
		return 0, err
	}
	cmd.Env = append(cmd.Env, dirVariable+"="+remains.dir, cgroupsVariable+"="+cgroups.String())
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: Namespaces,
		Pdeathsig:  unix.SIGKILL,
		// Ctrl-C at a terminal is for this process, which knows what to do.
		Setpgid: true,
	}
	pids, err := cmd.StdinPipe()
	if err != nil {
		return 0, fmt.Errorf("create pipe into the sandbox: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return 0, fmt.Errorf("start the sandbox: %w", err)
	}
	// In its namespace its id is 1.
	_, _ = fmt.Fprintln(pids, cmd.Process.Pid)

	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = cmd.Wait()
	}()
	select {
	case <-ended:
		return exitCode(cmd.ProcessState), nil
	case received := <-signals:
		fmt.Fprintf(os.Stderr, "\n%s: ending everything and removing it\n", received)
		_ = cmd.Process.Kill()
		<-ended
		return 128 + int(received.(syscall.Signal)), nil
	}
}

// runInit is the first process inside. It prepares the namespaces, starts the
// program proper, and collects the processes that lose their parents.
func runInit() int {
	var pid int
	if _, err := fmt.Fscanln(os.Stdin, &pid); err != nil {
		return fail(fmt.Errorf("read own process id: %w", err))
	}
	if err := prepareNamespaces(); err != nil {
		return fail(err)
	}
	program, err := os.Executable()
	if err != nil {
		return fail(err)
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		return fail(err)
	}
	environment := append(environment(stageInside), fmt.Sprintf("%s=%d", pidVariable, pid))
	// Not os/exec, which waits for its own children: here all are waited for.
	child, err := syscall.ForkExec(program, os.Args, &syscall.ProcAttr{ //nolint:gosec // the running program
		Env:   environment,
		Files: []uintptr{null.Fd(), os.Stdout.Fd(), os.Stderr.Fd()},
	})
	if err != nil {
		return fail(fmt.Errorf("start %s: %w", program, err))
	}
	for {
		var status syscall.WaitStatus
		ended, err := syscall.Wait4(-1, &status, 0, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
		case err != nil:
			return fail(fmt.Errorf("wait for processes: %w", err))
		case ended != child:
		case status.Signaled():
			return 128 + int(status.Signal())
		default:
			return status.ExitStatus()
		}
	}
}

func runInside(inside func(*Sandbox) int) int {
	cgroups, err := parseCgroups(os.Getenv(cgroupsVariable))
	if err != nil {
		return fail(err)
	}
	sandbox := &Sandbox{Dir: os.Getenv(dirVariable), Cgroups: cgroups}
	if _, err := fmt.Sscan(os.Getenv(pidVariable), &sandbox.PID); err != nil {
		return fail(fmt.Errorf("parse %s: %w", pidVariable, err))
	}
	// What is started from here is not on the way into this sandbox, and no proxy of
	// the machine can be reached.
	for _, variable := range append(proxyVariables, stageVariable, dirVariable, cgroupsVariable, pidVariable) {
		if err := os.Unsetenv(variable); err != nil {
			return fail(err)
		}
	}
	return inside(sandbox)
}

// prepareNamespaces keeps mounts from spreading to the machine, and has /proc
// and the loopback interface show what is inside.
func prepareNamespaces() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	socket, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("create socket: %w", err)
	}
	defer func() { _ = unix.Close(socket) }()
	loopback, err := unix.NewIfreq("lo")
	if err != nil {
		return fmt.Errorf("name the loopback interface: %w", err)
	}
	loopback.SetUint16(unix.IFF_UP)
	if err := unix.IoctlIfreq(socket, unix.SIOCSIFFLAGS, loopback); err != nil {
		return fmt.Errorf("bring up the loopback interface: %w", err)
	}
	return nil
}

// self returns a command that runs this program again, at a stage.
func self(stage string) (*exec.Cmd, error) {
	program, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find own program: %w", err)
	}
	cmd := exec.Command(program) //nolint:gosec // the running program
	cmd.Args = os.Args
	cmd.Env = environment(stage)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	return cmd, nil
}

func environment(stage string) []string {
	var variables []string
	for _, variable := range os.Environ() {
		if !strings.HasPrefix(variable, stageVariable+"=") {
			variables = append(variables, variable)
		}
	}
	return append(variables, stageVariable+"="+stage)
}

func exitCode(state *os.ProcessState) int {
	status := state.Sys().(syscall.WaitStatus)
	if status.Signaled() {
		return 128 + int(status.Signal())
	}
	return status.ExitStatus()
}

func fail(err error) int {
	fmt.Fprintf(os.Stderr, "%s: sandbox: %s\n", filepath.Base(os.Args[0]), err)
	return 1
}
