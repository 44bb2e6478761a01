// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package cacheserver

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/gardener/gardener-extension-registry-cache/pkg/apis/config/v1alpha1"
	"github.com/gardener/gardener-extension-registry-cache/test/process"
)

type testCertificate struct {
	certificate     *x509.Certificate
	certPEM, keyPEM []byte
}

// newCertificate returns a certificate of 127.0.0.1 that signs itself.
func newCertificate(t *testing.T) testCertificate {
	t.Helper()
	g := NewWithT(t)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	g.Expect(err).NotTo(HaveOccurred())
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	g.Expect(err).NotTo(HaveOccurred())
	template := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: serial.String()},
		NotBefore:             time.Now().Add(-time.Minute),
		NotAfter:              time.Now().Add(time.Hour),
		IPAddresses:           []net.IP{net.IPv4(127, 0, 0, 1)},
		IsCA:                  true,
		BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	g.Expect(err).NotTo(HaveOccurred())
	certificate, err := x509.ParseCertificate(der)
	g.Expect(err).NotTo(HaveOccurred())
	keyDER, err := x509.MarshalECPrivateKey(key)
	g.Expect(err).NotTo(HaveOccurred())
	return testCertificate{
		certificate: certificate,
		certPEM:     pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		keyPEM:      pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: keyDER}),
	}
}

// write puts the certificate into a folder as kubelet does it: the files are
// links through ..data, which is swapped.
func (c testCertificate) write(t *testing.T, dir string) {
	t.Helper()
	swap(t, dir, map[string][]byte{"tls.crt": c.certPEM, "tls.key": c.keyPEM})
}

func swap(t *testing.T, dir string, files map[string][]byte) {
	t.Helper()
	g := NewWithT(t)
	version, err := os.MkdirTemp(dir, "..version-")
	g.Expect(err).NotTo(HaveOccurred())
	for name, content := range files {
		g.Expect(os.WriteFile(filepath.Join(version, name), content, 0o600)).To(Succeed())
		if _, err := os.Lstat(filepath.Join(dir, name)); err != nil {
			g.Expect(os.Symlink(filepath.Join("..data", name), filepath.Join(dir, name))).To(Succeed())
		}
	}
	g.Expect(os.Symlink(filepath.Base(version), filepath.Join(dir, "..data_tmp"))).To(Succeed())
	g.Expect(os.Rename(filepath.Join(dir, "..data_tmp"), filepath.Join(dir, "..data"))).To(Succeed())
}

func writeCertificate(t *testing.T, dir string) *x509.Certificate {
	t.Helper()
	made := newCertificate(t)
	made.write(t, dir)
	return made.certificate
}

func TestCertificateFiles(t *testing.T) {
	g := NewWithT(t)
	dir := t.TempDir()
	first := writeCertificate(t, dir)
	out := &process.Logs{}
	files, err := newCertificateFiles(filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key"), 0, NewLogger(v1alpha1.Log{}, out))
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(files.current().Leaf.Equal(first)).To(BeTrue())
	g.Expect(out.String()).To(BeEmpty())

	other := newCertificate(t)
	for _, broken := range []map[string][]byte{
		{"tls.crt": other.certPEM[:100], "tls.key": other.keyPEM},
		{"tls.crt": other.certPEM, "tls.key": newCertificate(t).keyPEM},
		{"tls.crt": other.certPEM},
	} {
		swap(t, dir, broken)
		before := len(out.Lines("Cannot read the certificate"))
		for range 3 {
			g.Expect(files.current().Leaf.Equal(first)).To(BeTrue())
		}
		g.Expect(out.Lines("Cannot read the certificate")).To(HaveLen(before+1), "once, not at every handshake")
	}

	other.write(t, dir)
	g.Expect(files.current().Leaf.Equal(other.certificate)).To(BeTrue())
	g.Expect(out.Lines("Certificate changed")).To(HaveLen(1))
}

func TestCertificateFilesAreNotReadAtEveryHandshake(t *testing.T) {
	g := NewWithT(t)
	dir := t.TempDir()
	first := writeCertificate(t, dir)
	files, err := newCertificateFiles(filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key"), time.Hour, NewLogger(v1alpha1.Log{}, &process.Logs{}))
	g.Expect(err).NotTo(HaveOccurred())
	writeCertificate(t, dir)
	g.Expect(files.current().Leaf.Equal(first)).To(BeTrue())
}

func TestCertificateMetric(t *testing.T) {
	g := NewWithT(t)
	dir := t.TempDir()
	first := writeCertificate(t, dir)
	config := newConfig(t, "http://127.0.0.1:1")
	config.Server.TLS = &v1alpha1.TLS{CertFile: filepath.Join(dir, "tls.crt"), KeyFile: filepath.Join(dir, "tls.key")}
	cache := startCache(t, config, Options{})
	expect := func(certificate *x509.Certificate) {
		g.Eventually(func(g Gomega) {
			_, body := get(t, "http://"+cache.DebugAddr().String()+"/metrics")
			parser := expfmt.NewTextParser(model.UTF8Validation)
			families, err := parser.TextToMetricFamilies(strings.NewReader(body))
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(families).To(HaveKey("registry_cache_certificate_not_after_seconds"))
			g.Expect(families["registry_cache_certificate_not_after_seconds"].GetMetric()[0].GetGauge().GetValue()).To(BeEquivalentTo(certificate.NotAfter.Unix()))
		}, waitLimit).Should(Succeed())
	}
	expect(first)
	time.Sleep(time.Second) // in which the next one's end differs
	expect(writeCertificate(t, dir))

	plain := startCache(t, newConfig(t, "http://127.0.0.1:1"), Options{})
	_, body := get(t, "http://"+plain.DebugAddr().String()+"/metrics")
	g.Expect(body).NotTo(ContainSubstring("registry_cache_certificate"))
}
