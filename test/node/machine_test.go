// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package node_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"golang.org/x/sys/unix"
)

const (
	upstreamAddress = "10.250.1.1"
	// mirrorAddress and otherMirrorAddress are anywhere in the internet.
	mirrorAddress      = "10.250.2.1"
	otherMirrorAddress = "10.250.2.2"
	// cacheAddress is the cluster IP of a Service, newCacheAddress that of the
	// Service that takes its place.
	cacheAddress    = "10.96.0.10"
	newCacheAddress = "10.96.0.11"

	// cachedName and directName are names of the same upstream. Nobody configures
	// hosts for the second one.
	cachedName = "registry.example.com"
	directName = "direct.example.com"
	// mirrorName and otherMirrorName are those of mirrors.
	mirrorName      = "mirror.example.com"
	otherMirrorName = "other-mirror.example.com"
	// domain has all names.
	domain = "*.example.com"

	certsDir  = "/etc/containerd/certs.d"
	hostsFile = "/etc/hosts"
	// trustedRoots is where programs in Go, and curl on Debian, look for
	// certificate authorities.
	trustedRoots = "/etc/ssl/certs/ca-certificates.crt"
	dropped      = "inet faults dropped"
)

// moreNames are further names of the upstream, for specs about several.
var moreNames = []string{"one.example.com", "two.example.com", "three.example.com", "four.example.com"}

// memory is where all daemons have their files, so that figures are not those of
// a disk.
func memory() string { return filepath.Join(box.Dir, "memory") }

func logDir() string { return filepath.Join(box.Dir, "logs") }

// folder makes a folder for a daemon.
func folder(name string) string {
	GinkgoHelper()
	dir, err := os.MkdirTemp(memory(), name+"-")
	Expect(err).NotTo(HaveOccurred())
	return dir
}

// prepareMachine has the sandbox look like a node: the fixed paths of a node can
// be written without a trace on the machine, and there are addresses.
func prepareMachine(ctx context.Context) {
	GinkgoHelper()
	for _, dir := range []string{memory(), logDir()} {
		Expect(os.Mkdir(dir, 0o755)).To(Succeed())
	}
	Expect(unix.Mount("tmpfs", memory(), "tmpfs", 0, "")).To(Succeed())
	for _, dir := range []string{"/etc", "/run", "/var/lib"} {
		upper, work := folder("upper"), folder("work")
		Expect(os.Chmod(upper, 0o755)).To(Succeed())
		options := fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", dir, upper, work)
		Expect(unix.Mount("overlay", dir, "overlay", 0, options)).To(Succeed(), dir)
	}
	Expect(os.MkdirAll(certsDir, 0o755)).To(Succeed())
	// At once, as programs in Go read this file every few seconds only.
	names := []string{"127.0.0.1 localhost", mirrorAddress + " " + mirrorName, otherMirrorAddress + " " + otherMirrorName}
	for _, name := range append([]string{cachedName, directName}, moreNames...) {
		names = append(names, upstreamAddress+" "+name)
	}
	Expect(os.WriteFile(hostsFile, []byte(strings.Join(names, "\n")+"\n"), 0o644)).To(Succeed())

	for _, address := range []string{upstreamAddress, mirrorAddress, otherMirrorAddress, cacheAddress, newCacheAddress} {
		run(ctx, "ip", "addr", "add", address+"/32", "dev", "lo")
	}
	run(ctx, "nft", "add table inet faults")
	run(ctx, "nft", "add set "+dropped+" { type ipv4_addr; }")
	run(ctx, "nft", "add chain inet faults input { type filter hook input priority 0; }")
	run(ctx, "nft", "add rule inet faults input ip daddr @dropped drop")
}

// dropPackets has all packets to an address vanish until deliverPackets.
func dropPackets(ctx context.Context, address string) {
	GinkgoHelper()
	run(ctx, "nft", "add element "+dropped+" { "+address+" }")
	DeferCleanup(func(ctx SpecContext) { run(ctx, "nft", "flush set "+dropped) })
}

func deliverPackets(ctx context.Context) {
	GinkgoHelper()
	run(ctx, "nft", "flush set "+dropped)
}

// trust has the whole machine trust a certificate authority.
func trust(a *authority) {
	GinkgoHelper()
	roots, err := os.ReadFile(trustedRoots)
	if err != nil {
		Expect(err).To(MatchError(os.ErrNotExist))
	}
	Expect(os.MkdirAll(filepath.Dir(trustedRoots), 0o755)).To(Succeed())
	Expect(os.WriteFile(trustedRoots, append(roots, a.pem...), 0o644)).To(Succeed())
}

func run(ctx context.Context, program string, arguments ...string) {
	GinkgoHelper()
	output, err := exec.CommandContext(ctx, program, arguments...).CombinedOutput()
	Expect(err).NotTo(HaveOccurred(), "%s %s: %s", program, strings.Join(arguments, " "), output)
}
