// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package cacheserver

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/gardener/gardener-extension-registry-cache/pkg/apis/config/v1alpha1"
	shootv1alpha3 "github.com/gardener/gardener-extension-registry-cache/pkg/apis/shoot/v1alpha3"
)

// How a report reaches a real API server is in test/integration/registrycache.

func TestSum(t *testing.T) {
	g := NewWithT(t)
	early := &shootv1alpha3.UpstreamError{Message: "early", Time: metav1.Unix(1, 0)}
	late := &shootv1alpha3.UpstreamError{Message: "late", Time: metav1.Unix(2, 0)}
	a := shootv1alpha3.Report{Ready: true, Requests: 2, Hits: 2, UsedBytes: 10, TotalBytes: 100, Blobs: 3, LastUpstreamError: late}
	b := shootv1alpha3.Report{Requests: 1, UsedBytes: 20, TotalBytes: 100, Blobs: 4, UpstreamLeftAlone: true, LastUpstreamError: early}

	both := sum(map[string]shootv1alpha3.Report{"a": a, "b": b}, shootv1alpha3.Report{})
	g.Expect(both).To(Equal(shootv1alpha3.RegistryCacheStatus{HitRatio: "66%", Report: shootv1alpha3.Report{
		Ready: true, Requests: 3, Hits: 2, UsedBytes: 30, TotalBytes: 200, Blobs: 7, UpstreamLeftAlone: true, LastUpstreamError: late,
	}}))

	none := sum(nil, a)
	g.Expect(none.Ready).To(BeFalse())
	g.Expect(none.Blobs).To(BeEquivalentTo(3))
	g.Expect(none.HitRatio).To(Equal("100%"))

	g.Expect(sum(map[string]shootv1alpha3.Report{"a": {Ready: true}}, shootv1alpha3.Report{}).HitRatio).To(BeEmpty(), "of no requests there is no ratio")
}

func TestFailuresAreLoggedOnce(t *testing.T) {
	g := NewWithT(t)
	log, attempts := reportFor(t, &v1alpha1.Report{Namespace: "kube-system", Name: "registry-docker-io", CredentialsDir: t.TempDir(), Server: "https://127.0.0.1:1"}, 24*time.Hour)

	g.Expect(strings.Count(log, "\n")).To(Equal(1), log)
	g.Expect(log).To(ContainSubstring("Cannot report the status"))
	g.Expect(attempts).To(BeNumerically(">", 100), "it goes on")
	g.Expect(attempts).To(BeNumerically("<", 200), "but waits longer and longer, 10 minutes at last")
}

func TestTheTokenIsNotInTheLog(t *testing.T) {
	g := NewWithT(t)
	dir := t.TempDir()
	g.Expect(os.WriteFile(filepath.Join(dir, "token"), []byte("xyzzy"), 0o600)).To(Succeed())
	g.Expect(os.WriteFile(filepath.Join(dir, "ca.crt"), []byte("xyzzy"), 0o600)).To(Succeed())

	log, _ := reportFor(t, &v1alpha1.Report{CredentialsDir: dir, Server: "https://127.0.0.1:1"}, time.Hour)

	g.Expect(log).To(ContainSubstring("ca.crt has no certificate"))
	g.Expect(log).NotTo(ContainSubstring("xyzzy"))
}

// reportFor reports in vain for some time, in which something changes all the time. It
// returns the log and how often it looked for something to report.
func reportFor(t *testing.T, config *v1alpha1.Report, duration time.Duration) (string, int) {
	t.Helper()
	var log bytes.Buffer
	attempts := 0
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), duration)
		defer cancel()
		reporter := newReporter(config, func() shootv1alpha3.Report {
			attempts++
			return shootv1alpha3.Report{Requests: int64(attempts)}
		}, defaultReportInterval, slog.New(slog.NewTextHandler(&log, nil)))
		reporter.run(ctx)
	})
	return log.String(), attempts
}
