// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

// Package process runs the programs that tests are made of: each writes a log of
// its own, is waited for until it is ready, and is ended by its process id. Which
// programs, and with which arguments, is the business of its callers.
package process

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"time"
)

const (
	// startTimeout and stopTimeout are far above what a busy machine takes.
	startTimeout = 90 * time.Second
	stopTimeout  = 20 * time.Second
)

// joinScript joins the control groups that it is given, and becomes the command
// behind the dashes.
const joinScript = `while [ "$1" != -- ]; do echo 0 >"$1/cgroup.procs"; shift; done; shift; exec "$@"`

// Process is a program that runs until it is stopped.
type Process struct {
	name   string
	cmd    *exec.Cmd
	log    *os.File
	ready  string
	exited chan struct{}
	err    error
}

// Options says what to run.
type Options struct {
	// Name is the process' name in errors, and that of its log file.
	Name string
	// Binary is the path of the program, Args are its arguments.
	Binary string
	Args   []string
	// LogDir is the folder of the log file, which replaces one of an earlier run.
	LogDir string
	// Cgroups are folders of control groups that the process joins before it starts.
	Cgroups []string
	// ReadyURL answers with status 200 when the process is ready. The process'
	// certificate is not verified.
	ReadyURL string
}

// New returns a process that is not started yet.
func New(options Options) (*Process, error) {
	log, err := CreateLog(options.LogDir, options.Name)
	if err != nil {
		return nil, err
	}
	// Not CommandContext: the process is to outlive the context of the start.
	cmd := exec.Command(options.Binary, options.Args...) //nolint:gosec // the binary is what the test was given to run
	if len(options.Cgroups) > 0 {
		arguments := slices.Concat([]string{"-ec", joinScript, "sh"}, options.Cgroups, []string{"--", options.Binary}, options.Args)
		cmd = exec.Command("sh", arguments...) //nolint:gosec // as above
	}
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return &Process{name: options.Name, cmd: cmd, log: log, ready: options.ReadyURL, exited: make(chan struct{})}, nil
}

// Start returns when the process is ready. After an error it still has to be
// stopped.
func (p *Process) Start(ctx context.Context) error {
	if err := p.cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", p.name, err)
	}
	go func() {
		defer close(p.exited)
		p.err = p.cmd.Wait()
	}()
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-p.exited:
			return fmt.Errorf("%s ended: %w\n%s", p.name, errors.Join(errors.New("not ready yet"), p.err), Tail(p.log.Name()))
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w\n%s", p.name, ctx.Err(), Tail(p.log.Name()))
		case <-tick.C:
			if isOK(ctx, p.ready) {
				return nil
			}
		}
	}
}

// Stop ends the process and waits for its end. It does nothing to a process that
// was not started or has ended.
func (p *Process) Stop() error {
	defer func() { _ = p.log.Close() }()
	if p.cmd.Process == nil {
		return nil
	}
	// An error means that it has ended already.
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.exited:
		return nil
	case <-time.After(stopTimeout):
		_ = p.cmd.Process.Kill()
		<-p.exited
		return fmt.Errorf("%s did not stop within %s and was killed", p.name, stopTimeout)
	}
}

// PID is the id of the process, or 0 before it was started.
func (p *Process) PID() int {
	if p.cmd.Process == nil {
		return 0
	}
	return p.cmd.Process.Pid
}

// prober asks processes whether they are ready. Their certificates are their
// own. One connection for each request leaves no idle ones, which a test that
// looks for leaked goroutines would find.
var prober = &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{
	DisableKeepAlives: true,
	TLSClientConfig:   &tls.Config{InsecureSkipVerify: true}, //nolint:gosec // a process that this one started, on the loopback interface
}}

func isOK(ctx context.Context, url string) bool {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return false
	}
	response, err := prober.Do(request)
	if err != nil {
		return false
	}
	_ = response.Body.Close()
	return response.StatusCode == http.StatusOK
}

// FreePorts returns ports of the loopback interface that are free now.
func FreePorts(count int) ([]int, error) {
	ports := make([]int, 0, count)
	for range count {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, fmt.Errorf("find a free port: %w", err)
		}
		// Closed only after all were taken, so that they differ.
		defer func() { _ = listener.Close() }()
		ports = append(ports, listener.Addr().(*net.TCPAddr).Port)
	}
	return ports, nil
}

// CreateLog creates the log file of a process, in place of one of an earlier run.
func CreateLog(dir, process string) (*os.File, error) {
	file, err := os.Create(filepath.Join(dir, process+".log")) //nolint:gosec // the caller chose the folder
	if err != nil {
		return nil, fmt.Errorf("create log of %s: %w", process, err)
	}
	return file, nil
}

// Tail returns the end of a log, for the error about the process that wrote it.
func Tail(path string) string {
	content, err := os.ReadFile(path) //nolint:gosec // a file that CreateLog created
	if err != nil {
		return err.Error()
	}
	return string(content[max(0, len(content)-4096):])
}
