// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"debug/buildinfo"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"time"
)

// describe returns lines about the machine and the programs.
func describe(ctx context.Context, o options) ([]string, error) {
	cache, err := buildinfo.ReadFile(o.cache)
	if err != nil {
		return nil, fmt.Errorf("read about our cache: %w", err)
	}
	stock, err := buildinfo.ReadFile(o.stock)
	if err != nil {
		return nil, fmt.Errorf("read about the stock registry: %w", err)
	}
	// It prints its version to the standard error.
	nginx, err := exec.CommandContext(ctx, o.nginx, "-v").CombinedOutput() //nolint:gosec // whoever runs the bench names the binaries
	if err != nil {
		return nil, fmt.Errorf("ask nginx for its version: %w", err)
	}
	_, nginxVersion, _ := strings.Cut(strings.TrimSpace(string(nginx)), "nginx/")
	return []string{
		"Date: " + time.Now().UTC().Format("2006-01-02 15:04 MST"),
		fmt.Sprintf("Machine: %d cores, %s, Linux %s, load %s before", runtime.NumCPU(), firstValue("/proc/cpuinfo", "model name"),
			firstLine("/proc/sys/kernel/osrelease"), firstWord(firstLine("/proc/loadavg"))),
		fmt.Sprintf("Ours: %s, built with %s", o.cacheVersion, cache.GoVersion),
		fmt.Sprintf("Stock: distribution %s, built with %s", stock.Main.Version, stock.GoVersion),
		"nginx: " + nginxVersion,
		"To repeat: `make bench`; some experiments: `hack/bench.sh REGEXP`, with a regular expression of " + strings.Join(experimentNames(), ", "),
	}, nil
}

func firstWord(text string) string {
	word, _, _ := strings.Cut(text, " ")
	return word
}

// firstLine is empty if there is no such file: not all machines have all.
func firstLine(file string) string {
	raw, err := os.ReadFile(file) //nolint:gosec // files of the kernel's
	if err != nil {
		return ""
	}
	line, _, _ := strings.Cut(string(raw), "\n")
	return line
}

// firstValue returns what a file of names and values says about a name.
func firstValue(file, name string) string {
	raw, err := os.ReadFile(file) //nolint:gosec // files of the kernel's
	if err != nil {
		return "unknown"
	}
	for line := range strings.Lines(string(raw)) {
		key, value, _ := strings.Cut(line, ":")
		if strings.TrimSpace(key) == name {
			return strings.TrimSpace(value)
		}
	}
	return "unknown"
}
