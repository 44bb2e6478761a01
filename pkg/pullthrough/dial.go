// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package pullthrough

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"sync"
	"syscall"
	"time"

	"oras.land/oras-go/v2/registry/remote/auth"
)

// dialer connects to the upstream, and to where it refers the cache: its token
// service, and what it redirects to. The latter may be anything but an address of the
// machine itself or of its link, where metadata services of clouds hand out
// credentials: an upstream could have the cache ask there, and pass on what it gets.
type dialer struct {
	plain, guarded *net.Dialer
	// upstream is the host that was configured. It may have any address.
	upstream string
	// proxies are hosts of proxies, as configured. What these reach is their business.
	proxies sync.Map
}

func newDialer(upstream string, timeout time.Duration) *dialer {
	return &dialer{
		plain:    &net.Dialer{Timeout: timeout, KeepAlive: keepAlive},
		guarded:  &net.Dialer{Timeout: timeout, KeepAlive: keepAlive, Control: refuseOwnAddresses},
		upstream: upstream,
	}
}

// proxy is that of the environment.
func (d *dialer) proxy(request *http.Request) (*url.URL, error) {
	proxy, err := http.ProxyFromEnvironment(request)
	if proxy != nil {
		d.proxies.Store(proxy.Hostname(), true)
	}
	return proxy, err
}

func (d *dialer) dial(ctx context.Context, network, address string) (net.Conn, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	if _, isProxy := d.proxies.Load(host); isProxy || host == d.upstream {
		return d.plain.DialContext(ctx, network, address)
	}
	return d.guarded.DialContext(ctx, network, address)
}

// refuseOwnAddresses is asked about each address just before it is connected to,
// whatever name it was looked up by. oras-go refuses the same ones for token services.
func refuseOwnAddresses(_, address string, _ syscall.RawConn) error {
	target, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("address %q: %w", address, err)
	}
	ip := target.Addr().Unmap().WithZone("")
	for _, prefix := range auth.DefaultBlockedRealmPrefixes() {
		if prefix.Contains(ip) {
			return fmt.Errorf("the upstream refers to %s, which is in %s and is not asked", ip, prefix)
		}
	}
	return nil
}
