// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package cacheserver

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/gardener/gardener-extension-registry-cache/pkg/apis/config/v1alpha1"
	shootv1alpha3 "github.com/gardener/gardener-extension-registry-cache/pkg/apis/shoot/v1alpha3"
)

const (
	reportTimeout = 10 * time.Second
	// farewellTimeout is how long the end of the process may be kept up by the last
	// report.
	farewellTimeout = 2 * time.Second
	// longestReportBackoff is the time between two attempts while none succeeds.
	longestReportBackoff = 10 * time.Minute
	// longestReportSilence is how long a replica reports nothing if nothing changes.
	longestReportSilence = 10 * time.Minute
	// lostAfter is how old the report of another replica becomes until that replica is
	// taken for lost. It leaves room for longestReportSilence, longestReportBackoff, and
	// clocks that differ.
	lostAfter = 30 * time.Minute
	// maxReportBytes bound the answer to a report, and maxReportedMessage the message of
	// an error in it.
	maxReportBytes     = 1 << 20
	maxReportedMessage = 300
)

// errReportConflict says that another replica reported at the same time.
var errReportConflict = errors.New("another replica reported at the same time")

// reporter writes what the cache knows about itself into the status of its
// RegistryCache, with the one right that it has. It holds up nothing: what it cannot
// write is written later, or never.
//
// It speaks HTTP by itself, for a client of Kubernetes would be most of the program.
type reporter struct {
	config   *v1alpha1.Report
	replica  string
	current  func() shootv1alpha3.Report
	interval time.Duration
	log      *slog.Logger

	// written is what was last written of this replica, nil before that, and others is
	// what was then known of the others.
	written *shootv1alpha3.ReplicaReport
	others  map[string]shootv1alpha3.ReplicaReport
	// unsure says that what stands there may be something else: the last attempt failed.
	unsure bool
	// failing says that failures are in the log already, and panicked that a panic is.
	failing, panicked bool
}

func newReporter(config *v1alpha1.Report, current func() shootv1alpha3.Report, interval time.Duration, log *slog.Logger) *reporter {
	// In a pod it is the pod's name.
	replica, err := os.Hostname()
	if err != nil || replica == "" {
		replica = config.Name
	}
	return &reporter{config: config, replica: replica, current: current, interval: interval, log: log}
}

// report returns what the server knows about itself.
func (s *Server) report() shootv1alpha3.Report {
	stats := s.engine.Stats()
	report := shootv1alpha3.Report{
		Ready:    s.health.serving.Load(),
		Requests: stats.Requests, Hits: stats.Hits,
		UsedBytes: stats.UsedBytes, TotalBytes: stats.TotalBytes, Blobs: int64(stats.Blobs),
		UpstreamLeftAlone: stats.UpstreamLeftAlone,
	}
	if failure := stats.LastFailure; failure != nil {
		message := failure.Message
		if len(message) > maxReportedMessage {
			message = strings.ToValidUTF8(message[:maxReportedMessage], "") + "..."
		}
		// As it is written, so that it is the same when it is read.
		report.LastUpstreamError = &shootv1alpha3.UpstreamError{Message: message, Time: metav1.NewTime(failure.Time.UTC().Truncate(time.Second))}
	}
	return report
}

// run reports until ctx ends, and then takes its report away.
func (r *reporter) run(ctx context.Context) {
	pause := r.interval
	for ctx.Err() == nil {
		pause = r.pauseAfter(r.guard(func() error { return r.reportChange(ctx) }), pause)
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
	if r.written != nil {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), farewellTimeout)
		defer cancel()
		_ = r.guard(func() error {
			r.note(r.write(ctx, nil, r.written.Report))
			return nil
		})
	}
}

// pauseAfter returns the time until the next attempt; last is the one before this attempt.
// Replicas that met, of which the API server took one report and will take the other, are
// kept from meeting again.
func (r *reporter) pauseAfter(err error, last time.Duration) time.Duration {
	switch {
	case err == nil:
		return r.interval
	case errors.Is(err, errReportConflict):
		return r.interval + rand.N(r.interval)/2 //nolint:gosec // nobody gains by guessing it
	}
	return min(2*last, max(longestReportBackoff, r.interval))
}

// guard makes a panic of report an error, for it would end the process, and with it
// pulls. It logs the first one.
func (r *reporter) guard(report func() error) (err error) {
	defer func() {
		cause := recover()
		if cause == nil {
			return
		}
		r.unsure = true
		err = fmt.Errorf("report the status: panic: %v", cause)
		if !r.panicked {
			r.panicked = true
			r.log.Error("Reporting the status panicked, which does pulls no harm, and is tried on", "error", err, "stack", string(debug.Stack()))
		}
	}()
	return report()
}

// reportChange reports if there is something new, or if it did not for long.
func (r *reporter) reportChange(ctx context.Context) error {
	now := metav1.NewTime(time.Now().UTC().Truncate(time.Second))
	report := shootv1alpha3.ReplicaReport{Report: r.current(), Time: &now}
	if !r.due(report) {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, reportTimeout)
	defer cancel()
	err := r.write(ctx, &report, report.Report)
	r.note(err)
	r.unsure = err != nil
	if err == nil {
		r.written = &report
	}
	return err
}

// due says whether a report is to be written. If the clock was set back, it is: others
// would take this replica for one that reports no more.
func (r *reporter) due(report shootv1alpha3.ReplicaReport) bool {
	return r.written == nil || r.unsure || !equality.Semantic.DeepEqual(r.written.Report, report.Report) ||
		report.Time.Sub(r.written.Time.Time).Abs() >= longestReportSilence
}

// note logs the first of many failures, and their end.
func (r *reporter) note(err error) {
	switch {
	case err == nil && r.failing:
		r.failing = false
		r.log.Info("The status is reported again")
	case err != nil && !r.failing && !errors.Is(err, errReportConflict) && !errors.Is(err, context.Canceled):
		r.failing = true
		r.log.Info("Cannot report the status, which does no harm and is tried on", "error", err)
	}
}

// write writes the report of this replica, and takes it away if that is nil; last is the
// one of before. Then it sees to it that the sum is that of all replicas which are there,
// and takes away the reports of others which are lost.
func (r *reporter) write(ctx context.Context, report *shootv1alpha3.ReplicaReport, last shootv1alpha3.Report) error {
	all := maps.Clone(r.others)
	if all == nil {
		all = make(map[string]shootv1alpha3.ReplicaReport)
	}
	if report != nil {
		all[r.replica] = *report
	}
	status := sum(all, last)
	patch := newPatch(status)
	patch.Status["replicas"] = map[string]*shootv1alpha3.ReplicaReport{r.replica: report}
	written, err := r.patch(ctx, patch)
	if err != nil {
		return err
	}
	correction := r.correct(written, status)
	if correction == nil {
		return nil
	}
	_, err = r.patch(ctx, *correction)
	return err
}

// correct notes what others have written, and returns what has to be patched for it; nil:
// nothing. Only who has just read the reports of others can say that they are too old: if
// this replica did not reach the API server for long, those it knows of are old too.
func (r *reporter) correct(written *shootv1alpha3.RegistryCache, status shootv1alpha3.RegistryCacheStatus) *mergePatch {
	present := maps.Clone(written.Status.Replicas)
	lost := make(map[string]any)
	maps.DeleteFunc(present, func(name string, report shootv1alpha3.ReplicaReport) bool {
		if name == r.replica || !isLost(report) {
			return false
		}
		lost[name] = nil
		return true
	})
	r.others = maps.Clone(present)
	delete(r.others, r.replica)
	next := sum(present, status.Report)
	if len(lost) == 0 && equality.Semantic.DeepEqual(next, status) {
		return nil
	}
	patch := newPatch(next)
	patch.Metadata = &patchMetadata{ResourceVersion: written.ResourceVersion}
	if len(lost) > 0 {
		patch.Status["replicas"] = lost
	}
	return &patch
}

// isLost says whether a replica has not reported for so long that it is not there any
// more. One that does not say when it reported is of an older version: if it is there, it
// is about to be replaced.
func isLost(report shootv1alpha3.ReplicaReport) bool {
	return report.Time == nil || time.Since(report.Time.Time) > lostAfter
}

// sum returns the status of a cache with these replicas, without the replicas. If there
// are none, it is what was last known, but not ready, and without a time, which stays.
func sum(replicas map[string]shootv1alpha3.ReplicaReport, last shootv1alpha3.Report) shootv1alpha3.RegistryCacheStatus {
	status := shootv1alpha3.RegistryCacheStatus{}
	if len(replicas) == 0 {
		status.Report = last
		status.Ready, status.UpstreamLeftAlone = false, false
	}
	for _, replica := range replicas {
		status.Ready = status.Ready || replica.Ready
		status.Requests += replica.Requests
		status.Hits += replica.Hits
		status.UsedBytes += replica.UsedBytes
		status.TotalBytes += replica.TotalBytes
		status.Blobs += replica.Blobs
		status.UpstreamLeftAlone = status.UpstreamLeftAlone || replica.UpstreamLeftAlone
		if status.LastReportTime == nil || status.LastReportTime.Before(replica.Time) {
			status.LastReportTime = replica.Time
		}
		if failure := replica.LastUpstreamError; failure != nil && (status.LastUpstreamError == nil || isLater(failure, status.LastUpstreamError)) {
			status.LastUpstreamError = failure
		}
	}
	if status.Requests > 0 {
		status.HitRatio = fmt.Sprintf("%d%%", status.Hits*100/status.Requests)
	}
	return status
}

// isLater tells errors of the same second apart by their texts, so that all replicas
// choose the same one.
func isLater(a, b *shootv1alpha3.UpstreamError) bool {
	if a.Time.Equal(&b.Time) {
		return a.Message > b.Message
	}
	return a.Time.After(b.Time.Time)
}

// mergePatch is a JSON merge patch of a RegistryCache: null removes a field.
type mergePatch struct {
	Metadata *patchMetadata `json:"metadata,omitempty"`
	Status   map[string]any `json:"status"`
}

// patchMetadata makes the API server refuse a patch of what is not there any more.
type patchMetadata struct {
	ResourceVersion string `json:"resourceVersion"`
}

func newPatch(status shootv1alpha3.RegistryCacheStatus) mergePatch {
	patch := mergePatch{Status: map[string]any{
		"ready": status.Ready, "requests": status.Requests, "hits": status.Hits, "hitRatio": nil,
		"usedBytes": status.UsedBytes, "totalBytes": status.TotalBytes, "blobs": status.Blobs,
		"upstreamLeftAlone": status.UpstreamLeftAlone, "lastUpstreamError": status.LastUpstreamError,
	}}
	if status.HitRatio != "" {
		patch.Status["hitRatio"] = status.HitRatio
	}
	if status.LastReportTime != nil {
		patch.Status["lastReportTime"] = status.LastReportTime
	}
	return patch
}

// patch patches the status of the RegistryCache and returns what it then is.
func (r *reporter) patch(ctx context.Context, patch mergePatch) (*shootv1alpha3.RegistryCache, error) {
	body, err := json.Marshal(patch)
	if err != nil {
		return nil, fmt.Errorf("encode report: %w", err)
	}
	client, token, err := r.connect()
	if err != nil {
		return nil, err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPatch, r.url(), bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	request.Header.Set("Authorization", "Bearer "+token)
	request.Header.Set("Content-Type", "application/merge-patch+json")
	request.Header.Set("Accept", "application/json")
	request.Header.Set("User-Agent", "registry-cache")
	response, err := client.Do(request)
	if err != nil {
		return nil, err
	}
	defer func() { _ = response.Body.Close() }() // it has been read
	answer, err := io.ReadAll(io.LimitReader(response.Body, maxReportBytes))
	switch {
	case response.StatusCode == http.StatusConflict:
		return nil, errReportConflict
	case response.StatusCode != http.StatusOK:
		return nil, fmt.Errorf("%s: the API server answers %s", request.URL.Path, response.Status)
	case err != nil:
		return nil, fmt.Errorf("read answer of the API server: %w", err)
	}
	cache := &shootv1alpha3.RegistryCache{}
	if err := json.Unmarshal(answer, cache); err != nil {
		return nil, fmt.Errorf("decode answer of the API server: %w", err)
	}
	if cache.Status == nil {
		cache.Status = &shootv1alpha3.RegistryCacheStatus{}
	}
	return cache, nil
}

// connect returns a client that trusts the authorities of the API server, and the token
// for it, as they now stand in the files. The proxies of the environment are for the
// upstream. The connection is not kept: the next one may be for another token.
func (r *reporter) connect() (*http.Client, string, error) {
	token, err := os.ReadFile(filepath.Join(r.config.CredentialsDir, "token"))
	if err != nil {
		return nil, "", err
	}
	bundle, err := os.ReadFile(filepath.Join(r.config.CredentialsDir, "ca.crt"))
	if err != nil {
		return nil, "", err
	}
	authorities := x509.NewCertPool()
	if !authorities.AppendCertsFromPEM(bundle) {
		return nil, "", errors.New("the file ca.crt has no certificate")
	}
	return &http.Client{
		Transport: &http.Transport{
			TLSClientConfig:   &tls.Config{RootCAs: authorities, MinVersion: tls.VersionTLS12},
			DisableKeepAlives: true,
		},
		// The token is for the API server only.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}, strings.TrimSpace(string(token)), nil
}

func (r *reporter) url() string {
	server := r.config.Server
	if server == "" {
		server = (&url.URL{Scheme: "https", Host: net.JoinHostPort(os.Getenv("KUBERNETES_SERVICE_HOST"), os.Getenv("KUBERNETES_SERVICE_PORT"))}).String()
	}
	return fmt.Sprintf("%s/apis/%s/namespaces/%s/%s/%s/status", strings.TrimSuffix(server, "/"), shootv1alpha3.SchemeGroupVersion,
		r.config.Namespace, shootv1alpha3.Resource, r.config.Name)
}
