// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package node_test

import (
	"context"
	"crypto/tls"
	"log"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/gardener/gardener-extension-registry-cache/test/upstream"
)

// double takes the place of a cache, and answers the probe like one until it is
// given a fault.
type double struct {
	address string
	// ca is the authority that nodes know.
	ca *authority
	// requests are those of containerd.
	requests atomic.Int64

	handler     atomic.Pointer[http.HandlerFunc]
	certificate atomic.Pointer[tls.Certificate]
	server      *http.Server
}

// startDouble runs a double at an address and port until the spec ends.
func startDouble(ctx context.Context, address, port string) *double {
	GinkgoHelper()
	d := &double{address: net.JoinHostPort(address, port), ca: newAuthority("Shoot")}
	d.answer(func(http.ResponseWriter, *http.Request) {})
	d.present(d.ca.issue(address))
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "tcp", d.address)
	Expect(err).NotTo(HaveOccurred())
	d.server = &http.Server{ErrorLog: log.New(GinkgoWriter, "double: ", 0), ReadHeaderTimeout: time.Minute, Handler: d}
	DeferCleanup(d.server.Close)
	go func() {
		_ = d.server.Serve(tls.NewListener(listener, &tls.Config{
			// A handler can take over a connection of HTTP/1.1 only.
			NextProtos:     []string{"http/1.1"},
			MinVersion:     tls.VersionTLS12,
			GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return d.certificate.Load(), nil },
		}))
	}()
	return d
}

// ServeHTTP implements http.Handler.
func (d *double) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.UserAgent() != "registry-hosts" {
		d.requests.Add(1)
	}
	// Each connection is one that knows of the fault.
	w.Header().Set("Connection", "close")
	w.Header().Set("Content-Type", "application/json")
	(*d.handler.Load())(w, r)
}

func (d *double) url() string { return "https://" + d.address }

// answer has a handler answer from now on.
func (d *double) answer(handler http.HandlerFunc) { d.handler.Store(&handler) }

// present has new connections see this certificate.
func (d *double) present(pair keyPair) {
	certificate := pair.tls()
	d.certificate.Store(&certificate)
}

func serverError(w http.ResponseWriter, _ *http.Request) {
	w.WriteHeader(http.StatusInternalServerError)
}

// webPage answers everything like a server that is no registry.
func webPage(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/html")
	_, _ = w.Write([]byte("<html>"))
}

// noHTTP answers with bytes that are no answer.
func noHTTP(w http.ResponseWriter, _ *http.Request) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer func() { _ = conn.Close() }()
	_, _ = conn.Write([]byte("\x00\x01garbage\xff\r\n\r\ngarbage"))
}

// hangAfterHeaders answers as a registry with this content does, but sends no body.
func hangAfterHeaders(content *upstream.Registry) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		request, err := http.NewRequestWithContext(r.Context(), r.Method, content.URL()+r.URL.Path, nil)
		if err != nil {
			return
		}
		request.Header.Set("Accept", r.Header.Get("Accept"))
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			return
		}
		_ = response.Body.Close()
		for key, values := range response.Header {
			w.Header()[key] = values
		}
		w.WriteHeader(response.StatusCode)
		_ = http.NewResponseController(w).Flush()
		if r.Method != http.MethodHead {
			<-r.Context().Done()
		}
	}
}
