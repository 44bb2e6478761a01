// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package pullthrough

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"oras.land/oras-go/v2/registry/remote/auth"
)

// errRefusedAddress says that an upstream leads to an address that is not asked.
var errRefusedAddress = errors.New("not asked, for the upstream leads to an address of the machine itself, its link, or a metadata service")

// embeddedIPv4 are the networks in which addresses have an IPv4 address inside, and at
// which byte: NAT64 (RFC 6052, RFC 8215), 6to4, and what was once called IPv4-compatible.
// What else a network translates is not known here.
var embeddedIPv4 = map[netip.Prefix]int{
	netip.MustParsePrefix("64:ff9b::/96"):   12,
	netip.MustParsePrefix("64:ff9b:1::/96"): 12,
	netip.MustParsePrefix("2002::/16"):      2,
	netip.MustParsePrefix("::/96"):          12,
}

// portOfProxy is where a proxy is if its URL does not say so.
var portOfProxy = map[string]string{"http": "80", "https": "443", "socks5": "1080", "socks5h": "1080"}

// dialer connects to the upstream, and to where it refers the cache: its token
// service, and what it redirects to. These may be anywhere but at an address of the
// machine itself or of its link, or at one of a cloud's metadata service, which hands
// out credentials: an upstream could have the cache ask there, and pass on what it gets.
// Names do not help it, for the address is looked at when it is connected to.
type dialer struct {
	plain, guarded *net.Dialer
	// refused are the networks of such addresses, and own is the one that the upstream
	// was configured with, if it was.
	refused []netip.Prefix
	own     netip.Addr
	// proxies are the hosts and ports of proxies, as configured. What these reach is
	// their business.
	proxies sync.Map
}

func newDialer(upstream string, timeout time.Duration) *dialer {
	d := &dialer{refused: auth.DefaultBlockedRealmPrefixes()}
	if address, err := netip.ParseAddr(upstream); err == nil {
		d.own = address.Unmap().WithZone("")
	}
	if d.own.IsLoopback() || strings.EqualFold(upstream, "localhost") {
		// It is on this machine, and so are its storage and its token service.
		d.refused = slices.DeleteFunc(d.refused, func(network netip.Prefix) bool { return network.Addr().IsLoopback() })
	}
	d.plain = &net.Dialer{Timeout: timeout, KeepAlive: keepAlive}
	d.guarded = &net.Dialer{Timeout: timeout, KeepAlive: keepAlive, Control: d.check}
	return d
}

// proxy is that of the environment.
func (d *dialer) proxy(request *http.Request) (*url.URL, error) {
	proxy, err := http.ProxyFromEnvironment(request)
	if proxy != nil {
		port := proxy.Port()
		if port == "" {
			port = portOfProxy[proxy.Scheme]
		}
		d.proxies.Store(strings.ToLower(net.JoinHostPort(proxy.Hostname(), port)), true)
	}
	return proxy, err
}

func (d *dialer) dial(ctx context.Context, network, address string) (net.Conn, error) {
	if _, isProxy := d.proxies.Load(strings.ToLower(address)); isProxy {
		return d.plain.DialContext(ctx, network, address)
	}
	return d.guarded.DialContext(ctx, network, address)
}

// check is asked about each address just before it is connected to, whatever name it was
// looked up by. It refuses what oras-go does not ask for tokens.
func (d *dialer) check(_, address string, _ syscall.RawConn) error {
	target, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("address %q: %w", address, err)
	}
	ip := target.Addr().Unmap().WithZone("")
	if ip == d.own {
		return nil
	}
	for _, candidate := range append(embedded(ip), ip) {
		if slices.ContainsFunc(d.refused, func(network netip.Prefix) bool { return network.Contains(candidate) }) {
			return fmt.Errorf("%s: %w", ip, errRefusedAddress)
		}
	}
	return nil
}

// embedded returns the IPv4 address inside an IPv6 one, if there is one.
func embedded(ip netip.Addr) []netip.Addr {
	if ip.IsLoopback() || ip.IsUnspecified() {
		return nil
	}
	for network, at := range embeddedIPv4 {
		if network.Contains(ip) {
			bytes := ip.As16()
			return []netip.Addr{netip.AddrFrom4([4]byte(bytes[at : at+4]))}
		}
	}
	return nil
}
