// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package hosts

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"
)

const (
	// marker is the first line of every hosts.toml of ours. The script touches
	// no other hosts.toml, so a version that changes the marker leaves the files
	// of its predecessor behind.
	marker = "# Written by registry-hosts.service, which replaces and removes this file.\n"

	// dialTimeout bounds what a host costs whose packets are dropped, until the
	// script has noticed. containerd knows it since 2.1, older ones ignore it.
	dialTimeout = "1s"

	// probePrefix starts the first line of a host's fragment, which tells the
	// script what shows that the host is alive. Three words follow: the expected
	// status (or anyStatus), the URL to GET, and the file of the CA bundle (or
	// noBundle).
	probePrefix = "# probe: "
	anyStatus   = "any"
	noBundle    = "-"

	headerName = "00-server.toml"
	cacheName  = "10-cache.toml"
	mirrorName = "20-mirror-%02d.toml"
	maxMirrors = 99

	// maxFileName is what Linux allows for the name of a directory entry.
	maxFileName = 255
)

var (
	upstreamPattern = regexp.MustCompile(`^[a-zA-Z0-9]([a-zA-Z0-9._-]*[a-zA-Z0-9])?(:[0-9]+)?$`)
	// urlPattern keeps out what has a meaning in the fragment's probe line or in
	// curl's configuration file: spaces, quotes, backslashes, control characters.
	urlPattern = regexp.MustCompile(`^[!#-\[\]-~]+$`)

	// Containerd rejects a whole hosts.toml for one capability that it does not
	// know, and the oldest that Shoots run knows these.
	capabilities = []string{"pull", "push", "resolve"}
)

// header is the start of a hosts.toml.
type header struct {
	Server string `toml:"server,omitempty"`
}

// fragment is a piece of a hosts.toml with one host.
type fragment struct {
	Host map[string]hostTable `toml:"host"`
}

// hostTable is what containerd reads about one host.
type hostTable struct {
	Capabilities []string `toml:"capabilities,omitempty"`
	CA           string   `toml:"ca,omitempty"`
	OverridePath *bool    `toml:"override_path,omitempty"`
	DialTimeout  string   `toml:"dial_timeout"`
}

// addRegistry adds the files of one registry to contents, whose keys are paths.
func addRegistry(contents map[string][]byte, dir string, registry Registry) error {
	if err := checkUpstream(registry.Upstream); err != nil {
		return err
	}
	head, err := renderHeader(registry.Server)
	if err != nil {
		return err
	}
	contents[path.Join(dir, registry.Upstream, headerName)] = head

	mirrors := 0
	seen := map[string]bool{}
	for i, host := range registry.Hosts {
		hostURL, err := normalizeURL(host.URL)
		if err != nil {
			// Without the URL, which may hold a password.
			return fmt.Errorf("host %d: %w", i+1, err)
		}
		if seen[hostURL] {
			continue
		}
		seen[hostURL] = true
		host.URL = hostURL

		name := cacheName
		switch {
		case host.Kind == Mirror:
			mirrors++
			name = fmt.Sprintf(mirrorName, mirrors)
		case i > 0:
			return fmt.Errorf("host %q: only the first host may be a cache", host.URL)
		}
		if mirrors > maxMirrors {
			return fmt.Errorf("more than %d mirrors", maxMirrors)
		}
		if err := addHost(contents, dir, path.Join(dir, registry.Upstream, name), host); err != nil {
			return fmt.Errorf("host %q: %w", host.URL, err)
		}
	}
	return nil
}

// addHost adds a host's fragment under name, and its CA bundle if it has one.
func addHost(contents map[string][]byte, dir, name string, host Host) error {
	table := hostTable{OverridePath: host.OverridePath, DialTimeout: dialTimeout}

	for _, capability := range host.Capabilities {
		if !slices.Contains(capabilities, capability) {
			return fmt.Errorf("unknown capability %q", capability)
		}
	}
	table.Capabilities = slices.Compact(slices.Sorted(slices.Values(host.Capabilities)))

	// With a CA, containerd would try TLS first at an http URL too.
	if len(host.CABundle) > 0 && strings.HasPrefix(host.URL, "https:") {
		// Not only this host: containerd fails every pull from the upstream if one
		// of its hosts has a bundle without a certificate.
		if !x509.NewCertPool().AppendCertsFromPEM(host.CABundle) {
			return errors.New("the CA bundle contains no certificate")
		}
		hash := sha256.Sum256(host.CABundle)
		table.CA = path.Join(dir, "ca", hex.EncodeToString(hash[:16])+".crt")
		contents[table.CA] = host.CABundle
	}

	content, err := renderFragment(host, table)
	if err != nil {
		return err
	}
	contents[name] = content
	return nil
}

// renderHeader returns the part of a hosts.toml that comes before its hosts.
func renderHeader(server string) ([]byte, error) {
	var head header
	if server != "" {
		serverURL, err := normalizeURL(server)
		if err != nil {
			return nil, fmt.Errorf("server: %w", err)
		}
		head.Server = serverURL
	}
	content, err := toml.Marshal(head)
	if err != nil {
		return nil, fmt.Errorf("marshal header: %w", err)
	}
	return slices.Concat([]byte(marker), content, []byte("\n")), nil
}

// renderFragment returns the part of a hosts.toml about one host. Any number of
// them after a header is a valid document.
func renderFragment(host Host, table hostTable) ([]byte, error) {
	content, err := toml.Marshal(fragment{Host: map[string]hostTable{host.URL: table}})
	if err != nil {
		return nil, fmt.Errorf("marshal fragment: %w", err)
	}
	// The table of the host implies the one that holds all hosts, which must not
	// be opened more than once in a document, but go-toml always opens it.
	content, found := bytes.CutPrefix(content, []byte("[host]\n"))
	if !found {
		return nil, errors.New("marshal fragment: the table of all hosts is missing")
	}
	return slices.Concat([]byte(probeLine(host, table.CA)), content, []byte("\n")), nil
}

// probeLine returns the comment that says how to find out whether a host is
// alive.
func probeLine(host Host, bundle string) string {
	status := "200"
	if host.Kind == Mirror {
		status = anyStatus
	}
	if bundle == "" {
		bundle = noBundle
	}
	root := host.URL
	complete := host.OverridePath != nil && *host.OverridePath
	if !complete && !strings.HasSuffix(root, "/v2") {
		root += "/v2"
	}
	return fmt.Sprintf("%s%s %s/ %s\n", probePrefix, status, root, bundle)
}

// checkUpstream returns an error unless the upstream can be the name of a
// directory, both of ours and of containerd's.
func checkUpstream(upstream string) error {
	switch {
	case !upstreamPattern.MatchString(upstream):
		return errors.New("not a host name with an optional port")
	case len(upstream) > maxFileName:
		return fmt.Errorf("longer than %d bytes", maxFileName)
	case upstream == scriptName:
		return errors.New("reserved")
	}
	return nil
}

// normalizeURL returns the URL without slashes at its end, as containerd makes
// //v2 of a lone slash.
func normalizeURL(raw string) (string, error) {
	parsed, err := url.Parse(raw)
	switch {
	case err != nil:
		return "", errors.New("not a URL")
	case parsed.Scheme != "http" && parsed.Scheme != "https":
		return "", errors.New("not an http or https URL")
	case parsed.Hostname() == "":
		return "", errors.New("no host in URL")
	case parsed.User != nil, parsed.RawQuery != "", parsed.ForceQuery, parsed.Fragment != "":
		return "", errors.New("user info, query or fragment in URL")
	}
	normalized := strings.TrimRight(parsed.String(), "/")
	if !urlPattern.MatchString(normalized) {
		return "", errors.New("unusable characters in URL")
	}
	return normalized, nil
}
