// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

// Package upstream is the registry that tests pull from: a stock distribution
// registry on the loopback interface that counts what it is asked for, and can be
// as slow as one at the other end of the internet. What is pushed to it, and who
// pulls, is the business of the tests.
package upstream

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/distribution/distribution/v3/configuration"
	_ "github.com/distribution/distribution/v3/registry/auth/htpasswd" // for registries with credentials
	"github.com/distribution/distribution/v3/registry/handlers"
	_ "github.com/distribution/distribution/v3/registry/storage/driver/filesystem" // keeps the content
	"golang.org/x/crypto/bcrypt"
)

// Counts are the requests that a registry answered, and the bytes of blobs that
// it sent.
type Counts struct {
	// Blobs and Manifests are GET requests, Heads are HEAD requests for either.
	Blobs, Manifests, Heads int64
	// Others are all other requests, such as the ping of the API.
	Others int64
	// BlobBytes are the bytes of the bodies of blobs.
	BlobBytes int64
}

// Requests is the number of all requests.
func (c Counts) Requests() int64 {
	return c.Blobs + c.Manifests + c.Heads + c.Others
}

// Speed is how fast a registry answers. The zero value does not slow it down.
type Speed struct {
	// Delay is the time before it answers a request.
	Delay time.Duration
	// BytesPerSecond is what it sends on one connection; 0 is no limit.
	BytesPerSecond int
}

// Registry is a running registry.
type Registry struct {
	server *httptest.Server
	public []*http.Server
	app    *handlers.App
	users  string

	blobs, manifests, heads, others, blobBytes atomic.Int64
	handler                                    atomic.Pointer[http.Handler]
}

// Start runs a registry that everybody may use or, if username is not empty,
// only who has the credentials. The folder is for its content and users.
func Start(folder, username, password string) (*Registry, error) {
	r := &Registry{users: filepath.Join(folder, "htpasswd")}
	config := &configuration.Configuration{Storage: configuration.Storage{
		// Not inmemory, which copies all that it has of a blob for each write.
		"filesystem": configuration.Parameters{"rootdirectory": filepath.Join(folder, "content")},
	}}
	config.HTTP.Secret = rand.Text()
	if username != "" {
		if err := r.SetUser(username, password); err != nil {
			return nil, err
		}
		config.Auth = configuration.Auth{"htpasswd": configuration.Parameters{"realm": "test", "path": r.users}}
	}
	r.app = handlers.NewApp(context.Background(), config)
	r.Intercept(nil)
	r.server = httptest.NewServer(http.HandlerFunc(r.serve))
	return r, nil
}

// Close ends the registry. More calls do nothing.
func (r *Registry) Close() error {
	var errs []error
	for _, server := range r.public {
		errs = append(errs, server.Close())
	}
	r.server.Close()
	return errors.Join(append(errs, r.app.Shutdown())...)
}

// Publish serves the registry at a further listener, with a certificate and at a
// speed, until it is closed. It is not for concurrent use. Each connection takes
// one request at a time (HTTP/1.1), so that the speed is that of a transfer.
func (r *Registry) Publish(listener net.Listener, certificate tls.Certificate, speed Speed) {
	server := &http.Server{
		ReadHeaderTimeout: time.Minute,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
			select {
			case <-time.After(speed.Delay):
				r.serve(w, request)
			case <-request.Context().Done():
			}
		}),
	}
	r.public = append(r.public, server)
	if speed.BytesPerSecond > 0 {
		listener = &slowListener{Listener: listener, bytesPerSecond: speed.BytesPerSecond}
	}
	config := &tls.Config{Certificates: []tls.Certificate{certificate}, NextProtos: []string{"http/1.1"}, MinVersion: tls.VersionTLS12}
	go func() { _ = server.Serve(tls.NewListener(listener, config)) }()
}

// PublishPlain serves the registry at a further listener by plain HTTP, until it is
// closed. It is not for concurrent use.
func (r *Registry) PublishPlain(listener net.Listener) {
	server := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(r.serve)}
	r.public = append(r.public, server)
	go func() { _ = server.Serve(listener) }()
}

// Host is the registry's host and port on the loopback interface, as in image
// names.
func (r *Registry) Host() string {
	return r.server.Listener.Addr().String()
}

// URL is the registry's URL on the loopback interface, where it is never slow.
func (r *Registry) URL() string {
	return r.server.URL
}

// SetUser replaces the only user that a registry with credentials knows.
func (r *Registry) SetUser(username, password string) error {
	hash, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
	if err != nil {
		return fmt.Errorf("hash password: %w", err)
	}
	before, err := os.Stat(r.users)
	changed := time.Now()
	if err == nil {
		// distribution reads the file again when its time changes.
		changed = before.ModTime().Add(time.Second)
	}
	if err := os.WriteFile(r.users, []byte(username+":"+string(hash)+"\n"), 0o600); err != nil {
		return fmt.Errorf("write users: %w", err)
	}
	if err := os.Chtimes(r.users, changed, changed); err != nil {
		return fmt.Errorf("write users: %w", err)
	}
	return nil
}

// Intercept has a handler answer all requests from now on; it may pass them on
// to next, which is the registry proper. Nil ends that. Intercepted requests
// count too.
func (r *Registry) Intercept(intercept func(next http.Handler) http.Handler) {
	handler := http.Handler(r.app)
	if intercept != nil {
		handler = intercept(handler)
	}
	r.handler.Store(&handler)
}

// Counts returns what was counted so far.
func (r *Registry) Counts() Counts {
	return Counts{
		Blobs: r.blobs.Load(), Manifests: r.manifests.Load(), Heads: r.heads.Load(),
		Others: r.others.Load(), BlobBytes: r.blobBytes.Load(),
	}
}

// Since returns what was counted since earlier counts.
func (r *Registry) Since(earlier Counts) Counts {
	now := r.Counts()
	return Counts{
		Blobs: now.Blobs - earlier.Blobs, Manifests: now.Manifests - earlier.Manifests, Heads: now.Heads - earlier.Heads,
		Others: now.Others - earlier.Others, BlobBytes: now.BlobBytes - earlier.BlobBytes,
	}
}

func (r *Registry) serve(w http.ResponseWriter, request *http.Request) {
	var (
		isBlob     = strings.Contains(request.URL.Path, "/blobs/")
		isManifest = strings.Contains(request.URL.Path, "/manifests/")
	)
	switch {
	case request.Method == http.MethodHead && (isBlob || isManifest):
		r.heads.Add(1)
	case request.Method == http.MethodGet && isBlob:
		r.blobs.Add(1)
		w = &CountingWriter{ResponseWriter: w, Bytes: &r.blobBytes}
	case request.Method == http.MethodGet && isManifest:
		r.manifests.Add(1)
	default:
		r.others.Add(1)
	}
	(*r.handler.Load()).ServeHTTP(w, request)
}

// CountingWriter counts the bytes of a body.
type CountingWriter struct {
	http.ResponseWriter
	// Bytes is what they are added to.
	Bytes *atomic.Int64
}

// Write implements http.ResponseWriter.
func (w *CountingWriter) Write(p []byte) (int, error) {
	n, err := w.ResponseWriter.Write(p)
	w.Bytes.Add(int64(n))
	return n, err
}

// Unwrap is for http.ResponseController.
func (w *CountingWriter) Unwrap() http.ResponseWriter {
	return w.ResponseWriter
}
