// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package cacheserver

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/gardener/gardener-extension-registry-cache/pkg/apis/config/v1alpha1"
)

// newServingCertificate returns nil if the server is to speak plain HTTP.
func newServingCertificate(config *v1alpha1.TLS, interval time.Duration, log *slog.Logger) (*certificateFiles, error) {
	if config == nil {
		return nil, nil
	}
	certificate, err := newCertificateFiles(config.CertFile, config.KeyFile, interval, log)
	if err != nil {
		return nil, fmt.Errorf("server.tls: %w", err)
	}
	return certificate, nil
}

// certificateFiles is a serving certificate in two files. It looks at them when
// it is asked for the certificate, but not more often than once an interval, and
// compares their content: what the files are links to, and their times, need not
// change with it.
type certificateFiles struct {
	certFile, keyFile string
	interval          time.Duration
	log               *slog.Logger

	mu              sync.Mutex
	checked         time.Time
	certPEM, keyPEM []byte
	certificate     *tls.Certificate
	failure         string
}

func newCertificateFiles(certFile, keyFile string, interval time.Duration, log *slog.Logger) (*certificateFiles, error) {
	files := &certificateFiles{certFile: certFile, keyFile: keyFile, interval: interval, log: log, checked: time.Now()}
	return files, files.read()
}

// tlsConfig returns nil if there is no certificate.
func (f *certificateFiles) tlsConfig() *tls.Config {
	if f == nil {
		return nil
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return f.current(), nil
		},
	}
}

// register makes known until when the certificate is valid. Without a certificate
// there is no such metric.
func (f *certificateFiles) register(registry *prometheus.Registry) {
	if f == nil {
		return
	}
	registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "registry_cache_certificate_not_after_seconds",
		Help: "Until when the certificate is valid, in seconds since 1970.",
	}, func() float64 { return float64(f.current().Leaf.NotAfter.Unix()) }))
}

// current returns the certificate as it stands in the files, or the last one
// that could be read.
func (f *certificateFiles) current() *tls.Certificate {
	f.mu.Lock()
	defer f.mu.Unlock()

	if now := time.Now(); now.Sub(f.checked) >= f.interval {
		f.checked = now
		err := f.read()
		switch {
		case err == nil:
			f.failure = ""
		case f.failure != err.Error():
			f.failure = err.Error()
			f.log.Error("Cannot read the certificate, keeping the one in use", "error", err)
		}
	}
	return f.certificate
}

func (f *certificateFiles) read() error {
	certPEM, certErr := os.ReadFile(f.certFile)
	keyPEM, keyErr := os.ReadFile(f.keyFile)
	if err := errors.Join(certErr, keyErr); err != nil {
		return err
	}
	if f.certificate != nil && bytes.Equal(certPEM, f.certPEM) && bytes.Equal(keyPEM, f.keyPEM) {
		return nil
	}
	certificate, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		return fmt.Errorf("%s with %s: %w", f.certFile, f.keyFile, err)
	}

	replaced := f.certificate != nil
	f.certPEM, f.keyPEM, f.certificate = certPEM, keyPEM, &certificate
	if replaced {
		f.log.Info("Certificate changed", "file", f.certFile, "notAfter", certificate.Leaf.NotAfter)
	}
	return nil
}
