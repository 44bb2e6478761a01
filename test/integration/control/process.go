// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package control

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"syscall"
	"time"
)

const (
	// startTimeout and stopTimeout are far above what a busy machine takes.
	startTimeout = 90 * time.Second
	stopTimeout  = 20 * time.Second
)

// process is a test binary that runs until it is stopped.
type process struct {
	name   string
	cmd    *exec.Cmd
	log    *os.File
	ready  string
	exited chan struct{}
	err    error
}

// newProcess returns a process of a test binary. It is ready when the URL
// answers with status 200.
func newProcess(name, logs string, guard *guard, ready string, args ...string) (*process, error) {
	binary, err := guard.binary(name)
	if err != nil {
		return nil, err
	}
	log, err := createLog(logs, name)
	if err != nil {
		return nil, err
	}
	// Not CommandContext: the process is to outlive the context of the start.
	cmd := exec.Command(binary, args...) //nolint:gosec // the binary is what the test was given to run
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return &process{name: name, cmd: cmd, log: log, ready: ready, exited: make(chan struct{})}, nil
}

// start returns when the process is ready.
func (p *process) start(ctx context.Context) error {
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
			return fmt.Errorf("%s ended: %w\n%s", p.name, errors.Join(errors.New("not ready yet"), p.err), tail(p.log.Name()))
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w\n%s", p.name, ctx.Err(), tail(p.log.Name()))
		case <-tick.C:
			if isOK(ctx, p.ready) {
				return nil
			}
		}
	}
}

func (p *process) stop() error {
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

// prober asks processes whether they are ready. Their certificates are their
// own. One connection for each request leaves no idle ones, which a test that
// looks for leaked goroutines would find.
var prober = &http.Client{Transport: &http.Transport{
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

// freePorts returns ports of the loopback interface that are free now.
func freePorts(count int) ([]int, error) {
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
