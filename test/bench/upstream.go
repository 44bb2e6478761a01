// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// How slow the upstream is: like one at the other end of the internet.
const (
	upstreamDelay          = 20 * time.Millisecond
	upstreamBytesPerSecond = 50 << 20
	// burst is what a connection may send at once. It keeps the upstream from
	// spending more on timers than on bytes.
	burst = 128 << 10
	// quiet is how long no request may run for the upstream to count as idle.
	quiet      = 100 * time.Millisecond
	quietBound = 20 * time.Second
)

// counts are the requests that an upstream was sent, and the bytes of blobs that
// it sent.
type counts struct {
	blobHeads, blobGets, manifestHeads, manifestGets, others int
	blobBytes                                                int64
}

func (c counts) requests() int {
	return c.blobHeads + c.blobGets + c.manifestHeads + c.manifestGets + c.others
}

// upstream is a slow registry with one image.
type upstream struct {
	url      string
	image    *image
	server   *http.Server
	listener *net.TCPListener
	served   chan struct{}

	mu     sync.Mutex
	counts counts
	active int
	conns  map[net.Conn]struct{}
}

// startUpstream returns an upstream that ends with close.
func startUpstream(ctx context.Context, image *image) (*upstream, error) {
	var config net.ListenConfig
	config.SetMultipathTCP(false) // its sockets take no filter, see dropPackets
	listener, err := config.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("start upstream: %w", err)
	}
	u := &upstream{
		url:      "http://" + listener.Addr().String(),
		image:    image,
		listener: listener.(*net.TCPListener),
		served:   make(chan struct{}),
		conns:    map[net.Conn]struct{}{},
	}
	u.server = &http.Server{Handler: http.HandlerFunc(u.serve), ConnState: u.track, ReadHeaderTimeout: time.Minute}
	go func() {
		defer close(u.served)
		_ = u.server.Serve(listener) // ends with close
	}()
	return u, nil
}

func (u *upstream) close() error {
	err := u.server.Close()
	<-u.served
	if err != nil {
		return fmt.Errorf("stop upstream: %w", err)
	}
	return nil
}

func (u *upstream) track(conn net.Conn, state http.ConnState) {
	u.mu.Lock()
	defer u.mu.Unlock()
	switch state {
	case http.StateNew:
		u.conns[conn] = struct{}{}
	case http.StateClosed, http.StateHijacked:
		delete(u.conns, conn)
	default:
	}
}

func (u *upstream) serve(w http.ResponseWriter, r *http.Request) {
	path, _ := strings.CutPrefix(r.URL.Path, "/v2/"+repository)
	u.begin(r.Method, path)
	defer u.end()
	if sleep(r.Context(), upstreamDelay) != nil {
		return
	}
	w.Header().Set("Docker-Distribution-Api-Version", "registry/2.0")
	found, ok := u.find(path)
	switch {
	case path == "/v2/":
		w.WriteHeader(http.StatusOK)
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		w.WriteHeader(http.StatusMethodNotAllowed)
	case !ok:
		w.WriteHeader(http.StatusNotFound)
	default:
		w.Header().Set("Content-Type", found.MediaType)
		w.Header().Set("Docker-Content-Digest", found.Digest)
		w.Header().Set("Etag", `"`+found.Digest+`"`)
		paced := &pacedWriter{ResponseWriter: w, ctx: r.Context(), started: time.Now(), sent: u.counter(path)}
		http.ServeContent(paced, r, "", time.Time{}, bytes.NewReader(found.data))
	}
}

func (u *upstream) find(path string) (content, bool) {
	if reference, ok := strings.CutPrefix(path, "/manifests/"); ok {
		return u.image.manifest, reference == tag || reference == u.image.manifest.Digest
	}
	blob, ok := u.image.blobs[strings.TrimPrefix(path, "/blobs/")]
	return blob, ok
}

func (u *upstream) begin(method, path string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.active++
	blob, manifest := strings.HasPrefix(path, "/blobs/"), strings.HasPrefix(path, "/manifests/")
	switch {
	case blob && method == http.MethodHead:
		u.counts.blobHeads++
	case blob && method == http.MethodGet:
		u.counts.blobGets++
	case manifest && method == http.MethodHead:
		u.counts.manifestHeads++
	case manifest && method == http.MethodGet:
		u.counts.manifestGets++
	default:
		u.counts.others++
	}
}

func (u *upstream) end() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.active--
}

// counter returns what to call with the number of bytes sent of a path.
func (u *upstream) counter(path string) func(int) {
	if !strings.HasPrefix(path, "/blobs/") {
		return func(int) {}
	}
	return func(n int) {
		u.mu.Lock()
		defer u.mu.Unlock()
		u.counts.blobBytes += int64(n)
	}
}

// reset begins to count anew.
func (u *upstream) reset() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.counts = counts{}
}

// settled waits until nothing is asked any more, for a cache may go on when its
// clients are done, and returns what was counted.
func (u *upstream) settled(ctx context.Context) (counts, error) {
	started, last, idle := time.Now(), -1, time.Now()
	for time.Since(started) < quietBound {
		u.mu.Lock()
		active, now := u.active, u.counts
		u.mu.Unlock()
		if active > 0 || now.requests() != last {
			last, idle = now.requests(), time.Now()
		}
		if time.Since(idle) > quiet {
			return now, nil
		}
		if err := sleep(ctx, 10*time.Millisecond); err != nil {
			return counts{}, err
		}
	}
	return counts{}, fmt.Errorf("the upstream is still asked %s after the last pull", quietBound)
}

// blackhole makes the upstream's sockets drop all packets that they are sent, of
// connections old and new, for good. Nobody is told: that is what a firewall, or
// a route that has gone, does. A filter on sockets needs neither root nor a
// network namespace, and cannot outlive this process.
func (u *upstream) blackhole() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	errs := []error{dropPackets(u.listener)}
	for conn := range u.conns {
		errs = append(errs, dropPackets(conn.(*net.TCPConn)))
	}
	return errors.Join(errs...)
}

func dropPackets(socket syscall.Conn) error {
	raw, err := socket.SyscallConn()
	if err != nil {
		return fmt.Errorf("drop packets: %w", err)
	}
	// The whole program: of each packet keep 0 bytes.
	program := &unix.SockFprog{Len: 1, Filter: &unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: 0}}
	var attachErr error
	err = raw.Control(func(fd uintptr) {
		attachErr = unix.SetsockoptSockFprog(int(fd), unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, program)
	})
	if err := errors.Join(err, attachErr); err != nil {
		return fmt.Errorf("drop packets: %w", err)
	}
	return nil
}

// pacedWriter sends a body no faster than the upstream is. HTTP/1.1 has one
// response at a time on a connection, so this is a limit of connections.
type pacedWriter struct {
	http.ResponseWriter
	ctx     context.Context
	started time.Time
	written int64
	sent    func(int)
}

// Write implements io.Writer.
func (w *pacedWriter) Write(p []byte) (int, error) {
	n, err := w.ResponseWriter.Write(p)
	w.written += int64(n)
	w.sent(n)
	if err != nil {
		return n, err
	}
	const burstTime = time.Second * burst / upstreamBytesPerSecond
	due := time.Duration(float64(w.written) / upstreamBytesPerSecond * float64(time.Second))
	if ahead := due - time.Since(w.started); ahead > burstTime {
		return n, sleep(w.ctx, ahead)
	}
	return n, nil
}

// sleep waits, unless ctx ends before.
func sleep(ctx context.Context, duration time.Duration) error {
	timer := time.NewTimer(duration)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
