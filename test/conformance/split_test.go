// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
)

// split is the registry that the suite is pointed at: what belongs to a push
// goes to the upstream, all else to the cache. So the suite compares what it
// pulls from the cache with what it has just pushed.
type split struct {
	url *url.URL
	// pulls are the GET and HEAD requests that the cache got.
	pulls atomic.Int64
}

// startSplit starts a split. After a push the suite gets what it pushed from the
// Location that the registry named. That is the upstream if cold is set, so that
// the cache is first asked by a check of pulls. Else it is the cache, which has
// all blobs and manifests then before they are checked.
func startSplit(t *testing.T, upstream, cache *url.URL, cold bool) *split {
	t.Helper()
	s := &split{}
	transport := &http.Transport{DisableCompression: true}
	t.Cleanup(transport.CloseIdleConnections)
	pushes := &httputil.ReverseProxy{
		Transport: transport,
		Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(upstream) },
		ModifyResponse: func(response *http.Response) error {
			header := response.Header.Get("Location")
			if header == "" {
				return nil
			}
			location, err := upstream.Parse(header)
			if err != nil {
				return err
			}
			if !cold {
				location.Scheme, location.Host = "", ""
			}
			response.Header.Set("Location", location.String())
			return nil
		},
	}
	pulls := &httputil.ReverseProxy{
		Transport: transport,
		Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(cache) },
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		reading := r.Method == http.MethodGet || r.Method == http.MethodHead
		uploading := strings.Contains(r.URL.Path, "/blobs/uploads/")
		switch {
		case reading && !uploading:
			s.pulls.Add(1)
			pulls.ServeHTTP(w, r)
		case r.Method == http.MethodDelete && !uploading:
			pulls.ServeHTTP(w, r)
		default:
			pushes.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(server.Close)
	s.url = parseURL(t, server.URL)
	return s
}
