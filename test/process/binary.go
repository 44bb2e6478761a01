// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package process

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

var notInVariables = regexp.MustCompile(`[^A-Z0-9]+`)

// FindBinary looks a test binary up where envtest does: in TEST_ASSET_ETCD and so
// on, or in the folder KUBEBUILDER_ASSETS.
func FindBinary(name string) (string, error) {
	variable := "TEST_ASSET_" + notInVariables.ReplaceAllString(strings.ToUpper(name), "_")
	path := os.Getenv(variable)
	if assets := os.Getenv("KUBEBUILDER_ASSETS"); path == "" && assets != "" {
		path = filepath.Join(assets, name)
	}
	if path == "" {
		return "", fmt.Errorf("no %s: %s is not set; 'make test' builds the binary and sets it, 'hack/test.sh env' prints it", name, variable)
	}
	if _, err := os.Stat(path); err != nil { //nolint:gosec // whoever sets the variables may run any binary
		return "", fmt.Errorf("find %s, which %s names: %w", name, variable, err)
	}
	return path, nil
}
