// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package scale_test

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	. "github.com/onsi/gomega"
)

// memory is an amount of memory in bytes.
type memory int64

// ticksPerSecond is the unit of times in /proc, the same on all of Linux that Go runs on.
const ticksPerSecond = 100

// cpuTime is what a process has used, in its own code and in the kernel.
func cpuTime(pid int) time.Duration {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	Expect(err).NotTo(HaveOccurred())
	// The name in parentheses may have spaces. See proc(5): utime and stime are the 14th
	// and 15th field, the name is the 2nd.
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	ticks := 0
	for _, field := range fields[11:13] {
		number, err := strconv.Atoi(field)
		Expect(err).NotTo(HaveOccurred())
		ticks += number
	}
	return time.Duration(ticks) * time.Second / ticksPerSecond
}

func residentMemory(pid int) memory { return statusMemory(pid, "VmRSS") }

// peakMemory is the most that a process had since resetPeakMemory.
func peakMemory(pid int) memory { return statusMemory(pid, "VmHWM") }

func resetPeakMemory(pid int) {
	Expect(os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", pid), []byte("5"), 0)).To(Succeed())
}

func statusMemory(pid int, name string) memory {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	Expect(err).NotTo(HaveOccurred())
	for line := range strings.Lines(string(status)) {
		if rest, found := strings.CutPrefix(line, name+":"); found {
			kilobytes, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			Expect(err).NotTo(HaveOccurred())
			return memory(kilobytes << 10)
		}
	}
	Expect(name).To(BeEmpty(), "not in /proc/%d/status", pid)
	return 0
}

func openFiles(pid int) int {
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	Expect(err).NotTo(HaveOccurred())
	return len(entries)
}
