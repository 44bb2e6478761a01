// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package cacheserver

import (
	"encoding/json"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"sync"

	"github.com/gardener/gardener-extension-registry-cache/pkg/apis/inventory"
	"github.com/gardener/gardener-extension-registry-cache/pkg/pullthrough"
)

// newInventoryServer serves the list of images to who is in the pod, or has the right to
// forward its ports. One list is made at a time, for it reads all manifests.
func newInventoryServer(engine *pullthrough.Engine, logger *slog.Logger) *http.Server {
	var busy sync.Mutex
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+inventory.Path, func(w http.ResponseWriter, r *http.Request) {
		if !busy.TryLock() {
			http.Error(w, "another list is being made: try again", http.StatusServiceUnavailable)
			return
		}
		defer busy.Unlock()
		found, err := engine.Inventory(r.Context(), r.URL.Query().Get(inventory.RepositoryParameter))
		if err != nil {
			logger.Warn("Cannot list images", "error", err)
			http.Error(w, "the images cannot be listed: the log says why", http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(found) // fails if the client has gone
	})
	server := newHTTPServer(mux, nil, logger)
	server.WriteTimeout = debugTimeout
	return server
}

// listenInventory returns nil, and logs why, if it cannot listen: pulls do not need it.
func listenInventory(port int32, logger *slog.Logger) net.Listener {
	listener, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(int(port))))
	if err != nil {
		logger.Warn("Cannot serve the list of images, which pulls do not need", "error", err)
		return nil
	}
	return listener
}
