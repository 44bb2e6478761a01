// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

// Command demo shows the main job on a real cluster, as a story: a Shoot gets a
// registry cache, and the pods on its node pull through it. `make demo` builds
// what it needs and runs it in the repository's folder.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/go-logr/logr"
	"github.com/sirupsen/logrus"
	logf "sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/gardener/gardener-extension-registry-cache/test/cluster"
	"github.com/gardener/gardener-extension-registry-cache/test/landscape"
	"github.com/gardener/gardener-extension-registry-cache/test/sandbox"
)

// timeout bounds the story; it takes about a minute.
const timeout = 10 * time.Minute

func main() {
	os.Exit(cluster.Run(inside, unsupported))
}

func unsupported(err error) int {
	fmt.Fprintln(os.Stderr, "The demo cannot run on this machine:", err)
	return 1
}

func inside(box *sandbox.Sandbox) int {
	// The registries of the demo log each request, and libraries want to log too.
	logrus.SetOutput(io.Discard)
	logf.SetLogger(logr.Discard())
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	keep := os.Getenv("KEEP") != ""
	s := newStory(os.Stdout)
	err := s.tell(ctx, box)
	if err == nil && keep {
		err = s.bringBack(ctx)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
	}
	if keep && s.landscape != nil {
		if err := explain(os.Stdout, box, s.landscape); err != nil {
			fmt.Fprintln(os.Stderr, "error:", err)
			return 1
		}
		// Until the sandbox is ended from outside.
		select {}
	}
	if err != nil {
		return 1
	}
	return 0
}

// explain says how to look around in a landscape.
func explain(out *os.File, box *sandbox.Sandbox, l *landscape.Landscape) error {
	scripts, err := l.EnterScripts(box)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, `
All of it stays up until you press Ctrl-C. In another terminal, as root:

  %[1]s   a shell with KUBECONFIG for the Seed; with arguments, a command:
    %[1]s kubectl get extensions,managedresources -A
  %[2]s   the same for the Shoot:
    %[2]s kubectl get statefulsets,pods,services -n kube-system
  %[3]s   a shell on the node:
    %[3]s cat /etc/containerd/certs.d/%[4]s/hosts.toml
    %[3]s journalctl -u registry-hosts -f

KUBECONFIGs (their addresses are those of the demo's own network): %[5]s, %[6]s
Logs of all that is not on the node: %[7]s
`, scripts.Seed, scripts.Shoot, scripts.Node, upstreamHost, l.Seed.KubeconfigFile, l.Shoot.KubeconfigFile, l.Logs)
	return err
}
