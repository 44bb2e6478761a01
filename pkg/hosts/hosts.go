// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

// Package hosts knows everything that lands on a node: the fragments of each
// upstream's hosts.toml, the CA bundles they refer to, the script that keeps
// containerd's hosts.toml equal to the fragments whose host answers, and the
// systemd unit that runs it.
//
// It is pure: where the registries come from, and how the files reach an
// OperatingSystemConfig, belongs in the webhook. It knows neither Gardener nor
// Kubernetes.
package hosts

import (
	"cmp"
	_ "embed"
	"fmt"
	"path"
	"slices"
)

const (
	// Directory is where node-agent puts all files of ours. Its name is also in
	// the script and in the unit.
	Directory  = "/var/lib/registry-hosts"
	scriptName = "registry-hosts.sh"

	fileMode = 0o644
)

//go:embed registry-hosts.sh
var script []byte

// Kind says what a host is, which decides how early it is tried, the name of its
// fragment, and which answer to a probe shows that it is alive. The zero value
// is Cache.
type Kind int

const (
	// Cache is the pull-through cache of the Shoot. It is alive if it answers
	// GET /v2/ with status 200.
	Cache Kind = iota
	// Mirror is any other registry. It is alive if it gives any HTTP answer, as
	// many answer an anonymous GET /v2/ with 401 or 404.
	Mirror
)

// Registry is what a node is to know about one upstream.
type Registry struct {
	// Upstream is the registry as in image names, for example docker.io or
	// myhost:5000.
	Upstream string
	// Server is the URL of the upstream itself, which containerd tries last. If
	// it is empty, containerd derives it from Upstream.
	Server string
	// Hosts are tried in this order, before Server: at most one cache, which
	// comes first, and at most 99 mirrors. A URL that comes again counts at its
	// first place only. Without hosts the node goes to the upstream directly.
	Hosts []Host
}

// Host is one registry that serves the images of an upstream.
type Host struct {
	Kind Kind
	// URL is an http or https URL, with a path if the host serves the upstream
	// below one.
	URL string
	// Capabilities are containerd's: pull, resolve, push. Their order does not
	// matter. If there are none, containerd uses the host for everything.
	Capabilities []string
	// CABundle are PEM certificates that are trusted for this host besides the
	// node's own. It may be empty, and means nothing for an http URL.
	CABundle []byte
	// OverridePath says that the path of URL is complete, that is, that
	// containerd is not to append /v2 to it. nil is containerd's default, false.
	OverridePath *bool
}

// File is a file to be put on the node.
type File struct {
	// Path is absolute.
	Path string
	// Mode are the permission bits.
	Mode uint32
	// Content is never to be modified: it may be shared.
	Content []byte
}

// Files returns all files that a node needs for the registries: the script, the
// fragments and the CA bundles, sorted by path. Equal input gives equal output,
// and the order of registries does not matter. An error names the upstream of
// which containerd or the script could not make sense.
func Files(registries []Registry) ([]File, error) {
	return render(Directory, registries)
}

// render is Files for a directory of choice.
func render(dir string, registries []Registry) ([]File, error) {
	contents := map[string][]byte{path.Join(dir, scriptName): script}
	seen := map[string]bool{}
	for _, registry := range registries {
		if seen[registry.Upstream] {
			return nil, fmt.Errorf("upstream %q: configured twice", registry.Upstream)
		}
		seen[registry.Upstream] = true
		if err := addRegistry(contents, dir, registry); err != nil {
			return nil, fmt.Errorf("upstream %q: %w", registry.Upstream, err)
		}
	}

	files := make([]File, 0, len(contents))
	for name, content := range contents {
		files = append(files, File{Path: name, Mode: fileMode, Content: content})
	}
	slices.SortFunc(files, func(a, b File) int { return cmp.Compare(a.Path, b.Path) })
	return files, nil
}
