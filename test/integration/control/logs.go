// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package control

import (
	"fmt"
	"os"
	"path/filepath"
)

// createLog creates the log file of a process, in place of one of an earlier run.
func createLog(dir, process string) (*os.File, error) {
	file, err := os.Create(filepath.Join(dir, process+".log")) //nolint:gosec // the caller of Start chose the folder
	if err != nil {
		return nil, fmt.Errorf("create log of %s: %w", process, err)
	}
	return file, nil
}

// tail returns the end of a log, for the error about the process that wrote it.
func tail(path string) string {
	content, err := os.ReadFile(path) //nolint:gosec // a file that createLog created
	if err != nil {
		return err.Error()
	}
	return string(content[max(0, len(content)-4096):])
}
