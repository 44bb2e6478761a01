// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package cacheserver

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"github.com/gardener/gardener-extension-registry-cache/pkg/apis/config/v1alpha1"
	"github.com/gardener/gardener-extension-registry-cache/pkg/pullthrough"
	"github.com/gardener/gardener-extension-registry-cache/test/process"
)

func writeCredentials(t *testing.T, dir, username, password string) {
	t.Helper()
	for name, content := range map[string]string{"username": username, "password": password} {
		NewWithT(t).Expect(os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600)).To(Succeed())
	}
}

func TestCredentialFiles(t *testing.T) {
	g := NewWithT(t)
	dir := t.TempDir()
	writeCredentials(t, dir, "alice\n", " first secret \r\n")
	out := &process.Logs{}
	files, err := newCredentialFiles(dir, 0, NewLogger(v1alpha1.Log{}, out))
	g.Expect(err).NotTo(HaveOccurred())
	first := pullthrough.Credentials{Username: "alice", Password: " first secret "}
	g.Expect(files.current(false)).To(Equal(first))
	g.Expect(out.String()).To(BeEmpty())

	writeCredentials(t, dir, "bob", "")
	for range 3 {
		g.Expect(files.current(false)).To(Equal(first))
	}
	g.Expect(out.Lines("password is empty")).To(HaveLen(1), "once, not at every look")
	g.Expect(os.Remove(filepath.Join(dir, "username"))).To(Succeed())
	g.Expect(files.current(false)).To(Equal(first))

	writeCredentials(t, dir, "bob", "second")
	g.Expect(files.current(false)).To(Equal(pullthrough.Credentials{Username: "bob", Password: "second"}))
	g.Expect(out.Lines("Credentials changed")).To(HaveLen(1))
	g.Expect(out.String()).NotTo(ContainSubstring("second"))
	g.Expect(out.String()).NotTo(ContainSubstring("bob"))
}

func TestRejectedCredentialsAreReadAgain(t *testing.T) {
	g := NewWithT(t)
	dir := t.TempDir()
	writeCredentials(t, dir, "alice", "first")
	files, err := newCredentialFiles(dir, time.Hour, NewLogger(v1alpha1.Log{}, &process.Logs{}))
	g.Expect(err).NotTo(HaveOccurred())
	writeCredentials(t, dir, "alice", "second")
	g.Expect(files.current(false).Password).To(Equal("first"))
	g.Expect(files.current(true).Password).To(Equal("second"))
}

func TestNoCredentialFiles(t *testing.T) {
	g := NewWithT(t)
	files, err := newCredentialFiles("", 0, NewLogger(v1alpha1.Log{}, &process.Logs{}))
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(files.current(false)).To(Equal(pullthrough.Credentials{}))
}
