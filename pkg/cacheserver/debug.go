// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package cacheserver

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/pprof"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	dto "github.com/prometheus/client_model/go"
	"golang.org/x/sync/singleflight"

	"github.com/gardener/gardener-extension-registry-cache/pkg/apis/config/v1alpha1"
)

const (
	// healthFile is created and deleted to see whether the storage can be written.
	healthFile = ".registry-cache-health"

	// storagePatience is how long that is waited for, which is less than the 5 seconds
	// that kubelets wait for an answer.
	storagePatience = time.Second
)

// newDebugHandler serves metrics, health, and profiles if they are wanted. What
// distribution, Go and the process count is in the registry of the process; the
// engine and this server have one of their own.
func newDebugHandler(health *health, registry *prometheus.Registry, config *v1alpha1.CacheConfiguration, version string) http.Handler {
	buildInfo := prometheus.NewGauge(prometheus.GaugeOpts{
		Name:        "registry_cache_build_info",
		Help:        "Always 1; the labels say which version runs, and for which upstream.",
		ConstLabels: prometheus.Labels{"version": version, "go_version": runtime.Version(), "upstream": config.Upstream},
	})
	buildInfo.Set(1)
	writable := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "registry_cache_storage_writable",
		Help: "1 if the volume can be written, or is full; 0: content is streamed through.",
	}, func() float64 {
		if health.checkStorage() != nil {
			return 0
		}
		return 1
	})
	registry.MustRegister(buildInfo, writable)

	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(prometheus.Gatherers{withoutProxy{prometheus.DefaultGatherer}, registry}, promhttp.HandlerOpts{}))
	mux.Handle("GET /debug/health", health)
	if config.Debug.Profiling {
		mux.HandleFunc("GET /debug/pprof/", pprof.Index)
		mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
		mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
		mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	}
	return mux
}

// withoutProxy leaves out the metrics of distribution's proxy, which is linked
// but never used: the engine's have their names.
type withoutProxy struct{ prometheus.Gatherer }

// Gather implements prometheus.Gatherer.
func (g withoutProxy) Gather() ([]*dto.MetricFamily, error) {
	families, err := g.Gatherer.Gather()
	return slices.DeleteFunc(families, func(family *dto.MetricFamily) bool {
		return strings.HasPrefix(family.GetName(), "registry_proxy_")
	}), err
}

// health is whether the cache can do its work. An upstream that is down does not
// count: what is stored is served all the same, and a restart would not help. Nor
// does a volume that cannot be written: what is there is served, and the rest is
// streamed through.
type health struct {
	rootDirectory string
	serving       atomic.Bool
	// checks has one check of the storage at a time: one that hangs is joined by those
	// after it.
	checks singleflight.Group
}

func newHealth(rootDirectory string) *health {
	return &health{rootDirectory: rootDirectory}
}

// ServeHTTP answers 200 if the cache serves, and says whether it can store, too.
func (h *health) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	if !h.serving.Load() {
		w.WriteHeader(http.StatusServiceUnavailable)
		_, _ = fmt.Fprintln(w, "not serving")
		return
	}
	if err := h.checkStorage(); err != nil {
		_, _ = fmt.Fprintf(w, "ok, but nothing can be stored: %s\n", err)
		return
	}
	_, _ = fmt.Fprintln(w, "ok")
}

// checkStorage returns an error if the storage cannot be written, or does not say so in
// time: a disk that hangs must not make the cache look as if it did.
func (h *health) checkStorage() error {
	select {
	case result := <-h.checks.DoChan("", func() (any, error) { return nil, h.writeStorage() }):
		return result.Err
	case <-time.After(storagePatience):
		return fmt.Errorf("the storage did not answer within %s", storagePatience)
	}
}

// writeStorage returns nil for a file system that is full: what it has can be
// served, and eviction makes room.
func (h *health) writeStorage() error {
	path := filepath.Join(h.rootDirectory, healthFile)
	file, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o600) //nolint:gosec // the folder is the operator's to choose
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return nil
	case err != nil:
		return err
	}
	if err := file.Close(); err != nil {
		return err
	}
	// Another check may have deleted it.
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}
