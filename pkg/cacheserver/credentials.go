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
	"time"

	"github.com/gardener/gardener-extension-registry-cache/pkg/pullthrough"
)

// credentialFiles are credentials in the files `username` and `password` of a
// folder. It looks at them when it is asked for the credentials, but not more
// often than once an interval.
type credentialFiles struct {
	dir      string
	interval time.Duration
	log      *slog.Logger

	mu      sync.Mutex
	checked time.Time
	value   pullthrough.Credentials
	failure string
}

// newCredentialFiles reads the credentials in dir. An empty dir has none.
func newCredentialFiles(dir string, interval time.Duration, log *slog.Logger) (*credentialFiles, error) {
	files := &credentialFiles{dir: dir, interval: interval, log: log, checked: time.Now()}
	if dir == "" {
		return files, nil
	}
	var err error
	files.value, err = readCredentials(dir)
	return files, err
}

// current returns the credentials as they stand in the files, which it reads at
// once if those of before were rejected. If they cannot be read, or are written
// half, it returns the last ones that could.
func (f *credentialFiles) current(rejected bool) pullthrough.Credentials {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := time.Now()
	if f.dir == "" || !rejected && now.Sub(f.checked) < f.interval {
		return f.value
	}
	f.checked = now
	value, err := readCredentials(f.dir)
	switch {
	case err == nil && value != f.value:
		f.log.Info("Credentials changed", "dir", f.dir)
		fallthrough
	case err == nil:
		f.value, f.failure = value, ""
	case f.failure != err.Error():
		f.failure = err.Error()
		f.log.Error("Cannot read credentials, keeping the ones in use", "dir", f.dir, "error", err)
	}
	return f.value
}

func readCredentials(dir string) (pullthrough.Credentials, error) {
	// The kubelet replaces all files of a Secret at once, behind this link: the two
	// are to be from before, or from after that.
	if current, err := filepath.EvalSymlinks(filepath.Join(dir, "..data")); err == nil {
		dir = current
	}
	username, usernameErr := readCredential(dir, "username")
	password, passwordErr := readCredential(dir, "password")
	if err := errors.Join(usernameErr, passwordErr); err != nil {
		return pullthrough.Credentials{}, err
	}
	return pullthrough.Credentials{Username: username, Password: password}, nil
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
