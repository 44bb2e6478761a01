// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/gardener/gardener-extension-registry-cache/test/sandbox"
)

// Scripts are programs by which a person, who has to be root, enters the cluster
// from outside of the sandbox: each runs its arguments, or a shell.
type Scripts struct {
	// Seed and Shoot have KUBECONFIG set to an administrator's access.
	Seed, Shoot string
	// Node is on the node.
	Node string
}

// EnterScripts writes the scripts.
func (c *Cluster) EnterScripts(box *sandbox.Sandbox) (Scripts, error) {
	scripts := Scripts{
		Seed: filepath.Join(box.Dir, "seed"), Shoot: filepath.Join(box.Dir, "shoot"), Node: filepath.Join(box.Dir, "node-shell"),
	}
	enter := fmt.Sprintf("nsenter --target %d --mount --net --pid --uts --ipc --", box.PID)
	path := fmt.Sprintf(`PATH="%s:$PATH"`, filepath.Dir(c.binaries["kubectl"]))
	for file, command := range map[string]string{
		scripts.Seed:  fmt.Sprintf(`%s env %s KUBECONFIG="%s"`, enter, path, c.Seed.KubeconfigFile),
		scripts.Shoot: fmt.Sprintf(`%s env %s KUBECONFIG="%s"`, enter, path, c.Shoot.KubeconfigFile),
		scripts.Node:  enter + " nsenter " + strings.Join(c.Node.enter(), " ") + " KUBECONFIG=" + adminKubeconfig,
	} {
		content := "#!/bin/sh\n[ $# -gt 0 ] || set -- bash\nexec " + command + " \"$@\"\n"
		if err := os.WriteFile(file, []byte(content), 0o700); err != nil { //nolint:gosec // a program
			return Scripts{}, fmt.Errorf("write script: %w", err)
		}
	}
	return scripts, nil
}
