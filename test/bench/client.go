// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

const (
	// parallelDownloads is containerd's max_concurrent_downloads.
	parallelDownloads = 3
	readBuffer        = 128 << 10
	gateTimeout       = time.Minute
	accepted          = manifestType + ", application/vnd.oci.image.index.v1+json, " +
		"application/vnd.docker.distribution.manifest.v2+json, application/vnd.docker.distribution.manifest.list.v2+json, */*"
)

var buffers = sync.Pool{New: func() any { b := make([]byte, readBuffer); return &b }}

// target is where clients pull from.
type target struct {
	// url has neither path nor slash at its end.
	url string
	// roots verify the target's certificate; nil if it speaks plain HTTP.
	roots *x509.CertPool
}

// client pulls as containerd does: by HTTP/1.1, with connections of its own.
type client struct {
	base      string
	transport *http.Transport
	// gate holds layers back after their first bytes; nil does not.
	gate *gate
}

func newClient(t target) *client {
	c := &client{base: t.url + "/v2/" + repository, transport: &http.Transport{
		DialContext:        (&net.Dialer{Timeout: 30 * time.Second}).DialContext,
		DisableCompression: true,
		ReadBufferSize:     32 << 10,
	}}
	if t.roots != nil {
		c.transport.TLSClientConfig = &tls.Config{RootCAs: t.roots, MinVersion: tls.VersionTLS13}
	}
	return c
}

func (c *client) close() {
	c.transport.CloseIdleConnections()
}

// pull is what one client saw of one pull.
type pull struct {
	elapsed time.Duration
	// firstBytes are the times from a request for a layer to its first byte.
	firstBytes []time.Duration
}

// pull resolves the tag, and reads and verifies manifest, config and layers.
func (c *client) pull(ctx context.Context) (pull, error) {
	started := time.Now()
	digest, err := c.resolve(ctx)
	if err != nil {
		return pull{}, err
	}
	var raw bytes.Buffer
	if _, err := c.fetch(ctx, "/manifests/", digest, &raw); err != nil {
		return pull{}, err
	}
	var m manifest
	if err := json.Unmarshal(raw.Bytes(), &m); err != nil {
		return pull{}, fmt.Errorf("decode manifest: %w", err)
	}
	result := pull{firstBytes: make([]time.Duration, len(m.Layers))}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(parallelDownloads)
	group.Go(func() error {
		_, err := c.fetch(ctx, "/blobs/", m.Config.Digest, io.Discard)
		return err
	})
	for i, layer := range m.Layers {
		group.Go(func() (err error) {
			result.firstBytes[i], err = c.fetch(ctx, "/blobs/", layer.Digest, &gatedWriter{ctx: ctx, gate: c.gate})
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return pull{}, err
	}
	result.elapsed = time.Since(started)
	return result, nil
}

// resolve returns the digest that the tag names.
func (c *client) resolve(ctx context.Context) (string, error) {
	response, err := c.do(ctx, http.MethodHead, "/manifests/"+tag)
	if err != nil {
		return "", err
	}
	if err := response.Body.Close(); err != nil {
		return "", fmt.Errorf("resolve tag: %w", err)
	}
	return response.Header.Get("Docker-Content-Digest"), nil
}

// fetch reads content into a writer, verifies it, and returns the time to its
// first byte.
func (c *client) fetch(ctx context.Context, kind, digest string, to io.Writer) (time.Duration, error) {
	body := &timedReader{started: time.Now()}
	response, err := c.do(ctx, http.MethodGet, kind+digest)
	if err != nil {
		return 0, err
	}
	defer func() { _ = response.Body.Close() }()
	body.Reader = response.Body
	hash := sha256.New()
	buffer := buffers.Get().(*[]byte)
	defer buffers.Put(buffer)
	if _, err := io.CopyBuffer(io.MultiWriter(hash, to), body, *buffer); err != nil {
		return 0, fmt.Errorf("read %s: %w", digest, err)
	}
	if got := "sha256:" + hex.EncodeToString(hash.Sum(nil)); got != digest {
		return 0, fmt.Errorf("read %s: content has digest %s", digest, got)
	}
	return body.firstByte, nil
}

func (c *client) do(ctx context.Context, method, path string) (*http.Response, error) {
	request, err := http.NewRequestWithContext(ctx, method, c.base+path, nil)
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", method, path, err)
	}
	request.Header.Set("Accept", accepted)
	response, err := c.transport.RoundTrip(request)
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", method, path, err)
	}
	if response.StatusCode != http.StatusOK {
		_ = response.Body.Close()
		return nil, fmt.Errorf("%s %s: status %s", method, path, response.Status)
	}
	return response, nil
}

// timedReader knows when its first byte came.
type timedReader struct {
	io.Reader
	started   time.Time
	firstByte time.Duration
}

// Read implements io.Reader.
func (r *timedReader) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	if n > 0 && r.firstByte == 0 {
		r.firstByte = time.Since(r.started)
	}
	return n, err
}

// gate opens when a number of layers are being read at the same time.
type gate struct {
	missing atomic.Int64
	open    chan struct{}
}

func newGate(layers int) *gate {
	g := &gate{open: make(chan struct{})}
	g.missing.Store(int64(layers))
	return g
}

// pass counts a layer, and waits for the others.
func (g *gate) pass(ctx context.Context) error {
	if g.missing.Add(-1) == 0 {
		close(g.open)
	}
	select {
	case <-g.open:
		return nil
	case <-time.After(gateTimeout):
		return fmt.Errorf("after %s, %d layers have not begun", gateTimeout, g.missing.Load())
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// gatedWriter passes a gate once, and discards all that is written to it.
type gatedWriter struct {
	ctx  context.Context
	gate *gate
}

// Write implements io.Writer.
func (w *gatedWriter) Write(p []byte) (int, error) {
	if w.gate != nil {
		if err := w.gate.pass(w.ctx); err != nil {
			return 0, err
		}
		w.gate = nil
	}
	return len(p), nil
}

// crowd is a number of clients that pull at about the same time.
type crowd struct {
	clients int
	// stagger is the time between the starts of two clients.
	stagger time.Duration
	// gated clients wait for each other: all that they can read at the same time
	// is being read before anything is read to its end. Without that, fast clients
	// on a slow machine come one after another.
	gated bool
}

// pull lets all clients pull, each once.
func (c crowd) pull(ctx context.Context, t target) ([]pull, error) {
	pulls := make([]pull, c.clients)
	var gate *gate
	if c.gated {
		gate = newGate(c.clients * parallelDownloads)
	}
	group, ctx := errgroup.WithContext(ctx)
	for i := range pulls {
		group.Go(func() (err error) {
			if err := sleep(ctx, time.Duration(i)*c.stagger); err != nil {
				return err
			}
			client := newClient(t)
			defer client.close()
			client.gate = gate
			pulls[i], err = client.pull(ctx)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, fmt.Errorf("%d clients: %w", c.clients, err)
	}
	return pulls, nil
}
