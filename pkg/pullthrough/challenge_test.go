// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package pullthrough

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// recorder is an upstream that answers each request with one challenge, and notes
// who is sent credentials.
type recorder struct {
	challenge string
	requests  int
	// told are the schemes and hosts that were sent credentials.
	told map[string]bool
}

// RoundTrip implements http.RoundTripper.
func (r *recorder) RoundTrip(request *http.Request) (*http.Response, error) {
	r.requests++
	if request.URL.Scheme != "http" && request.URL.Scheme != "https" || request.URL.Host == "" {
		return nil, errors.New("unsupported protocol scheme")
	}
	if request.Header.Get("Authorization") != "" || request.Body != nil && request.Body != http.NoBody {
		r.told[request.URL.Scheme+"://"+request.URL.Host] = true
	}
	return &http.Response{
		StatusCode: http.StatusUnauthorized, Request: request, ProtoMajor: 1, ProtoMinor: 1,
		Header: http.Header{"Www-Authenticate": {r.challenge}}, Body: io.NopCloser(strings.NewReader("")),
	}, nil
}

// FuzzChallenge has an upstream send any challenge: it may name any token service
// that speaks TLS, and none that does not.
func FuzzChallenge(f *testing.F) {
	for _, challenge := range []string{
		`Bearer realm="https://auth.example.com/token",service="s",scope="repository:a:pull"`,
		`Bearer realm="http://auth.example.com/token"`,
		`Bearer realm="http://registry.example.com:443/"`,
		`Bearer realm="//x",scope=" , ,,"`,
		`Bearer realm="https://user:pass@[::1]:5000/%zz"`,
		`bearer REALM=https://a`,
		`Basic realm="x"`, `Basic`, `Digest x`, ``, `Bearer`, `Bearer realm="`, "Bearer realm=\"\x00\"",
	} {
		f.Add(challenge)
	}
	f.Fuzz(func(t *testing.T, challenge string) {
		config := Config{
			RemoteURL:   "https://registry.example.com",
			Credentials: func(bool) Credentials { return Credentials{Username: "alice", Password: "secret"} },
			Limits:      Limits{Connect: time.Millisecond}.withDefaults(),
			Metrics:     prometheus.NewRegistry(),
		}
		r, err := newRemote(config, newMetrics())
		if err != nil {
			t.Fatal(err)
		}
		upstream := &recorder{challenge: challenge, told: map[string]bool{}}
		r.client.Transport = upstream
		if _, err := r.blobSize(t.Context(), "a", "sha256:x"); err == nil {
			t.Fatal("what asks for credentials is no answer")
		} else if strings.Contains(err.Error(), "secret") || strings.Contains(redact(err), "secret") {
			t.Fatalf("the password is in an error: %s", err)
		}
		if upstream.requests > 5 {
			t.Fatalf("%d requests", upstream.requests)
		}
		for host := range upstream.told {
			if !strings.HasPrefix(host, "https://") {
				t.Fatalf("%q has credentials sent to %s", challenge, host)
			}
		}
	})
}
