// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package pullthrough

import (
	"net"
	"testing"
	"time"

	. "github.com/onsi/gomega"
)

func TestAddressesThatAnUpstreamMayLeadTo(t *testing.T) {
	for _, test := range []struct {
		upstream, address string
		allowed           bool
	}{
		{"registry.example.com", "192.0.2.1:443", true},
		{"registry.example.com", "10.0.0.1:443", true},
		{"registry.example.com", "[2001:db8::1]:443", true},
		{"registry.example.com", "[64:ff9b::c000:201]:443", true},
		{"registry.example.com", "127.0.0.1:80", false},
		{"registry.example.com", "127.0.0.2:80", false},
		{"registry.example.com", "[::1]:80", false},
		{"registry.example.com", "[::ffff:127.0.0.1]:80", false},
		{"registry.example.com", "[::7f00:1]:80", false},
		{"registry.example.com", "0.0.0.0:80", false},
		{"registry.example.com", "[::]:80", false},
		{"registry.example.com", "169.254.169.254:80", false},
		{"registry.example.com", "[fe80::1%eth0]:80", false},
		{"registry.example.com", "[fd00:ec2::254]:80", false},
		{"registry.example.com", "[64:ff9b::a9fe:a9fe]:80", false},
		{"registry.example.com", "[2002:a9fe:a9fe::]:80", false},
		{"localhost", "127.0.0.1:9000", true},
		{"LOCALHOST", "[::1]:9000", true},
		{"127.0.0.1", "127.0.0.2:9000", true},
		{"::1", "127.0.0.1:9000", true},
		{"127.0.0.1", "169.254.169.254:80", false},
		{"169.254.10.1", "169.254.10.1:5000", true},
		{"169.254.10.1", "169.254.169.254:80", false},
		{"169.254.10.1", "127.0.0.1:5000", false},
		{"registry.example.com", "[64:ff9b:1::a9fe:a9fe]:80", false},
		{"registry.example.com", "no address", false},
	} {
		t.Run(test.upstream+" to "+test.address, func(t *testing.T) {
			g := NewWithT(t)
			err := newDialer(test.upstream, time.Second).check("tcp", test.address, nil)
			g.Expect(err == nil).To(Equal(test.allowed), "%v", err)
		})
	}
}

func TestNamesDoNotHideAddresses(t *testing.T) {
	g := NewWithT(t)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	g.Expect(err).NotTo(HaveOccurred())
	t.Cleanup(func() { _ = listener.Close() })
	_, port, err := net.SplitHostPort(listener.Addr().String())
	g.Expect(err).NotTo(HaveOccurred())

	d := newDialer("registry.example.com", 10*time.Second)
	_, err = d.dial(t.Context(), "tcp", "localhost:"+port)
	g.Expect(err).To(MatchError(errRefusedAddress))

	// A proxy is where the environment says that it is, on its port.
	d.proxies.Store("localhost:"+port, true)
	connection, err := d.dial(t.Context(), "tcp", "LocalHost:"+port)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(connection.Close()).To(Succeed())
	_, err = d.dial(t.Context(), "tcp", "localhost:1")
	g.Expect(err).To(MatchError(errRefusedAddress))
}
