// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

const (
	// ticksPerSecond is what the kernel tells CPU time in, on all machines that Go
	// runs on.
	ticksPerSecond = 100
	sampleInterval = 50 * time.Millisecond
)

// memory is the peak memory of a process, in bytes.
type memory struct {
	// resident is all of it, pages of the binary that are mapped included.
	resident int64
	// anonymous is the largest sample of that part which is no page of a file.
	anonymous int64
}

// cpuTime is the CPU time that the process has used, in user space and kernel.
func (s *server) cpuTime() (time.Duration, error) {
	raw, err := os.ReadFile(s.proc("stat"))
	if err != nil {
		return 0, fmt.Errorf("read CPU time of %s: %w", s.name, err)
	}
	return parseCPUTime(raw)
}

// parseCPUTime reads utime and stime, see proc_pid_stat(5). The second field, in
// parentheses, may have anything in it.
func parseCPUTime(stat []byte) (time.Duration, error) {
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	const utime, stime = 11, 12
	if len(fields) <= stime {
		return 0, fmt.Errorf("read CPU time: %q is too short", stat)
	}
	var ticks int64
	for _, field := range fields[utime : stime+1] {
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("read CPU time: %w", err)
		}
		ticks += n
	}
	return time.Duration(ticks) * time.Second / ticksPerSecond, nil
}

// watchMemory measures until the returned function is called.
func (s *server) watchMemory(ctx context.Context) func() (memory, error) {
	ctx, cancel := context.WithCancel(ctx)
	peak := make(chan int64, 1)
	go func() {
		var largest int64
		for {
			// Once the process has ended there is nothing more to see.
			if now, err := s.status("RssAnon"); err == nil {
				largest = max(largest, now)
			}
			if sleep(ctx, sampleInterval) != nil {
				peak <- largest
				return
			}
		}
	}()
	return func() (memory, error) {
		cancel()
		anonymous := <-peak
		resident, err := s.status("VmHWM")
		return memory{resident: resident, anonymous: anonymous}, err
	}
}

// status reads a field of /proc/PID/status, in bytes.
func (s *server) status(field string) (int64, error) {
	raw, err := os.ReadFile(s.proc("status"))
	if err != nil {
		return 0, fmt.Errorf("read memory of %s: %w", s.name, err)
	}
	for line := range strings.Lines(string(raw)) {
		var kibibytes int64
		if _, err := fmt.Sscanf(line, field+": %d kB", &kibibytes); err == nil {
			return kibibytes << 10, nil
		}
	}
	return 0, fmt.Errorf("read memory of %s: no %s", s.name, field)
}

func (s *server) proc(file string) string {
	return fmt.Sprintf("/proc/%d/%s", s.cmd.Process.Pid, file)
}
