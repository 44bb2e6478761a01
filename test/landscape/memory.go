// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package landscape

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"

	"k8s.io/client-go/kubernetes"
	statsv1alpha1 "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
	"k8s.io/utils/ptr"

	"github.com/gardener/gardener-extension-registry-cache/test/cluster"
)

// Memory is what a program takes of a machine's memory, in bytes.
type Memory struct {
	// WorkingSet is what Kubernetes counts for a pod.
	WorkingSet uint64
	// Resident are all pages that are in memory, Anonymous those of them that are
	// not of a file such as the binary.
	Resident, Anonymous uint64
}

func (m Memory) String() string {
	return fmt.Sprintf("working set %.1f MiB; resident %.1f MiB, of which anonymous %.1f MiB",
		float64(m.WorkingSet)/(1<<20), float64(m.Resident)/(1<<20), float64(m.Anonymous)/(1<<20))
}

// ControllerMemory is the memory of our controller.
func (l *Landscape) ControllerMemory() (Memory, error) {
	memory, err := processMemory(l.controller.PID())
	if err != nil {
		return Memory{}, err
	}
	memory.WorkingSet, err = l.cgroups.WorkingSet()
	return memory, err
}

// CacheMemory is the memory of the pod of an upstream's cache. The kubelet knows
// it some seconds after the pod has started.
func (l *Landscape) CacheMemory(ctx context.Context, upstream string) (Memory, error) {
	pod, err := l.Pod(ctx, upstream)
	if err != nil {
		return Memory{}, err
	}
	pid, err := l.CacheProcess(ctx, upstream)
	if err != nil {
		return Memory{}, err
	}
	memory, err := processMemory(pid)
	if err != nil {
		return Memory{}, err
	}
	clientset, err := kubernetes.NewForConfig(l.Shoot.Config)
	if err != nil {
		return Memory{}, fmt.Errorf("create client for statistics: %w", err)
	}
	content, err := clientset.CoreV1().RESTClient().Get().Resource("nodes").Name(cluster.NodeName).SubResource("proxy").Suffix("stats/summary").DoRaw(ctx)
	if err != nil {
		return Memory{}, fmt.Errorf("read statistics of the node: %w", err)
	}
	var summary statsv1alpha1.Summary
	if err := json.Unmarshal(content, &summary); err != nil {
		return Memory{}, fmt.Errorf("parse statistics of the node: %w", err)
	}
	for _, stats := range summary.Pods {
		if stats.PodRef.UID == string(pod.UID) && stats.Memory != nil && ptr.Deref(stats.Memory.WorkingSetBytes, 0) > 0 {
			memory.WorkingSet = *stats.Memory.WorkingSetBytes
			return memory, nil
		}
	}
	return Memory{}, errors.New("the kubelet has no statistics of the pod yet")
}

func processMemory(pid int) (Memory, error) {
	file, err := os.Open(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return Memory{}, fmt.Errorf("read memory of a process: %w", err)
	}
	defer func() { _ = file.Close() }()
	memory := Memory{}
	for scanner := bufio.NewScanner(file); scanner.Scan(); {
		name, value, _ := strings.Cut(scanner.Text(), ":")
		var kibibytes uint64
		if _, err := fmt.Sscanf(strings.TrimSpace(value), "%d kB", &kibibytes); err != nil {
			continue
		}
		switch name {
		case "VmRSS":
			memory.Resident = kibibytes << 10
		case "RssAnon":
			memory.Anonymous = kibibytes << 10
		}
	}
	if memory.Resident == 0 {
		return Memory{}, fmt.Errorf("process %d has no memory", pid)
	}
	return memory, nil
}
