// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

// Command charts packs the product's Helm charts, and pushes them to a registry
// as `helm push` does; or it writes the example that registers the extension,
// which has the controller's chart inside.
package main

import (
	"bytes"
	"encoding/base64"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"helm.sh/helm/v4/pkg/chart/v2/loader"
	"helm.sh/helm/v4/pkg/registry"

	"github.com/gardener/gardener-extension-registry-cache/charts"
)

// registration is the example; its verb is the packed chart.
const registration = `# SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
#
# SPDX-License-Identifier: Apache-2.0

# Registers the extension in the garden cluster, for gardens without
# gardener-operator: gardenlet installs the chart in every Seed with a Shoot that
# has caches or mirrors. Written by ` + "`make generate`" + ` from
# charts/gardener-extension-registry-cache; put values below helm.
apiVersion: core.gardener.cloud/v1
kind: ControllerDeployment
metadata:
  name: registry-cache
helm:
  values: {}
  rawChart: %s
---
apiVersion: core.gardener.cloud/v1beta1
kind: ControllerRegistration
metadata:
  name: registry-cache
spec:
  deployment:
    deploymentRefs:
    - name: registry-cache
    policy: OnDemand
  resources:
  - kind: Extension
    type: registry-cache
    clusterCompatibility: [shoot]
    workerlessSupported: true # where nobody pulls, nothing is done
  - kind: Extension
    type: registry-mirror
    clusterCompatibility: [shoot]
    workerlessSupported: true # where nobody pulls, nothing is done
`

func main() {
	if err := run(os.Args[1:]); err != nil {
		slog.Error("Charts were not packed", "error", err)
		os.Exit(1)
	}
}

func run(arguments []string) error {
	flags := flag.NewFlagSet("charts", flag.ContinueOnError)
	output := flags.String("output", "bin/charts", "`FOLDER` that gets a file for each chart")
	host := flags.String("registry", "", "`REGISTRY` to push to, with or without a path; empty: none")
	insecure := flags.Bool("insecure", false, "push by plain HTTP")
	example := flags.String("registration", "", "`FILE` that gets the registration; nothing else is done then")
	if err := flags.Parse(arguments); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return errors.New("usage: charts [-output FOLDER] [-registry REGISTRY [-insecure]], or charts -registration FILE")
	}
	if *example != "" {
		return writeRegistration(*example)
	}
	client, err := newClient(*insecure)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(*output, 0o750); err != nil {
		return fmt.Errorf("create folder: %w", err)
	}
	for _, chart := range []string{charts.Controller, charts.AdmissionRuntime, charts.AdmissionApplication} {
		archive, err := charts.Archive(chart)
		if err != nil {
			return err
		}
		name, version, err := describe(archive)
		if err != nil {
			return err
		}
		file := filepath.Join(*output, name+"-"+version+".tgz")
		if err := os.WriteFile(file, archive, 0o644); err != nil { //nolint:gosec // everybody may read it
			return fmt.Errorf("write chart: %w", err)
		}
		slog.Info("Packed", "chart", file)
		if *host == "" {
			continue
		}
		if err := push(client, archive, *host+"/charts/"+name+":"+version); err != nil {
			return err
		}
	}
	return nil
}

func writeRegistration(file string) error {
	archive, err := charts.Archive(charts.Controller)
	if err != nil {
		return err
	}
	content := fmt.Sprintf(registration, base64.StdEncoding.EncodeToString(archive))
	if err := os.WriteFile(file, []byte(content), 0o644); err != nil { //nolint:gosec // everybody may read it
		return fmt.Errorf("write registration: %w", err)
	}
	return nil
}

// push does as `helm push` does, but the same chart always gets the same digest.
func push(client *registry.Client, archive []byte, reference string) error {
	result, err := client.Push(archive, reference, registry.PushOptCreationTime(time.Unix(0, 0).UTC().Format(time.RFC3339)))
	if err != nil {
		return fmt.Errorf("push chart %s: %w", reference, err)
	}
	slog.Info("Pushed", "chart", result.Ref, "digest", result.Manifest.Digest)
	return nil
}

func newClient(insecure bool) (*registry.Client, error) {
	options := []registry.ClientOption{registry.ClientOptWriter(io.Discard)}
	if insecure {
		options = append(options, registry.ClientOptPlainHTTP())
	}
	client, err := registry.NewClient(options...)
	if err != nil {
		return nil, fmt.Errorf("create client of registries: %w", err)
	}
	return client, nil
}

// describe returns the name and the version of a packed chart.
func describe(archive []byte) (name, version string, err error) {
	chart, err := loader.LoadArchive(bytes.NewReader(archive))
	if err != nil {
		return "", "", fmt.Errorf("load packed chart: %w", err)
	}
	return chart.Metadata.Name, chart.Metadata.Version, nil
}
