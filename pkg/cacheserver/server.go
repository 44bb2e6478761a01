// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package cacheserver

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/distribution/distribution/v3/registry/handlers"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/gardener/gardener-extension-registry-cache/pkg/apis/config/v1alpha1"
	"github.com/gardener/gardener-extension-registry-cache/pkg/apis/config/validation"
	"github.com/gardener/gardener-extension-registry-cache/pkg/pullthrough"
)

const (
	defaultDrainTimeout = 20 * time.Second
	defaultWriteTimeout = 5 * time.Minute
	defaultPollInterval = 5 * time.Second

	defaultReportInterval = 30 * time.Second

	// There is no WriteTimeout: a large layer may take a slow client longer than
	// any bound that would be of use.
	readHeaderTimeout = 10 * time.Second
	idleTimeout       = 2 * time.Minute
	maxHeaderBytes    = 64 << 10
	debugTimeout      = 30 * time.Second
)

// Options are what is not part of a cache's configuration. The zero value is
// what production runs with, but for the version.
type Options struct {
	// Version is shown in the build info metric. Defaults to `unknown`.
	Version string
	// DrainTimeout is how long running transfers may take to end when the server
	// stops, after the delay that is configured. Defaults to 20 seconds.
	DrainTimeout time.Duration
	// WriteTimeout is how long a client may take to read a part of an answer, of a
	// few MiB at most. There is no limit to the time for all of it. Defaults to 5
	// minutes.
	WriteTimeout time.Duration
	// PollInterval is the least time between two looks at the credentials and at
	// the certificate. Defaults to 5 seconds.
	PollInterval time.Duration
	// ReportInterval is the least time between two reports to the API server. Defaults
	// to 30 seconds.
	ReportInterval time.Duration
	// Limits bound what the cache waits for.
	Limits pullthrough.Limits
}

func (o Options) withDefaults() Options {
	if o.Version == "" {
		o.Version = "unknown"
	}
	if o.DrainTimeout <= 0 {
		o.DrainTimeout = defaultDrainTimeout
	}
	if o.WriteTimeout <= 0 {
		o.WriteTimeout = defaultWriteTimeout
	}
	if o.PollInterval <= 0 {
		o.PollInterval = defaultPollInterval
	}
	if o.ReportInterval <= 0 {
		o.ReportInterval = defaultReportInterval
	}
	return o
}

// Server is the cache of one upstream.
type Server struct {
	log                         *slog.Logger
	shutdownDelay, drainTimeout time.Duration

	engine *pullthrough.Engine
	app    *handlers.App
	health *health
	// reporter is nil if the cache reports nowhere.
	reporter *reporter

	registry         *http.Server
	registryListener net.Listener
	tls              bool
	debug            *http.Server
	debugListener    net.Listener
	// inventoryListener is nil if there is no list of images.
	inventory         *http.Server
	inventoryListener net.Listener
}

// New returns a Server that listens on its addresses already, but answers only
// once Run is called. Unset fields of config are defaulted. The error names the
// field that is wrong: an invalid value, a folder that cannot be written,
// credentials or a certificate that cannot be read, an address in use.
//
// The upstream need not be reachable.
//
// New routes the log of distribution, which is one per process, to logger.
func New(config *v1alpha1.CacheConfiguration, logger *slog.Logger, options Options) (*Server, error) {
	config = config.DeepCopy()
	v1alpha1.SetObjectDefaults_CacheConfiguration(config)
	if err := validation.ValidateCacheConfiguration(config).ToAggregate(); err != nil {
		return nil, err
	}
	options = options.withDefaults()
	logger = logger.With("upstream", config.Upstream)
	bridgeLogrus(logger, config.Log.Level)

	certificate, err := newServingCertificate(config.Server.TLS, options.PollInterval, logger)
	if err != nil {
		return nil, err
	}
	credentials, err := newCredentialFiles(config.CredentialsDir, options.PollInterval, logger)
	if err != nil {
		return nil, fmt.Errorf("credentialsDir: %w", err)
	}
	health := newHealth(config.Storage.RootDirectory)
	if err := prepareStorage(health); err != nil {
		return nil, fmt.Errorf("storage.rootDirectory: %w", err)
	}

	registry := prometheus.NewRegistry()
	certificate.register(registry)
	engine, err := pullthrough.New(pullthrough.Config{
		RemoteURL:     config.RemoteURL,
		RootDirectory: config.Storage.RootDirectory,
		TTL:           config.GarbageCollection.TTL.Duration,
		HighWatermark: int(*config.GarbageCollection.HighWatermark),
		LowWatermark:  int(*config.GarbageCollection.LowWatermark),
		Credentials:   credentials.current,
		UserAgent:     "registry-cache/" + options.Version,
		Limits:        options.Limits,
		Log:           logger,
		Metrics:       registry,
	})
	if err != nil {
		return nil, fmt.Errorf("storage.rootDirectory: %w", err)
	}
	app, err := newApplication(config.Storage.RootDirectory, engine.Namespace)
	if err != nil {
		return nil, errors.Join(err, engine.Close())
	}

	server := &Server{
		log:           logger,
		shutdownDelay: config.Server.ShutdownDelay.Duration,
		drainTimeout:  options.DrainTimeout,
		engine:        engine,
		app:           app,
		health:        health,
		registry:      newHTTPServer(newRegistryHandler(engine.Listings(app), config.Upstream, options.WriteTimeout, logger), certificate.tlsConfig(), logger),
		tls:           certificate != nil,
		debug:         newHTTPServer(newDebugHandler(health, registry, config, options.Version), nil, logger),
	}
	server.debug.WriteTimeout = debugTimeout
	server.inventory = newInventoryServer(engine, logger)
	if config.Report != nil {
		server.reporter = newReporter(config.Report, server.report, options.ReportInterval, logger)
	}
	if err := server.listen(config.Server.Address, config.Debug.Address); err != nil {
		return nil, errors.Join(err, app.Shutdown(), engine.Close())
	}
	if port := config.Debug.InventoryPort; port != nil {
		server.inventoryListener = listenInventory(*port, logger)
	}
	return server, nil
}

func prepareStorage(health *health) error {
	if err := os.MkdirAll(health.rootDirectory, 0o750); err != nil {
		return err
	}
	return health.checkStorage()
}

func newHTTPServer(handler http.Handler, tlsConfig *tls.Config, logger *slog.Logger) *http.Server {
	// No HTTP/2: each layer has a connection, and time limits, of its own.
	protocols := &http.Protocols{}
	protocols.SetHTTP1(true)
	return &http.Server{
		Protocols:         protocols,
		Handler:           handler,
		TLSConfig:         tlsConfig,
		ReadHeaderTimeout: readHeaderTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          newServerErrorLog(logger),
	}
}

func (s *Server) listen(registryAddress, debugAddress string) error {
	var err error
	if s.registryListener, err = net.Listen("tcp", registryAddress); err != nil {
		return fmt.Errorf("server.address: %w", err)
	}
	if s.debugListener, err = net.Listen("tcp", debugAddress); err != nil {
		return errors.Join(fmt.Errorf("debug.address: %w", err), s.registryListener.Close())
	}
	return nil
}

// RegistryAddr is the address that the registry API listens on.
func (s *Server) RegistryAddr() net.Addr { return s.registryListener.Addr() }

// DebugAddr is the address that metrics and health listen on.
func (s *Server) DebugAddr() net.Addr { return s.debugListener.Addr() }

// InventoryAddr is the address that the list of images listens on. Nil: there is none.
func (s *Server) InventoryAddr() net.Addr {
	if s.inventoryListener == nil {
		return nil
	}
	return s.inventoryListener.Addr()
}

// Run serves until ctx ends and the configured delay is over, then lets running
// transfers end, and returns nil.
// It returns an error if the registry or the debug server fails before. A Server runs
// once.
func (s *Server) Run(ctx context.Context) error {
	s.log.Info("Serving", "address", s.RegistryAddr().String(), "tls", s.tls, "debugAddress", s.DebugAddr().String())
	s.health.serving.Store(true)

	group, groupCtx := errgroup.WithContext(ctx)
	group.Go(func() error { return serve(s.registry, s.registryListener, s.tls) })
	group.Go(func() error { return serve(s.debug, s.debugListener, false) })
	if s.inventoryListener != nil {
		group.Go(func() error {
			if err := serve(s.inventory, s.inventoryListener, false); err != nil {
				s.log.Error("Cannot serve the list of images any more, which pulls do not need", "error", err)
			}
			return nil
		})
	}
	if s.reporter != nil {
		group.Go(func() error {
			s.reporter.run(groupCtx)
			return nil
		})
	}
	group.Go(func() error {
		<-groupCtx.Done()
		s.log.Info("Stopping", "shutdownDelay", s.shutdownDelay.String(), "drainTimeout", s.drainTimeout.String())
		s.health.serving.Store(false)
		if ctx.Err() != nil { // nothing has failed
			time.Sleep(s.shutdownDelay)
		}
		return s.shutdown(context.WithoutCancel(ctx))
	})
	return group.Wait()
}

func serve(server *http.Server, listener net.Listener, tls bool) error {
	var err error
	if tls {
		err = server.ServeTLS(listener, "", "")
	} else {
		err = server.Serve(listener)
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("serve %s: %w", listener.Addr(), err)
}

// shutdown ends the debug server last, so that a drain can be watched.
func (s *Server) shutdown(ctx context.Context) error {
	drainCtx, cancel := context.WithTimeout(ctx, s.drainTimeout)
	defer cancel()
	var errs []error
	if err := s.registry.Shutdown(drainCtx); err != nil {
		s.log.Warn("Cut transfers that did not end in time", "error", err)
		errs = append(errs, s.registry.Close())
	}
	errs = append(errs, s.app.Shutdown(), s.inventory.Close(), s.engine.Close(), s.debug.Close())
	s.log.Info("Stopped")
	return errors.Join(errs...)
}
