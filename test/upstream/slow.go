// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package upstream

import (
	"context"
	"net"

	"golang.org/x/time/rate"
)

// slowBurst is how many bytes a slow connection sends at once.
const slowBurst = 32 << 10

// slowListener accepts connections that send at a limited rate.
type slowListener struct {
	net.Listener
	bytesPerSecond int
}

// Accept implements net.Listener.
func (l *slowListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	return &slowConn{Conn: conn, ctx: ctx, cancel: cancel, limiter: rate.NewLimiter(rate.Limit(l.bytesPerSecond), slowBurst)}, nil
}

type slowConn struct {
	net.Conn
	// ctx ends with the connection.
	ctx     context.Context
	cancel  context.CancelFunc
	limiter *rate.Limiter
}

// Write implements net.Conn.
func (c *slowConn) Write(p []byte) (int, error) {
	written := 0
	for len(p) > 0 {
		chunk := p[:min(len(p), slowBurst)]
		if err := c.limiter.WaitN(c.ctx, len(chunk)); err != nil {
			return written, net.ErrClosed
		}
		n, err := c.Conn.Write(chunk)
		written += n
		if err != nil {
			return written, err
		}
		p = p[n:]
	}
	return written, nil
}

// Close implements net.Conn.
func (c *slowConn) Close() error {
	c.cancel()
	return c.Conn.Close()
}
