// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package cacheserver

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

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

	both := sum(map[string]shootv1alpha3.ReplicaReport{
		"a": {Report: a, Time: ptr.To(metav1.Unix(3, 0))}, "b": {Report: b, Time: ptr.To(metav1.Unix(4, 0))}, "of an older version": {},
	}, shootv1alpha3.Report{})
	g.Expect(both).To(Equal(shootv1alpha3.RegistryCacheStatus{HitRatio: "66%", LastReportTime: ptr.To(metav1.Unix(4, 0)), Report: shootv1alpha3.Report{
		Ready: true, Requests: 3, Hits: 2, UsedBytes: 30, TotalBytes: 200, Blobs: 7, UpstreamLeftAlone: true, LastUpstreamError: late,
	}}))

	none := sum(nil, a)
	g.Expect(none.Ready).To(BeFalse())
	g.Expect(none.Blobs).To(BeEquivalentTo(3))
	g.Expect(none.HitRatio).To(Equal("100%"))
	g.Expect(newPatch(none).Status).NotTo(HaveKey("lastReportTime"), "what stands there stays")

	g.Expect(sum(map[string]shootv1alpha3.ReplicaReport{"a": {Report: shootv1alpha3.Report{Ready: true}}}, shootv1alpha3.Report{}).HitRatio).To(BeEmpty(), "of no requests there is no ratio")
}

func TestLostReplicasAreTakenAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewWithT(t)
		reported := func(age time.Duration, requests int64) shootv1alpha3.ReplicaReport {
			return shootv1alpha3.ReplicaReport{Report: shootv1alpha3.Report{Ready: true, Requests: requests}, Time: ptr.To(metav1.NewTime(time.Now().Add(-age)))}
		}
		withoutTime := reported(0, 1000)
		withoutTime.Time = nil
		written := &shootv1alpha3.RegistryCache{ObjectMeta: metav1.ObjectMeta{ResourceVersion: "7"}, Status: &shootv1alpha3.RegistryCacheStatus{
			Replicas: map[string]shootv1alpha3.ReplicaReport{
				// This one is there, whatever stands there of it.
				"cache-0": reported(time.Hour, 1),
				"cache-1": reported(lostAfter, 10),
				"cache-2": reported(lostAfter+time.Second, 100),
				"cache-3": withoutTime,
			},
		}}
		reporter := &reporter{replica: "cache-0"}

		patch := reporter.correct(written, sum(written.Status.Replicas, shootv1alpha3.Report{}))
		body, err := json.Marshal(patch)
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(string(body)).To(And(
			ContainSubstring(`"replicas":{"cache-2":null,"cache-3":null}`), ContainSubstring(`"requests":11,`),
			ContainSubstring(`"resourceVersion":"7"`)), "and not if something else stands there by then")
		g.Expect(reporter.others).To(HaveLen(1), "the sum of the next report is without them")
		g.Expect(reporter.others).To(HaveKey("cache-1"))

		delete(written.Status.Replicas, "cache-2")
		delete(written.Status.Replicas, "cache-3")
		g.Expect(reporter.correct(written, sum(written.Status.Replicas, shootv1alpha3.Report{}))).To(BeNil())
	})
}

func TestAReportIsRenewed(t *testing.T) {
	g := NewWithT(t)
	now := time.Now()
	at := func(time time.Time, requests int64) shootv1alpha3.ReplicaReport {
		return shootv1alpha3.ReplicaReport{Report: shootv1alpha3.Report{Requests: requests}, Time: ptr.To(metav1.NewTime(time))}
	}
	reporter := &reporter{}
	g.Expect(reporter.due(at(now, 1))).To(BeTrue(), "the first one")

	reporter.written = ptr.To(at(now, 1))
	g.Expect(reporter.due(at(now.Add(longestReportSilence-time.Second), 1))).To(BeFalse())
	g.Expect(reporter.due(at(now.Add(time.Second), 2))).To(BeTrue(), "something changed")
	g.Expect(reporter.due(at(now.Add(longestReportSilence), 1))).To(BeTrue())
	g.Expect(reporter.due(at(now.Add(-longestReportSilence), 1))).To(BeTrue(), "the clock was set back")

	reporter.unsure = true
	g.Expect(reporter.due(at(now, 1))).To(BeTrue())
}

func TestThePauseBetweenReports(t *testing.T) {
	g := NewWithT(t)
	reporter := &reporter{interval: defaultReportInterval}
	failed := errors.New("the API server is gone")
	g.Expect(reporter.pauseAfter(nil, longestReportBackoff)).To(Equal(defaultReportInterval))
	g.Expect(reporter.pauseAfter(failed, defaultReportInterval)).To(Equal(2 * defaultReportInterval))
	g.Expect(reporter.pauseAfter(failed, longestReportBackoff)).To(Equal(longestReportBackoff))

	pauses := make(map[time.Duration]bool)
	for range 100 {
		pause := reporter.pauseAfter(fmt.Errorf("report: %w", errReportConflict), longestReportBackoff)
		g.Expect(pause).To(And(BeNumerically(">=", defaultReportInterval), BeNumerically("<=", defaultReportInterval*3/2)))
		pauses[pause] = true
	}
	g.Expect(len(pauses)).To(BeNumerically(">", 50), "two replicas do not choose the same one")
}

func TestAPanicDoesNotEndTheReports(t *testing.T) {
	g := NewWithT(t)
	var log bytes.Buffer
	attempts := 0
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 24*time.Hour)
		defer cancel()
		newReporter(&v1alpha1.Report{}, func() shootv1alpha3.Report {
			attempts++
			panic("xyzzy")
		}, defaultReportInterval, slog.New(slog.NewTextHandler(&log, nil))).run(ctx)
	})

	g.Expect(strings.Count(log.String(), "\n")).To(Equal(1), log.String())
	g.Expect(log.String()).To(And(ContainSubstring("level=ERROR"), ContainSubstring("panic: xyzzy"), ContainSubstring("report_test.go")), "with what it takes to mend it")
	g.Expect(attempts).To(BeNumerically(">", 100))
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
