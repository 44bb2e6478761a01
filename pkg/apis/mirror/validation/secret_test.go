// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package validation_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	"github.com/gardener/gardener-extension-registry-cache/pkg/apis/mirror/validation"
)

// newCertificate returns a certificate and its private key, each a PEM block.
func newCertificate(t *testing.T, validity time.Duration) (certificate, key string) {
	t.Helper()
	g := NewWithT(t)
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	g.Expect(err).NotTo(HaveOccurred())
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "mirror-ca"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(validity),
	}
	raw, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	g.Expect(err).NotTo(HaveOccurred())
	rawKey, err := x509.MarshalPKCS8PrivateKey(private)
	g.Expect(err).NotTo(HaveOccurred())
	return block("CERTIFICATE", raw, nil), block("PRIVATE KEY", rawKey, nil)
}

func block(blockType string, content []byte, headers map[string]string) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: blockType, Bytes: content, Headers: headers}))
}

func TestValidateSecretData(t *testing.T) {
	certificate, key := newCertificate(t, time.Hour)
	other, _ := newCertificate(t, time.Hour)
	expired, _ := newCertificate(t, -time.Minute)
	der, _ := pem.Decode([]byte(certificate))

	const (
		empty        = `has the key "bundle.crt" without a certificate: set one or more PEM blocks CERTIFICATE`
		privateKey   = ` is a private key: remove it, for every node gets the bundle`
		otherType    = ` is not of type CERTIFICATE without headers: remove or convert it`
		damagedStart = `has the key "bundle.crt" with a damaged PEM block at its start: mind its first and last line, and that nothing stands before them`
		damagedAfter = `has the key "bundle.crt" with a damaged PEM block after block 1: mind its first and last line, and that nothing stands before them`
		blockOne     = `has the key "bundle.crt" whose block 1`
		blockTwo     = `has the key "bundle.crt" whose block 2`
	)
	without := func(bundle, line string) string { return strings.Replace(bundle, line, "", 1) }

	for name, test := range map[string]struct {
		bundle   string
		problems []string
	}{
		"a certificate":          {certificate, nil},
		"several":                {certificate + other + certificate, nil},
		"no line break at end":   {strings.TrimSpace(certificate), nil},
		"CR LF":                  {strings.ReplaceAll(certificate+other, "\n", "\r\n"), nil},
		"empty lines":            {"\n\n" + certificate + "\n \t\n" + other + "\n\n", nil},
		"names as in cacert.pem": {"##\n## Bundle\n##\n\nCA One\n------\n======\n" + certificate + "\nCA Two\n======\n" + other, nil},
		"expired":                {expired, nil},

		"empty":               {"", []string{empty}},
		"no PEM":              {"s3cret", []string{empty}},
		"DER":                 {string(der.Bytes), []string{empty}},
		"base64 alone":        {without(without(certificate, "-----BEGIN CERTIFICATE-----\n"), "-----END CERTIFICATE-----\n"), []string{empty}},
		"a key":               {key, []string{blockOne + privateKey}},
		"a key behind":        {certificate + key, []string{blockTwo + privateKey}},
		"a key of other type": {certificate + block("RSA PRIVATE KEY", []byte("s3cret"), map[string]string{"Proc-Type": "4,ENCRYPTED"}), []string{blockTwo + privateKey}},
		"a request":           {certificate + block("CERTIFICATE REQUEST", []byte("s3cret"), nil), []string{blockTwo + otherType}},
		"a secret type":       {certificate + block("s3cret", []byte("s3cret"), nil), []string{blockTwo + otherType}},
		"trusted certificate": {block("TRUSTED CERTIFICATE", der.Bytes, nil), []string{blockOne + otherType}},
		"headers":             {block("CERTIFICATE", der.Bytes, map[string]string{"s3cret": "s3cret"}), []string{blockOne + otherType}},

		"second malformed": {certificate + block("CERTIFICATE", []byte("s3cret"), nil), []string{blockTwo + " cannot be parsed as a certificate: x509: malformed certificate"}},
		"second cut":       {certificate + block("CERTIFICATE", der.Bytes[:len(der.Bytes)-1], nil), []string{blockTwo + " cannot be parsed as a certificate: x509: malformed certificate"}},
		"second longer":    {certificate + block("CERTIFICATE", append(der.Bytes[:len(der.Bytes):len(der.Bytes)], "s3cret"...), nil), []string{blockTwo + " cannot be parsed as a certificate: x509: trailing data"}},

		"first line missing":      {without(certificate, "-----BEGIN CERTIFICATE-----\n") + other, []string{damagedStart}},
		"last line missing":       {without(certificate, "-----END CERTIFICATE-----\n") + other, []string{damagedStart}},
		"second without an end":   {certificate + without(other, "-----END CERTIFICATE-----\n"), []string{damagedAfter}},
		"key without a start":     {certificate + without(key, "-----BEGIN PRIVATE KEY-----\n"), []string{damagedAfter}},
		"base64 damaged":          {certificate + strings.Replace(other, "M", "?", 1), []string{damagedAfter}},
		"indented":                {"  " + strings.ReplaceAll(certificate, "\n", "\n  "), []string{damagedStart}},
		"byte order mark":         {"\ufeff" + certificate, []string{damagedStart}},
		"in one line":             {strings.ReplaceAll(certificate, "\n", " "), []string{damagedStart}},
		"two in one line":         {strings.TrimSpace(certificate) + other, []string{damagedStart}},
		"types do not match":      {strings.Replace(certificate, "END CERTIFICATE", "END PRIVATE KEY", 1), []string{damagedStart}},
		"first and others, wrong": {"-----BEGIN\n" + key + other + "-----END", []string{damagedStart, blockOne + privateKey, strings.Replace(damagedAfter, "block 1", "block 2", 1)}},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			fldPath := providerConfig.Child("mirrors").Index(0).Child("hosts").Index(1).Child("caBundleSecretReferenceName")
			data := map[string][]byte{"bundle.crt": []byte(test.bundle)}
			errs := validation.ValidateSecretData(data, fldPath, "ref", "my-ca")
			var want field.ErrorList
			for _, problem := range test.problems {
				want = append(want, invalid("mirrors[0].hosts[1].caBundleSecretReferenceName", "ref", `the referenced Secret "my-ca" `+problem))
			}
			g.Expect(errs).To(Equal(want))
			if len(errs) > 0 {
				g.Expect(errs.ToAggregate().Error()).NotTo(ContainSubstring("s3cret"))
				return
			}
			// What is valid is something to containerd, too.
			g.Expect(x509.NewCertPool().AppendCertsFromPEM([]byte(test.bundle))).To(BeTrue())
		})
	}
}

func TestValidateSecret(t *testing.T) {
	certificate, _ := newCertificate(t, time.Hour)
	problem := func(text string) *field.Error {
		return invalid("mirrors[0].hosts[0].caBundleSecretReferenceName", "ref", `the referenced Secret "garden-dev/my-ca" `+text)
	}
	mutable := problem("must be immutable: set its field immutable to true")
	noBundle := problem(`lacks the key "bundle.crt": add it`)
	otherKey := func(key string) *field.Error {
		return problem(`has the key "` + key + `": remove it, only "bundle.crt" is allowed`)
	}

	for name, test := range map[string]struct {
		immutable *bool
		data      map[string]string
		want      field.ErrorList
	}{
		"immutable":             {ptr.To(true), map[string]string{"bundle.crt": certificate}, nil},
		"mutable":               {ptr.To(false), map[string]string{"bundle.crt": certificate}, field.ErrorList{mutable}},
		"mutable by default":    {nil, map[string]string{"bundle.crt": certificate}, field.ErrorList{mutable}},
		"nothing":               {ptr.To(true), nil, field.ErrorList{noBundle}},
		"key of another format": {ptr.To(true), map[string]string{"ca.crt": certificate}, field.ErrorList{noBundle, otherKey("ca.crt")}},
		"more keys":             {ptr.To(true), map[string]string{"tls.key": "s3cret", "bundle.crt": certificate, "a": ""}, field.ErrorList{otherKey("a"), otherKey("tls.key")}},
		"all at once":           {nil, map[string]string{"tls.key": "s3cret"}, field.ErrorList{mutable, noBundle, otherKey("tls.key")}},
	} {
		t.Run(name, func(t *testing.T) {
			secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "garden-dev", Name: "my-ca"}, Immutable: test.immutable, Data: map[string][]byte{}}
			for key, value := range test.data {
				secret.Data[key] = []byte(value)
			}
			fldPath := providerConfig.Child("mirrors").Index(0).Child("hosts").Index(0).Child("caBundleSecretReferenceName")
			NewWithT(t).Expect(validation.ValidateSecret(secret, fldPath, "ref")).To(Equal(test.want))
		})
	}
}

// FuzzValidateSecretData looks for a bundle that is valid, but of which
// containerd ignores something.
func FuzzValidateSecretData(f *testing.F) {
	golden, err := os.ReadFile(filepath.Join("..", "..", "..", "hosts", "testdata", "bundle.crt"))
	NewWithT(f).Expect(err).NotTo(HaveOccurred())
	f.Add(golden)
	f.Add([]byte("-----BEGIN CERTIFICATE-----\na: b\n\n-----END CERTIFICATE-----\n-----BEGIN a-----\n-----END a-----"))
	f.Fuzz(func(t *testing.T, bundle []byte) {
		if errs := validation.ValidateSecretData(map[string][]byte{"bundle.crt": bundle}, nil, "ref", "my-ca"); len(errs) > 0 {
			return
		}
		const begin = "-----BEGIN "
		blocks := strings.Split(string(bundle), begin)[1:]
		g := NewWithT(t)
		g.Expect(blocks).NotTo(BeEmpty())
		for _, block := range blocks {
			g.Expect(x509.NewCertPool().AppendCertsFromPEM([]byte(begin + block))).To(BeTrue())
		}
	})
}
