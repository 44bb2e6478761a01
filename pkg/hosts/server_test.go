// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package hosts

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	. "github.com/onsi/gomega"
)

// authority is a CA.
type authority struct {
	parent *x509.Certificate
	key    *ecdsa.PrivateKey
	pem    []byte
}

func newAuthority(t testing.TB) *authority {
	t.Helper()
	g := NewWithT(t)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	g.Expect(err).NotTo(HaveOccurred())
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()),
		// Subjects differ, or a wrong CA shows as a broken signature.
		Subject:               pkix.Name{CommonName: rand.Text()},
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().Add(time.Hour),
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	g.Expect(err).NotTo(HaveOccurred())
	parent, err := x509.ParseCertificate(der)
	g.Expect(err).NotTo(HaveOccurred())
	return &authority{parent, key, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})}
}

// certificate returns a server certificate for loopback that is valid for some
// time; negative: that has expired.
func (a *authority) certificate(t testing.TB, valid time.Duration) *tls.Certificate {
	t.Helper()
	g := NewWithT(t)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	g.Expect(err).NotTo(HaveOccurred())
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()),
		NotBefore:    time.Now().Add(-2 * time.Hour),
		NotAfter:     time.Now().Add(valid),
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
	}, a.parent, key.Public(), a.key)
	g.Expect(err).NotTo(HaveOccurred())
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// server is a registry on loopback whose behaviour can be changed while it runs.
type server struct {
	url         string
	address     string
	requests    atomic.Int64
	certificate atomic.Pointer[tls.Certificate]
	handler     atomic.Pointer[http.HandlerFunc]

	running *http.Server
	done    chan error
}

// newServer starts a server that answers 200, with TLS unless certificate is
// nil.
func newServer(t testing.TB, ip string, certificate *tls.Certificate) *server {
	t.Helper()
	socket, address := bind(t, net.JoinHostPort(ip, "0"))
	// Before it the server is stopped.
	t.Cleanup(func() { _ = syscall.Close(socket) })
	s := &server{address: address}
	s.certificate.Store(certificate)
	s.answer(func(http.ResponseWriter, *http.Request) {})
	s.start(t)
	s.url = "http://" + s.address
	if certificate != nil {
		s.url = "https://" + s.address
	}
	t.Cleanup(s.stop)
	return s
}

func (s *server) answer(handler http.HandlerFunc) { s.handler.Store(&handler) }

func (s *server) status(code int) {
	s.answer(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) })
}

// start listens at the address, which is the server's also while it is stopped.
func (s *server) start(t testing.TB) {
	t.Helper()
	var listener net.Listener
	// For a moment the port may be that of somebody's connection.
	NewWithT(t).Eventually(func() (err error) {
		listener, err = net.Listen("tcp", s.address)
		return err
	}).WithTimeout(20 * time.Second).Should(Succeed())
	if s.certificate.Load() != nil {
		listener = tls.NewListener(listener, &tls.Config{
			MinVersion:     tls.VersionTLS12,
			GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return s.certificate.Load(), nil },
		})
	}
	s.running = &http.Server{
		ReadHeaderTimeout: 10 * time.Second,
		ErrorLog:          log.New(io.Discard, "", 0),
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			s.requests.Add(1)
			if r.URL.Path != "/v2/" {
				w.WriteHeader(http.StatusTeapot)
				return
			}
			w.Header().Set("Content-Type", "application/json; charset=utf-8")
			(*s.handler.Load())(w, r)
		}),
	}
	s.done = make(chan error, 1)
	go func(running *http.Server, done chan<- error) { done <- running.Serve(listener) }(s.running, s.done)
}

// stop has the address refuse connections, and cuts all that there are.
func (s *server) stop() {
	if s.running != nil {
		_ = s.running.Close()
		<-s.done
		s.running = nil
	}
}

// blackHole makes packets to an address go unanswered until the test ends: a
// socket that accepts nothing drops them once its queue is full. It returns the
// address.
func blackHole(t testing.TB, address string) string {
	t.Helper()
	g := NewWithT(t)
	socket, address := bind(t, address)
	t.Cleanup(func() { _ = syscall.Close(socket) })
	g.Expect(syscall.Listen(socket, 0)).To(Succeed())
	g.Eventually(func() error {
		connection, err := net.DialTimeout("tcp", address, 200*time.Millisecond)
		if err == nil {
			t.Cleanup(func() { _ = connection.Close() })
		}
		return err
	}).WithTimeout(20 * time.Second).Should(MatchError(ContainSubstring("timeout")))
	return address
}

// bind returns a socket that has an address but does not listen there, and the
// address with its port. Until it is closed nobody gets that port who does not ask
// for it.
func bind(t testing.TB, address string) (socket int, bound string) {
	t.Helper()
	g := NewWithT(t)
	want, err := netip.ParseAddrPort(address)
	g.Expect(err).NotTo(HaveOccurred())
	family, name := syscall.AF_INET6, syscall.Sockaddr(&syscall.SockaddrInet6{Port: int(want.Port()), Addr: want.Addr().As16()})
	if want.Addr().Is4() {
		family, name = syscall.AF_INET, &syscall.SockaddrInet4{Port: int(want.Port()), Addr: want.Addr().As4()}
	}
	socket, err = syscall.Socket(family, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	g.Expect(err).NotTo(HaveOccurred())
	// Whoever asks for it has to set this too, as net.Listen does.
	g.Expect(syscall.SetsockoptInt(socket, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1)).To(Succeed())
	// For a moment the port may be that of somebody's connection.
	g.Eventually(func() error { return syscall.Bind(socket, name) }).WithTimeout(20 * time.Second).Should(Succeed())
	name, err = syscall.Getsockname(socket)
	g.Expect(err).NotTo(HaveOccurred())
	port := 0
	switch name := name.(type) {
	case *syscall.SockaddrInet4:
		port = name.Port
	case *syscall.SockaddrInet6:
		port = name.Port
	}
	return socket, netip.AddrPortFrom(want.Addr(), uint16(port)).String()
}
