// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package cacheserver

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"syscall"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// healthFile is created and deleted to see whether the storage can be written.
const healthFile = ".registry-cache-health"

// newDebugHandler serves metrics and health. distribution registers its metrics,
// and the Prometheus client those of Go and the process, with the registry of
// the process; those of this server come in addition.
func newDebugHandler(health *health, upstream, version string) http.Handler {
	own := prometheus.NewRegistry()
	buildInfo := prometheus.NewGauge(prometheus.GaugeOpts{
		Name:        "registry_cache_build_info",
		Help:        "Always 1; the labels say which version runs, and for which upstream.",
		ConstLabels: prometheus.Labels{"version": version, "go_version": runtime.Version(), "upstream": upstream},
	})
	buildInfo.Set(1)
	own.MustRegister(buildInfo)

	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(prometheus.Gatherers{prometheus.DefaultGatherer, own}, promhttp.HandlerOpts{}))
	mux.Handle("GET /debug/health", health)
	return mux
}

// health is whether the cache can do its work. An upstream that is down does not
// count: what is stored is served all the same, and a restart would not help.
type health struct {
	rootDirectory string
	serving       atomic.Bool
}

func newHealth(rootDirectory string) *health {
	return &health{rootDirectory: rootDirectory}
}

// ServeHTTP answers 200 if the cache is healthy, and else 503 with the reason.
func (h *health) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	reason := h.check()
	if reason != nil {
		w.WriteHeader(http.StatusServiceUnavailable)
		_, _ = fmt.Fprintln(w, reason)
		return
	}
	_, _ = fmt.Fprintln(w, "ok")
}

func (h *health) check() error {
	if !h.serving.Load() {
		return errors.New("not serving")
	}
	if err := h.checkStorage(); err != nil {
		return fmt.Errorf("storage: %w", err)
	}
	return nil
}

// checkStorage returns nil for a file system that is full: what it has can be
// served, and eviction makes room.
func (h *health) checkStorage() error {
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
