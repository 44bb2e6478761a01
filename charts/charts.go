// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

// Package charts has the Helm charts that install the extension, and packs them.
// What is done with a packed chart does not belong here.
package charts

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"embed"
	"fmt"
	"io/fs"
	"path"
	"strings"
	"time"
)

// The charts, by their folders.
const (
	// Controller is for every Seed.
	Controller = "gardener-extension-registry-cache"
	// AdmissionRuntime is for the cluster that the admission runs in, and
	// AdmissionApplication for the garden cluster, which may be the same.
	AdmissionRuntime     = "gardener-extension-registry-cache-admission/charts/runtime"
	AdmissionApplication = "gardener-extension-registry-cache-admission/charts/application"
)

//go:embed all:gardener-extension-registry-cache all:gardener-extension-registry-cache-admission
var files embed.FS

// Read returns a file of a chart.
func Read(chart, name string) ([]byte, error) {
	return files.ReadFile(path.Join(chart, name))
}

// Archive packs a chart as `helm package` does. The same files, and the same Go,
// give the same bytes.
func Archive(chart string) ([]byte, error) {
	return ArchiveWith(chart, nil)
}

// ArchiveWith is Archive with other contents of some files, by their names.
func ArchiveWith(chart string, contents map[string][]byte) ([]byte, error) {
	var buffer bytes.Buffer
	compressed := gzip.NewWriter(&buffer)
	archive := tar.NewWriter(compressed)
	// WalkDir goes through a folder in the order of names.
	if err := fs.WalkDir(files, chart, func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		name = strings.TrimPrefix(name, chart+"/")
		content, found := contents[name]
		if !found {
			if content, err = Read(chart, name); err != nil {
				return err
			}
		}
		return add(archive, path.Join(path.Base(chart), name), content)
	}); err != nil {
		return nil, fmt.Errorf("pack chart %s: %w", chart, err)
	}
	for _, close := range []func() error{archive.Close, compressed.Close} {
		if err := close(); err != nil {
			return nil, fmt.Errorf("pack chart %s: %w", chart, err)
		}
	}
	return buffer.Bytes(), nil
}

func add(archive *tar.Writer, name string, content []byte) error {
	header := &tar.Header{Name: name, Mode: 0o644, Size: int64(len(content)), ModTime: time.Unix(0, 0), Format: tar.FormatPAX}
	if err := archive.WriteHeader(header); err != nil {
		return err
	}
	_, err := archive.Write(content)
	return err
}
