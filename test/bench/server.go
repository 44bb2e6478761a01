// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package main

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
	"syscall"
	"time"
)

const (
	startTimeout = 30 * time.Second
	stopTimeout  = 10 * time.Second
)

// server is a process that serves until it is stopped.
type server struct {
	launch
	name   string
	cmd    *exec.Cmd
	exited chan struct{}
	log    string
}

// start returns when the process is ready.
func (p *program) start(ctx context.Context, l launch) (*server, error) {
	var err error
	if l.address, l.debugAddress, err = freeAddresses(ctx); err != nil {
		return nil, err
	}
	args, err := p.configure(l)
	if err != nil {
		return nil, err
	}
	s := &server{launch: l, name: p.name, exited: make(chan struct{}), log: filepath.Join(l.dir, "log")}
	if err := s.spawn(p.binary, args); err != nil {
		return nil, err
	}
	if err := s.waitReady(ctx, p.ready(l)); err != nil {
		return nil, errors.Join(err, s.stop())
	}
	return s, nil
}

func (s *server) spawn(binary string, args []string) error {
	log, err := os.OpenFile(s.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("open the log of %s: %w", s.name, err)
	}
	defer func() { _ = log.Close() }() // the process has a descriptor of its own
	// Not CommandContext: stop ends it, gently.
	s.cmd = exec.Command(binary, args...) //nolint:gosec // whoever runs the bench names the binaries
	s.cmd.Stdout, s.cmd.Stderr = log, log
	// Nothing of the caller's settings, such as GOGC or a proxy. Stock would look
	// for a collector of traces on this machine.
	s.cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "OTEL_TRACES_EXPORTER=none"}
	s.cmd.SysProcAttr = &syscall.SysProcAttr{
		Setpgid:   true,            // Ctrl-C is for us, who stop it then
		Pdeathsig: syscall.SIGKILL, // should we be killed
	}
	if err := s.cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", s.name, err)
	}
	go func() {
		defer close(s.exited)
		_ = s.cmd.Wait() // that it ended is an error, however it did
	}()
	return nil
}

func (s *server) waitReady(ctx context.Context, url string) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	transport := &http.Transport{DisableKeepAlives: true}
	if s.certificate != nil {
		transport.TLSClientConfig = &tls.Config{RootCAs: s.certificate.roots, MinVersion: tls.VersionTLS13}
	}
	for !answers(ctx, transport, url) {
		select {
		case <-s.exited:
			return fmt.Errorf("%s ended before it was ready:\n%s", s.name, s.tail())
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w\n%s", s.name, context.Cause(ctx), s.tail())
		case <-time.After(20 * time.Millisecond):
		}
	}
	return nil
}

func answers(ctx context.Context, transport *http.Transport, url string) bool {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return false
	}
	response, err := transport.RoundTrip(request)
	if err != nil {
		return false
	}
	_ = response.Body.Close()
	return response.StatusCode == http.StatusOK
}

// stop ends the process and waits for its end.
func (s *server) stop() error {
	// An error means that it has ended already.
	_ = s.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-s.exited:
		return nil
	case <-time.After(stopTimeout):
		_ = s.cmd.Process.Kill()
		<-s.exited
		return fmt.Errorf("%s did not stop within %s and was killed", s.name, stopTimeout)
	}
}

// explain adds what the process logged to an error.
func (s *server) explain(err error) error {
	if err == nil {
		return nil
	}
	if tail := s.tail(); tail != "" {
		return fmt.Errorf("%w\n%s logged:\n%s", err, s.name, tail)
	}
	return err
}

func (s *server) tail() string {
	raw, err := os.ReadFile(s.log)
	if err != nil {
		return err.Error()
	}
	return string(raw[max(0, len(raw)-2048):])
}

// freeAddresses returns two addresses that nobody listens on now.
func freeAddresses(ctx context.Context) (first, second string, err error) {
	addresses := make([]string, 2)
	for i := range addresses {
		listener, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
		if err != nil {
			return "", "", fmt.Errorf("find a free port: %w", err)
		}
		// Closed only when both are known, so that they differ.
		defer func() { _ = listener.Close() }()
		addresses[i] = listener.Addr().String()
	}
	return addresses[0], addresses[1], nil
}
