// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package cacheserver

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
)

// credentials are what the cache logs in to its upstream with. The zero value
// is no credentials.
type credentials struct {
	username, password string
}

// credentialFiles are credentials in the files `username` and `password` of a
// folder.
type credentialFiles struct {
	dir string
	log *slog.Logger

	mu      sync.Mutex
	value   credentials
	failure string
}

// newCredentialFiles reads the credentials in dir. An empty dir has none.
func newCredentialFiles(dir string, log *slog.Logger) (*credentialFiles, error) {
	files := &credentialFiles{dir: dir, log: log}
	if dir == "" {
		return files, nil
	}
	var err error
	files.value, err = readCredentials(dir)
	return files, err
}

// current returns the credentials that were last read.
func (f *credentialFiles) current() credentials {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.value
}

// refresh reads the files again. If they cannot be read, or are written half,
// the credentials stay as they were.
func (f *credentialFiles) refresh() {
	if f.dir == "" {
		return
	}
	value, err := readCredentials(f.dir)

	f.mu.Lock()
	defer f.mu.Unlock()
	if err != nil {
		if f.failure != err.Error() {
			f.failure = err.Error()
			f.log.Error("Cannot read credentials, keeping the ones in use", "dir", f.dir, "error", err)
		}
		return
	}
	f.failure = ""
	if value != f.value {
		f.value = value
		f.log.Info("Credentials changed", "dir", f.dir)
	}
}

func readCredentials(dir string) (credentials, error) {
	username, usernameErr := readCredential(dir, "username")
	password, passwordErr := readCredential(dir, "password")
	if err := errors.Join(usernameErr, passwordErr); err != nil {
		return credentials{}, err
	}
	return credentials{username: username, password: password}, nil
}

func readCredential(dir, name string) (string, error) {
	raw, err := os.ReadFile(filepath.Join(dir, name)) //nolint:gosec // the folder is the operator's to choose
	if err != nil {
		return "", err
	}
	// Editors and shells end a file with a line break that is not meant.
	value := strings.TrimRight(string(raw), "\r\n")
	if value == "" {
		return "", fmt.Errorf("%s is empty", filepath.Join(dir, name))
	}
	return value, nil
}
