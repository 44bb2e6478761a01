// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package control

import (
	"crypto/rand"
	"crypto/subtle"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"slices"
	"sync"
	"time"

	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"k8s.io/client-go/util/cert"
)

// proxyHost is an address of the loopback network that nothing else listens on,
// so that a port is still free when a proxy listens again.
const proxyHost = "127.95.0.1"

// internalError is what a Kubernetes API server answers when it is broken.
const internalError = `{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"the proxy was told to fail","reason":"InternalError","code":500}`

// Proxy stands in front of an API server and has the faults that it is told to
// have. It starts without any: then all requests go through, watches included.
type Proxy struct {
	// Kubeconfig leads to the API server by way of the proxy, with the rights of
	// the configuration that the proxy was started with.
	Kubeconfig []byte

	address   string
	token     string
	tls       *tls.Config
	forward   http.Handler
	transport http.RoundTripper

	mutex  sync.Mutex
	mode   proxyMode
	server *http.Server
	served chan struct{}
}

// proxyMode is what a proxy does to the requests that come while it lasts.
type proxyMode struct {
	fail  bool
	delay time.Duration
	// ended is closed when another mode begins, so that nobody waits on for an
	// answer that would come at once by then.
	ended chan struct{}
}

// StartProxy starts a proxy in front of an API server. It runs in this process
// until it is stopped. Requests that it hands on go by way of the wrappers, the
// first of which sees them first.
func StartProxy(target *rest.Config, wrappers ...func(http.Handler) http.Handler) (*Proxy, error) {
	certificate, key, err := cert.GenerateSelfSignedCertKey(proxyHost, nil, nil)
	if err != nil {
		return nil, fmt.Errorf("generate certificate of the proxy: %w", err)
	}
	pair, err := tls.X509KeyPair(certificate, key)
	if err != nil {
		return nil, fmt.Errorf("read certificate of the proxy: %w", err)
	}
	host, _, err := rest.DefaultServerUrlFor(target)
	if err != nil {
		return nil, fmt.Errorf("read address of the API server: %w", err)
	}
	transport, err := rest.TransportFor(target)
	if err != nil {
		return nil, fmt.Errorf("create transport to the API server: %w", err)
	}
	forward := newForwarder(host, transport)
	for _, wrap := range slices.Backward(wrappers) {
		forward = wrap(forward)
	}
	p := &Proxy{
		address: net.JoinHostPort(proxyHost, "0"),
		token:   rand.Text(),
		tls:     &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair}},
		forward: forward, transport: transport,
		mode: proxyMode{ended: make(chan struct{})},
	}
	if err := p.serve(); err != nil {
		return nil, err
	}
	const name = "proxy"
	p.Kubeconfig, err = clientcmd.Write(clientcmdapi.Config{
		Clusters:       map[string]*clientcmdapi.Cluster{name: {Server: "https://" + p.address, CertificateAuthorityData: certificate}},
		AuthInfos:      map[string]*clientcmdapi.AuthInfo{name: {Token: p.token}},
		Contexts:       map[string]*clientcmdapi.Context{name: {Cluster: name, AuthInfo: name}},
		CurrentContext: name,
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("write kubeconfig of the proxy: %w", err), p.Stop())
	}
	return p, nil
}

// newForwarder returns what hands requests on to an API server.
func newForwarder(target *url.URL, transport http.RoundTripper) http.Handler {
	return &httputil.ReverseProxy{
		Rewrite: func(request *httputil.ProxyRequest) {
			request.SetURL(target)
			// It is the proxy's; the transport has that of the API server.
			request.Out.Header.Del("Authorization")
		},
		Transport: transport,
		// The events of a watch may not wait for more of them.
		FlushInterval: -1,
		// Clients that leave are no news.
		ErrorLog: log.New(io.Discard, "", 0),
	}
}

// Pass ends a fault. Requests that wait for an answer get it now.
func (p *Proxy) Pass() error { return p.become(proxyMode{}, false) }

// Refuse makes the API server one that is down: connections end, watches with
// them, and new ones are refused.
func (p *Proxy) Refuse() error {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	return p.stopServing()
}

// Fail makes the API server answer each request with status 500. Connections
// end, since a client could live on a watch that it has.
func (p *Proxy) Fail() error { return p.become(proxyMode{fail: true}, true) }

// Delay makes the API server begin each of its answers that much later. Watches
// that are open go on.
func (p *Proxy) Delay(delay time.Duration) error { return p.become(proxyMode{delay: delay}, false) }

// Stop ends the proxy and all connections.
func (p *Proxy) Stop() error {
	defer utilnet.CloseIdleConnectionsFor(p.transport)
	return p.Refuse()
}

// become begins a mode. disconnect says whether connections of the one before
// end.
func (p *Proxy) become(mode proxyMode, disconnect bool) error {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	mode.ended = make(chan struct{})
	close(p.mode.ended)
	p.mode = mode
	if disconnect {
		if err := p.stopServing(); err != nil {
			return err
		}
	}
	if p.server != nil {
		return nil
	}
	return p.serve()
}

// serve listens, at the address of before if there is one.
func (p *Proxy) serve() error {
	listener, err := net.Listen("tcp", p.address)
	if err != nil {
		return fmt.Errorf("listen for the proxy: %w", err)
	}
	p.address = listener.Addr().String()
	server, served := &http.Server{
		Handler:           p,
		TLSConfig:         p.tls,
		ReadHeaderTimeout: time.Minute,
		ErrorLog:          log.New(io.Discard, "", 0),
	}, make(chan struct{})
	p.server, p.served = server, served
	go func() {
		defer close(served)
		// It returns when the server is closed, and clients notice if before.
		_ = server.ServeTLS(listener, "", "")
	}()
	return nil
}

func (p *Proxy) stopServing() error {
	if p.server == nil {
		return nil
	}
	err := p.server.Close()
	<-p.served
	p.server = nil
	if err != nil {
		return fmt.Errorf("close the proxy: %w", err)
	}
	return nil
}

// ServeHTTP answers one request as the present mode has it.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	// Whoever comes through is an administrator of the API server.
	if subtle.ConstantTimeCompare([]byte(r.Header.Get("Authorization")), []byte("Bearer "+p.token)) != 1 {
		http.Error(w, "the token is not the proxy's", http.StatusUnauthorized)
		return
	}
	p.mutex.Lock()
	mode := p.mode
	p.mutex.Unlock()
	if mode.fail {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusInternalServerError)
		_, _ = io.WriteString(w, internalError)
		return
	}
	if mode.delay > 0 {
		timer := time.NewTimer(mode.delay)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-mode.ended:
		case <-r.Context().Done():
			return
		}
	}
	p.forward.ServeHTTP(w, r)
}
