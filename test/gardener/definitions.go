// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package gardener

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
)

// definitions are the CRDs that Gardener puts into each kind of cluster, as far
// as extensions use them: patterns in the folder of Gardener's module.
var definitions = map[string][]string{
	"seed": {
		"example/seed-crds/10-crd-extensions.gardener.cloud_*.yaml",
		"example/seed-crds/10-crd-resources.gardener.cloud_managedresources.yaml",
		"example/seed-crds/10-crd-monitoring.coreos.com_prometheusrules.yaml",
		"example/seed-crds/10-crd-monitoring.coreos.com_scrapeconfigs.yaml",
		"example/seed-crds/10-crd-autoscaling.k8s.io_verticalpodautoscalers.yaml",
	},
	// What the runtime cluster of a garden has beside those of a Seed.
	"runtime": {
		"example/operator/10-crd-operator.gardener.cloud_extensions.yaml",
		"example/seed-crds/10-crd-monitoring.coreos.com_servicemonitors.yaml",
	},
	"shoot": {
		"example/seed-crds/10-crd-autoscaling.k8s.io_verticalpodautoscalers.yaml",
	},
}

// DefinitionFiles returns the files with the CRDs of a "seed", a "runtime" cluster or a "shoot", in the
// very version of Gardener that the module under test requires.
func DefinitionFiles(ctx context.Context, kind string) ([]string, error) {
	patterns, known := definitions[kind]
	if !known {
		return nil, fmt.Errorf("no CRDs are known for a %q", kind)
	}
	var problem strings.Builder
	cmd := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", "github.com/gardener/gardener")
	cmd.Stderr = &problem
	output, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("find the folder of Gardener's module: %w: %s", err, strings.TrimSpace(problem.String()))
	}
	if len(output) < 2 {
		return nil, errors.New("find the folder of Gardener's module: it is not in the module cache")
	}
	var files []string
	for _, pattern := range patterns {
		matches, err := filepath.Glob(filepath.Join(strings.TrimSpace(string(output)), pattern))
		if err != nil {
			return nil, fmt.Errorf("find CRDs %s: %w", pattern, err)
		}
		if len(matches) == 0 {
			return nil, fmt.Errorf("no CRD is at %s in Gardener's module", pattern)
		}
		files = append(files, matches...)
	}
	return files, nil
}
