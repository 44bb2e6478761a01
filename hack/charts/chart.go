// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"helm.sh/helm/v4/pkg/registry"
	"sigs.k8s.io/yaml"

	"github.com/gardener/gardener-extension-registry-cache/charts"
)

// newClient returns helm's client, which has the credentials of ~/.docker/config.json.
func newClient(insecure bool) (*registry.Client, error) {
	options := []registry.ClientOption{
		registry.ClientOptWriter(io.Discard),
		registry.ClientOptCredentialsFile(filepath.Join(cmp.Or(os.Getenv("DOCKER_CONFIG"), filepath.Join(os.Getenv("HOME"), ".docker")), "config.json")),
	}
	if insecure {
		options = append(options, registry.ClientOptPlainHTTP())
	}
	client, err := registry.NewClient(options...)
	if err != nil {
		return nil, fmt.Errorf("create client of the registry: %w", err)
	}
	return client, nil
}

// packedChart is a chart under its version.
type packedChart struct {
	name, version string
	archive       []byte
}

// pack packs a chart of the sources, which runs the pushed images if there are any.
func pack(chart, version string, pushed *pushedImages) (*packedChart, error) {
	definition, err := charts.Read(chart, "Chart.yaml")
	if err != nil {
		return nil, err
	}
	var name struct{ Name string }
	if err := yaml.Unmarshal(definition, &name); err != nil {
		return nil, fmt.Errorf("read Chart.yaml: %w", err)
	}
	packed := &packedChart{name: name.Name, version: strings.TrimPrefix(version, "v")}
	definition, err = edit(definition, change{[]string{"version"}, packed.version}, change{[]string{"appVersion"}, version})
	if err != nil {
		return nil, fmt.Errorf("change Chart.yaml: %w", err)
	}
	values, err := charts.Read(chart, "values.yaml")
	if err != nil {
		return nil, err
	}
	if pushed != nil {
		if values, err = edit(values, pushed.values()...); err != nil {
			return nil, fmt.Errorf("change values.yaml: %w", err)
		}
	}
	packed.archive, err = charts.ArchiveWith(chart, map[string][]byte{"Chart.yaml": definition, "values.yaml": values})
	return packed, err
}

// write writes a packed chart to a folder.
func (c *packedChart) write(folder string) error {
	path := filepath.Join(folder, c.name+"-"+c.version+".tgz")
	if err := os.WriteFile(path, c.archive, 0o644); err != nil { //nolint:gosec // for everyone to read
		return fmt.Errorf("write packed chart: %w", err)
	}
	slog.Info("Packed", "chart", path)
	return nil
}

// push does as `helm push` does, but the same chart always gets the same digest.
func (c *packedChart) push(client *registry.Client, host string) error {
	// helm has no + in tags and writes _ for it.
	reference := host + "/charts/" + c.name + ":" + c.version
	// Without a time helm would put in the present one.
	result, err := client.Push(c.archive, reference, registry.PushOptCreationTime(time.Unix(0, 0).UTC().Format(time.RFC3339)))
	if err != nil {
		return fmt.Errorf("push packed chart %s: %w", reference, err)
	}
	slog.Info("Pushed", "chart", result.Ref, "digest", result.Manifest.Digest)
	return nil
}
