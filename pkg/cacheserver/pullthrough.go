// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package cacheserver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/distribution/distribution/v3"
	"github.com/distribution/distribution/v3/configuration"
	"github.com/distribution/distribution/v3/registry/proxy"
	storagedriver "github.com/distribution/distribution/v3/registry/storage/driver"
	"github.com/distribution/reference"
)

// connectTimeout bounds one attempt to reach the upstream. Requests wait for the
// first attempt.
const connectTimeout = 3 * time.Second

type proxyConfig struct {
	// remoteURL has no slash at its end.
	remoteURL string
	// ttl is the time after its last use at which content is deleted; 0: never.
	ttl         time.Duration
	credentials *credentialFiles
	// interval is the time between two looks at the credentials, and between two
	// attempts to reach the upstream.
	interval time.Duration
}

// proxyEngine pulls through with distribution's proxy.
//
// The proxy has no more than what its constructor makes of the upstream's URL
// and credentials, so a change of credentials makes another proxy over the same
// local registry, and requests in flight end on the one that they began with.
// That holds because it never expires anything itself: expiry is one for the
// life of the engine, where two proxies would fight for one state file.
//
// The constructor asks the upstream how it authenticates, and fails if the
// upstream cannot be reached. Until it succeeds, the engine answers from what is
// stored.
type proxyEngine struct {
	proxyConfig
	log *slog.Logger

	local  distribution.Namespace
	driver storagedriver.StorageDriver
	expiry *expiry

	// connection is nil until the upstream was reached.
	connection atomic.Pointer[connection]
	// attempted is closed after the first attempt to reach it.
	attempted chan struct{}
}

type connection struct {
	distribution.Namespace
	credentials credentials
}

func newProxyEngine(config proxyConfig, log *slog.Logger) *proxyEngine {
	return &proxyEngine{proxyConfig: config, log: log, attempted: make(chan struct{})}
}

// attach is the engine's place in distribution.
func (e *proxyEngine) attach(ctx context.Context, local distribution.Namespace, driver storagedriver.StorageDriver) (distribution.Namespace, error) {
	expiry, err := newExpiry(ctx, local, driver, e.ttl, e.log)
	if err != nil {
		return nil, fmt.Errorf("start expiry: %w", err)
	}
	e.local, e.driver, e.expiry = local, driver, expiry
	return &proxyNamespace{Namespace: local, engine: e}, nil
}

// run connects to the upstream, and again whenever the credentials change, until
// ctx ends.
func (e *proxyEngine) run(ctx context.Context) {
	ticker := time.NewTicker(e.interval)
	defer ticker.Stop()

	var failure string
	for first := true; ; first = false {
		err := e.ensureConnection(ctx)
		if first {
			close(e.attempted)
		}
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			failure = ""
		case failure != err.Error():
			failure = err.Error()
			e.log.Warn("Cannot reach the upstream, serving what is stored", "remoteURL", e.remoteURL, "error", redact(failure))
		}

		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			e.credentials.refresh()
		}
	}
}

func (e *proxyEngine) ensureConnection(ctx context.Context) error {
	wanted := e.credentials.current()
	if established := e.connection.Load(); established != nil && established.credentials == wanted {
		return nil
	}

	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	if err := e.probe(ctx); err != nil {
		return err
	}
	namespace, err := e.newProxy(ctx, wanted)
	if err != nil {
		return err
	}
	e.connection.Store(&connection{Namespace: namespace, credentials: wanted})
	e.log.Info("Reached the upstream", "remoteURL", e.remoteURL, "authenticated", wanted != credentials{})
	return nil
}

// probe makes sure that the upstream answers as a registry does. The proxy would
// take the answer of one that is overloaded for that of one without
// authentication, and never ask again.
func (e *proxyEngine) probe(ctx context.Context) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, e.remoteURL+"/v2/", nil)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, io.LimitReader(response.Body, 64<<10))
	if err := errors.Join(err, response.Body.Close()); err != nil {
		return fmt.Errorf("read answer of %s/v2/: %w", e.remoteURL, err)
	}
	if response.StatusCode >= http.StatusInternalServerError || response.StatusCode == http.StatusTooManyRequests {
		return fmt.Errorf("%s/v2/ answers %s", e.remoteURL, response.Status)
	}
	return nil
}

// newProxy gives up when ctx ends, which the constructor cannot: it may stay
// behind until the upstream answers or closes the connection.
func (e *proxyEngine) newProxy(ctx context.Context, with credentials) (distribution.Namespace, error) {
	type result struct {
		namespace distribution.Namespace
		err       error
	}
	results := make(chan result, 1)
	go func() {
		never := time.Duration(0)
		namespace, err := proxy.NewRegistryPullThroughCache(context.WithoutCancel(ctx), e.local, e.driver, configuration.Proxy{
			RemoteURL: e.remoteURL,
			Username:  with.username,
			Password:  with.password,
			TTL:       &never,
		})
		results <- result{namespace, err}
	}()

	select {
	case made := <-results:
		return made.namespace, made.err
	case <-ctx.Done():
		return nil, fmt.Errorf("ask %s how it authenticates: %w", e.remoteURL, ctx.Err())
	}
}

// proxyNamespace is what distribution's handlers see of the engine.
type proxyNamespace struct {
	distribution.Namespace
	engine *proxyEngine
}

// Repository returns a repository that pulls through, or, while the upstream was
// never reached, one that has only what is stored.
func (n *proxyNamespace) Repository(ctx context.Context, name reference.Named) (distribution.Repository, error) {
	select {
	case <-n.engine.attempted:
	case <-ctx.Done():
		return nil, ctx.Err()
	}

	source, offline := n.Namespace, true
	if established := n.engine.connection.Load(); established != nil {
		source, offline = established.Namespace, false
	}
	inner, err := source.Repository(ctx, name)
	if err != nil {
		return nil, err
	}
	return &repository{Repository: inner, expiry: n.engine.expiry, offline: offline, log: n.engine.log}, nil
}

// Remove is here because distribution warns if a registry cannot remove
// repositories. Nothing calls it.
func (n *proxyNamespace) Remove(context.Context, reference.Named) error {
	return distribution.ErrUnsupported
}

// Close ends the expiry.
func (n *proxyNamespace) Close() error {
	return n.engine.expiry.close()
}
