// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package control

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/gardener/gardener-extension-registry-cache/test/process"
)

// controllers are those of kube-controller-manager that the life of a
// StatefulSet and of its pods and claims needs.
var controllers = []string{
	"disruption-controller",
	"garbage-collector-controller",
	"persistentvolumeclaim-protection-controller",
	"serviceaccount-controller",
	"statefulset-controller",
}

// newControllerManager returns the process that runs the controllers of the
// Shoot.
func newControllerManager(dir, logs string, guard *guard, shoot []byte) (*process.Process, error) {
	const name = "kube-controller-manager"
	dir = filepath.Join(dir, name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("create folder of %s: %w", name, err)
	}
	kubeconfig := filepath.Join(dir, "kubeconfig")
	if err := os.WriteFile(kubeconfig, shoot, 0o600); err != nil {
		return nil, fmt.Errorf("write kubeconfig of %s: %w", name, err)
	}
	ports, err := process.FreePorts(1)
	if err != nil {
		return nil, err
	}
	binary, err := guard.binary(name)
	if err != nil {
		return nil, err
	}
	return process.New(process.Options{Name: name, Binary: binary, LogDir: logs, ReadyURL: fmt.Sprintf("https://127.0.0.1:%d/healthz", ports[0]), Args: []string{
		"--kubeconfig=" + kubeconfig,
		"--authentication-kubeconfig=" + kubeconfig,
		"--authorization-kubeconfig=" + kubeconfig,
		"--bind-address=127.0.0.1",
		fmt.Sprintf("--secure-port=%d", ports[0]),
		"--cert-dir=" + dir,
		"--leader-elect=false",
		"--use-service-account-credentials=false",
		"--controllers=" + strings.Join(controllers, ","),
	}})
}
