// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

// Command release packs the Helm charts of a release and pushes them as OCI
// artifacts. They are the charts of the sources, except that they have the version
// of the release and run the images that were pushed before, by digest. The same
// sources and images give the same digests.
package main

import (
	"cmp"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"helm.sh/helm/v4/pkg/registry"
	"sigs.k8s.io/yaml"

	"github.com/gardener/gardener-extension-registry-cache/charts"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		slog.Error("Charts were not released", "error", err)
		os.Exit(1)
	}
}

func run(arguments []string) error {
	flags := flag.NewFlagSet("release", flag.ContinueOnError)
	version := flags.String("version", "", "`VERSION` of the charts, and of the images")
	images := flags.String("images", "bin/images/images.yaml", "`FILE` that names the pushed images, as hack/images writes it")
	output := flags.String("output", "bin/charts", "`FOLDER` that gets the packed charts")
	host := flags.String("registry", "", "`REGISTRY` to push to, with or without a path")
	insecure := flags.Bool("insecure", false, "push by plain HTTP")
	if err := flags.Parse(arguments); err != nil {
		return err
	}
	if *version == "" || *host == "" || flags.NArg() > 0 {
		return errors.New("usage: release -version VERSION -registry REGISTRY [-insecure] [-images FILE] [-output FOLDER]")
	}
	content, err := os.ReadFile(*images)
	if err != nil {
		return fmt.Errorf("read image vector: %w", err)
	}
	pushed, err := readImages(content, *version)
	if err != nil {
		return fmt.Errorf("image vector %s: %w", *images, err)
	}

	client, err := newClient(*insecure)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(*output, 0o750); err != nil {
		return fmt.Errorf("create folder of charts: %w", err)
	}
	for _, chart := range []string{charts.Controller, charts.AdmissionRuntime, charts.AdmissionApplication} {
		packed, err := pack(chart, *version, pushed)
		if err != nil {
			return fmt.Errorf("chart %s: %w", chart, err)
		}
		if err := packed.release(client, *output, *host); err != nil {
			return fmt.Errorf("chart %s: %w", chart, err)
		}
	}
	return nil
}

// newClient returns helm's client, which has the credentials of ~/.docker/config.json.
func newClient(insecure bool) (*registry.Client, error) {
	options := []registry.ClientOption{
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

// packedChart is a chart as it is released.
type packedChart struct {
	name, version string
	archive       []byte
}

// pack packs a chart of the sources for a release.
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
	if values, err = edit(values, pushed.values()...); err != nil {
		return nil, fmt.Errorf("change values.yaml: %w", err)
	}
	packed.archive, err = charts.ArchiveWith(chart, map[string][]byte{"Chart.yaml": definition, "values.yaml": values})
	return packed, err
}

// release writes a packed chart to a folder and pushes it.
func (c *packedChart) release(client *registry.Client, output, host string) error {
	path := filepath.Join(output, c.name+"-"+c.version+".tgz")
	if err := os.WriteFile(path, c.archive, 0o644); err != nil { //nolint:gosec // for everyone to read
		return fmt.Errorf("write packed chart: %w", err)
	}
	// helm has no + in tags and writes _ for it.
	reference := host + "/charts/" + c.name + ":" + c.version
	// Without a time helm would put in the present one.
	result, err := client.Push(c.archive, reference, registry.PushOptCreationTime(time.Unix(0, 0).UTC().Format(time.RFC3339)))
	if err != nil {
		return fmt.Errorf("push packed chart: %w", err)
	}
	slog.Info("Pushed", "chart", result.Ref, "digest", result.Manifest.Digest, "file", path)
	return nil
}
