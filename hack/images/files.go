// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/pem"
	"fmt"
	"io"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"golang.org/x/crypto/x509roots/fallback/bundle"
)

// nonRoot is the id of the user and the group that the programs run as.
const nonRoot = 65532

// file is a file of an image or, if its path ends with a slash, a folder. All
// belong to root.
type file struct {
	path    string
	mode    int64
	content []byte
}

// baseFiles are what a static binary expects to find: its user, the certificate
// authorities of the web, and a folder for temporary files.
func baseFiles() []file {
	return []file{
		{path: "etc/", mode: 0o755},
		{path: "etc/group", mode: 0o644, content: fmt.Appendf(nil, "root:x:0:\nnonroot:x:%d:\n", nonRoot)},
		{path: "etc/passwd", mode: 0o644, content: fmt.Appendf(nil, "root:x:0:0:root:/:/sbin/nologin\nnonroot:x:%d:%d:nonroot:/:/sbin/nologin\n", nonRoot, nonRoot)},
		{path: "etc/ssl/", mode: 0o755},
		{path: "etc/ssl/certs/", mode: 0o755},
		{path: "etc/ssl/certs/ca-certificates.crt", mode: 0o644, content: certificateAuthorities()},
		{path: "tmp/", mode: 0o1777},
	}
}

// certificateAuthorities are those that Mozilla trusts, PEM encoded. Left out are
// those that it trusts for older certificates only, which a file cannot say.
func certificateAuthorities() []byte {
	var content bytes.Buffer
	for root := range bundle.Roots() {
		if root.Constraint == nil {
			// Writing to a buffer does not fail.
			_ = pem.Encode(&content, &pem.Block{Type: "CERTIFICATE", Bytes: root.Certificate})
		}
	}
	return content.Bytes()
}

// layer returns a layer with the files, none of which has a time.
func layer(files []file) (v1.Layer, error) {
	var content bytes.Buffer
	writer := tar.NewWriter(&content)
	for _, file := range files {
		header := &tar.Header{
			Name: file.path, Mode: file.mode, Size: int64(len(file.content)),
			ModTime: time.Unix(0, 0), Typeflag: tar.TypeReg, Format: tar.FormatPAX,
		}
		if file.path[len(file.path)-1] == '/' {
			header.Typeflag = tar.TypeDir
		}
		if err := writer.WriteHeader(header); err != nil {
			return nil, fmt.Errorf("write %s: %w", file.path, err)
		}
		if _, err := writer.Write(file.content); err != nil {
			return nil, fmt.Errorf("write %s: %w", file.path, err)
		}
	}
	if err := writer.Close(); err != nil {
		return nil, fmt.Errorf("write end of the layer: %w", err)
	}
	return tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(content.Bytes())), nil
	}, tarball.WithCompressionLevel(gzip.BestCompression), tarball.WithCompressedCaching)
}
