// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package control

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/gardener/gardener-extension-registry-cache/test/process"
)

// guardScript waits for a line on its standard input. When the input ends
// without one, the process that holds its other end has died: then it kills the
// processes whose ids were recorded, and removes their folder. An id is only
// trusted while its command line names the folder, lest another process got it.
const guardScript = `
if read -r _; then exit 0; fi
while read -r pid; do
  if grep -qF "$1" "/proc/$pid/cmdline" 2>/dev/null; then kill -9 "$pid" 2>/dev/null; fi
done <"$1/pids"
rm -rf "$1"
`

// recordScript becomes the binary after it has recorded its process id.
const recordScript = `#!/bin/sh
echo $$ >>%s
exec %s "$@"
`

// guard is a process that outlives this one just long enough to end all that
// this one has started. Signal handlers could not do that: a test binary also
// dies of a panic, of go test's timeout, and of SIGKILL.
type guard struct {
	dir      string
	binaries map[string]string
	cmd      *exec.Cmd
	stdin    io.WriteCloser
}

func startGuard(dir string) (*guard, error) {
	// Known before anything runs: a missing binary is the commonest mistake.
	g := &guard{dir: dir, binaries: map[string]string{}}
	for _, name := range []string{"etcd", "kube-apiserver", "kube-controller-manager", "gardener-resource-manager"} {
		path, err := process.FindBinary(name)
		if err != nil {
			return nil, err
		}
		g.binaries[name] = path
	}
	if err := os.WriteFile(g.pids(), nil, 0o600); err != nil {
		return nil, fmt.Errorf("create list of processes: %w", err)
	}
	g.cmd = exec.Command("sh", "-c", guardScript, "sh", dir) //nolint:gosec // dir is a temporary folder of ours
	// A group of its own, for Ctrl-C at a terminal is sent to the whole group.
	g.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	var err error
	if g.stdin, err = g.cmd.StdinPipe(); err != nil {
		return nil, fmt.Errorf("create pipe to guard: %w", err)
	}
	if err := g.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start guard: %w", err)
	}
	return g, nil
}

// binary returns the path of an executable that records its process id with the
// guard and becomes the named test binary.
func (g *guard) binary(name string) (string, error) {
	script, err := os.CreateTemp(g.dir, name+"-")
	if err != nil {
		return "", fmt.Errorf("create start script of %s: %w", name, err)
	}
	_, err = fmt.Fprintf(script, recordScript, quote(g.pids()), quote(g.binaries[name]))
	if closeErr := script.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = os.Chmod(script.Name(), 0o700) //nolint:gosec // it is to be executed
	}
	if err != nil {
		return "", fmt.Errorf("write start script of %s: %w", name, err)
	}
	return script.Name(), nil
}

// dismiss ends the guard without its doing anything.
func (g *guard) dismiss() error {
	_, err := io.WriteString(g.stdin, "dismissed\n")
	if closeErr := g.stdin.Close(); err == nil {
		err = closeErr
	}
	if waitErr := g.cmd.Wait(); err == nil {
		err = waitErr
	}
	if err != nil {
		return fmt.Errorf("dismiss guard: %w", err)
	}
	return nil
}

func (g *guard) pids() string { return filepath.Join(g.dir, "pids") }

// quote makes one word of a POSIX shell of a string.
func quote(s string) string {
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
