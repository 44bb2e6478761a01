// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

// Command charts packs the product's Helm charts under a version and pushes them
// to a registry as `helm push` does. They are the charts of the sources; given the
// images that were pushed before, they run these by digest. The same sources and
// images give the same digests. Or it writes the example that registers the
// extension, which has the controller's chart inside.
package main

import (
	"encoding/base64"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"

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
	version := flags.String("version", "", "`VERSION` of the charts, and of the images that they run")
	images := flags.String("images", "", "`FILE` that names pushed images, as hack/images writes it; empty: the charts name what the sources do")
	output := flags.String("output", "bin/charts", "`FOLDER` that gets a file for each chart")
	host := flags.String("registry", "", "`REGISTRY` to push to, with or without a path; empty: none")
	insecure := flags.Bool("insecure", false, "push by plain HTTP")
	example := flags.String("registration", "", "`FILE` that gets the registration; nothing else is done then")
	if err := flags.Parse(arguments); err != nil {
		return err
	}
	if (*version == "") == (*example == "") || flags.NArg() > 0 {
		return errors.New("usage: charts -version VERSION [-images FILE] [-output FOLDER] [-registry REGISTRY [-insecure]], or charts -registration FILE")
	}
	if *example != "" {
		return writeRegistration(*example)
	}
	pushed, err := readImages(*images, *version)
	if err != nil {
		return err
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
		if err := packed.write(*output); err != nil {
			return fmt.Errorf("chart %s: %w", chart, err)
		}
		if *host == "" {
			continue
		}
		if err := packed.push(client, *host); err != nil {
			return fmt.Errorf("chart %s: %w", chart, err)
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
