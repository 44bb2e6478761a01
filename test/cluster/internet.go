// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"

	"github.com/gardener/gardener/pkg/utils/secrets"
	"github.com/miekg/dns"

	"github.com/gardener/gardener-extension-registry-cache/test/upstream"
)

// Internet is what the cluster has instead of one: names, registries at them, and
// a certificate authority that node and pods trust.
type Internet struct {
	// CA is the certificate authority, PEM encoded.
	CA []byte

	ca        *secrets.Certificate
	mutex     sync.Mutex
	addresses map[string]net.IP
	// last is the last number of the registries' addresses that are in use.
	last byte
}

// newInternet serves names, by UDP as node and pods ask for them.
func newInternet(ctx context.Context) (*Internet, error) {
	ca, err := (&secrets.CertificateSecretConfig{Name: "internet", CommonName: "Test Internet", CertType: secrets.CACert}).GenerateCertificate()
	if err != nil {
		return nil, fmt.Errorf("generate certificate authority of the internet: %w", err)
	}
	i := &Internet{CA: ca.CertificatePEM, ca: ca, addresses: map[string]net.IP{}}
	var config net.ListenConfig
	conn, err := config.ListenPacket(ctx, "udp", net.JoinHostPort(hostAddress, "53"))
	if err != nil {
		return nil, fmt.Errorf("listen as name server: %w", err)
	}
	server := &dns.Server{PacketConn: conn, Handler: dns.HandlerFunc(i.answer)}
	go func() { _ = server.ActivateAndServe() }()
	return i, nil
}

// answer knows IPv4 addresses of the names in use, and that there are no others.
func (i *Internet) answer(w dns.ResponseWriter, request *dns.Msg) {
	response := new(dns.Msg).SetReply(request)
	for _, question := range request.Question {
		i.mutex.Lock()
		address, known := i.addresses[strings.TrimSuffix(question.Name, ".")]
		i.mutex.Unlock()
		switch {
		case !known:
			response.Rcode = dns.RcodeNameError
		case question.Qtype == dns.TypeA:
			header := dns.RR_Header{Name: question.Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 5}
			response.Answer = append(response.Answer, &dns.A{Hdr: header, A: address})
		}
	}
	_ = w.WriteMsg(response)
}

// SetAddress gives a name another address, or its first one.
func (i *Internet) SetAddress(name string, address net.IP) {
	i.mutex.Lock()
	defer i.mutex.Unlock()
	i.addresses[name] = address
}

// ServePlain serves a registry by plain HTTP too, at port 80 of a name that it has.
func (i *Internet) ServePlain(ctx context.Context, registry *upstream.Registry, name string) error {
	i.mutex.Lock()
	address := i.addresses[name]
	i.mutex.Unlock()
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "tcp", net.JoinHostPort(address.String(), "80"))
	if err != nil {
		return fmt.Errorf("serve %s by plain HTTP: %w", name, err)
	}
	registry.PublishPlain(listener)
	return nil
}

// StartRegistry runs a registry that has the given names, at port 443 of an
// address of its own. If username is not empty, only who has the credentials may
// use it.
func (c *Cluster) StartRegistry(ctx context.Context, speed upstream.Speed, username, password string, names ...string) (*upstream.Registry, error) {
	return c.startRegistry(ctx, c.Internet.ca, speed, username, password, names)
}

// StartPrivateRegistry runs a registry that has the given names, whose certificate
// is of an authority that nobody trusts. It also returns that, PEM encoded.
func (c *Cluster) StartPrivateRegistry(ctx context.Context, speed upstream.Speed, names ...string) (*upstream.Registry, []byte, error) {
	ca, err := (&secrets.CertificateSecretConfig{Name: "private", CommonName: "CA of " + names[0], CertType: secrets.CACert}).GenerateCertificate()
	if err != nil {
		return nil, nil, fmt.Errorf("generate certificate authority: %w", err)
	}
	registry, err := c.startRegistry(ctx, ca, speed, "", "", names)
	return registry, ca.CertificatePEM, err
}

func (c *Cluster) startRegistry(ctx context.Context, ca *secrets.Certificate, speed upstream.Speed, username, password string, names []string) (*upstream.Registry, error) {
	dir, err := os.MkdirTemp(c.Dir, "registry-")
	if err != nil {
		return nil, fmt.Errorf("create folder of the registry: %w", err)
	}
	registry, err := upstream.Start(dir, username, password) //nolint:contextcheck // it lives until it is closed
	if err != nil {
		return nil, err
	}
	listener, certificate, err := c.Internet.listen(ctx, ca, names)
	if err != nil {
		return nil, fmt.Errorf("bring registry %s to the internet: %w", names[0], err)
	}
	registry.Publish(listener, certificate, speed)
	return registry, nil
}

// listen adds an address that has the given names, and listens there for HTTPS.
func (i *Internet) listen(ctx context.Context, ca *secrets.Certificate, names []string) (net.Listener, tls.Certificate, error) {
	certificate, err := (&secrets.CertificateSecretConfig{
		Name: names[0], CommonName: names[0], DNSNames: names, CertType: secrets.ServerCert, SigningCA: ca,
	}).GenerateCertificate()
	if err != nil {
		return nil, tls.Certificate{}, fmt.Errorf("generate certificate: %w", err)
	}
	pair, err := tls.X509KeyPair(certificate.CertificatePEM, certificate.PrivateKeyPEM)
	if err != nil {
		return nil, tls.Certificate{}, fmt.Errorf("read certificate: %w", err)
	}

	i.mutex.Lock()
	defer i.mutex.Unlock()
	address := i.nextAddress()
	if _, err := run(ctx, "ip", "addr", "add", address.String()+"/32", "dev", "lo"); err != nil {
		return nil, tls.Certificate{}, err
	}
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "tcp", net.JoinHostPort(address.String(), "443"))
	if err != nil {
		return nil, tls.Certificate{}, fmt.Errorf("listen: %w", err)
	}
	for _, name := range names {
		i.addresses[name] = address
	}
	return listener, pair, nil
}

// nextAddress returns an address that no registry has had.
func (i *Internet) nextAddress() net.IP {
	i.last++
	return net.IPv4(10, 250, 1, i.last)
}
