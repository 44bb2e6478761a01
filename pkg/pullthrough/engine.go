// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package pullthrough

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/prometheus/client_golang/prometheus"
)

// Config is what an Engine is made from.
type Config struct {
	// RemoteURL is the URL of the upstream.
	RemoteURL string
	// RootDirectory is the folder of distribution's filesystem storage.
	RootDirectory string
	// TTL is the time after its last use at which a blob is deleted; 0: never.
	TTL time.Duration
	// HighWatermark and LowWatermark are the percentages of the volume in use that
	// start and end eviction.
	HighWatermark, LowWatermark int
	// Credentials returns what to log in to the upstream with. It is asked before
	// each request, and again after the upstream has rejected what it returned: then
	// it is to look whether there is something new. Nil: the cache pulls anonymously.
	Credentials func(rejected bool) Credentials
	// UserAgent is how the engine calls itself to the upstream.
	UserAgent string
	// Limits are bounds on time. The zero value is what production runs with.
	Limits Limits
	// Log gets what is worth telling. Required.
	Log *slog.Logger
	// Metrics gets the engine's metrics. Required.
	Metrics prometheus.Registerer
}

// Limits bound what the engine waits for. The zero value of each field means its
// default.
type Limits struct {
	// Connect is for a connection, and again for TLS. Defaults to 3 seconds.
	Connect time.Duration
	// ManifestHeader is for the header of an answer that is no blob's, and again
	// for its body. Defaults to 10 seconds.
	ManifestHeader time.Duration
	// BlobHeader is for the header of a blob. Defaults to 25 seconds: clients give
	// up after 30.
	BlobHeader time.Duration
	// Stale is how long a client waits for the upstream to say what a tag stands
	// for, if that is known from before. Defaults to 2.5 seconds.
	Stale time.Duration
	// StallWindow and StallBytes say when an upstream that sends too slowly is
	// taken for dead: fewer bytes in the window. Default to 15 seconds and 16 KiB.
	StallWindow time.Duration
	StallBytes  int
	// Attempts is how often a blob that broke off is gone on with until there is
	// Progress, which is in bytes. Default to 8, which take about 12 seconds, and 1
	// MiB.
	Attempts int
	Progress int64
	// Backoff is the time before the first of these attempts, about. Defaults to
	// 100 milliseconds.
	Backoff time.Duration
	// BreakerBase and BreakerLongest are for how long an upstream that failed is
	// left alone at first and at most. BreakerLongest is also for how long failures
	// are in a row, and for how long tags are not asked for when the rate limit is
	// used up. Default to 10 seconds and 2 minutes.
	BreakerBase, BreakerLongest time.Duration
	// Freshness is for how long a list of referrers is served again. Defaults to 30
	// seconds.
	Freshness time.Duration
	// EvictionInterval is the time between two looks at what may leave the volume.
	// Defaults to 30 seconds.
	EvictionInterval time.Duration
	// Remember is for how long it is remembered, at least, that a client was sent a
	// stored blob, which is hashed if that client asks for it again, and that it was
	// hashed and is right. Defaults to 15 minutes.
	Remember time.Duration
	// Recheck is how long a client waits for that hash before it is served without.
	// Defaults to 2 seconds, which is enough for some GiB that the machine has in
	// memory.
	Recheck time.Duration
}

func (l Limits) withDefaults() Limits {
	orDefault(&l.Connect, 3*time.Second)
	orDefault(&l.ManifestHeader, 10*time.Second)
	orDefault(&l.BlobHeader, 25*time.Second)
	orDefault(&l.Stale, 2500*time.Millisecond)
	orDefault(&l.StallWindow, 15*time.Second)
	orDefault(&l.StallBytes, 16<<10)
	orDefault(&l.Attempts, 8)
	orDefault(&l.Progress, 1<<20)
	orDefault(&l.Backoff, 100*time.Millisecond)
	orDefault(&l.BreakerBase, 10*time.Second)
	orDefault(&l.BreakerLongest, 2*time.Minute)
	orDefault(&l.Freshness, 30*time.Second)
	orDefault(&l.EvictionInterval, 30*time.Second)
	orDefault(&l.Remember, 15*time.Minute)
	orDefault(&l.Recheck, 2*time.Second)
	return l
}

func orDefault[T comparable](value *T, standard T) {
	var zero T
	if *value == zero {
		*value = standard
	}
}

// Engine answers for one upstream. It is made by New.
type Engine struct {
	log     *slog.Logger
	limits  Limits
	metrics *metrics
	store   *store
	evictor *evictor
	lock    *os.File
	tasks   *tasks

	remote *remote
	// source is where cold blobs come from: the remote.
	source source

	flights      flights
	heads        *calls[int64]
	manifests    *calls[*manifest]
	tags         *calls[digest.Digest]
	listings     listings
	listingCalls *calls[*listing]
	rechecks     *rechecks
}

// New takes over the volume, and begins to look after it. It fails if the volume
// cannot be written, or if another process uses it. The upstream is not asked
// before a client is.
func New(config Config) (*Engine, error) {
	config.Limits = config.Limits.withDefaults()
	if config.Credentials == nil {
		config.Credentials = func(bool) Credentials { return Credentials{} }
	}
	lock, err := lockVolume(config.RootDirectory, config.Log)
	if err != nil {
		return nil, fmt.Errorf("lock volume: %w", err)
	}
	e, err := newEngine(config, lock)
	if err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	e.tasks.start(func(ctx context.Context) { e.evictor.run(ctx, config.Limits.EvictionInterval) })
	return e, nil
}

func newEngine(config Config, lock *os.File) (*Engine, error) {
	store, err := newStore(config.RootDirectory)
	if err != nil {
		return nil, err
	}
	tasks := newTasks()
	e := &Engine{
		log: config.Log, limits: config.Limits, metrics: newMetrics(), store: store, lock: lock, tasks: tasks,
		flights:      flights{byDigest: make(map[digest.Digest]*flight), remains: make(map[digest.Digest]remains)},
		heads:        newCalls[int64](tasks),
		manifests:    newCalls[*manifest](tasks),
		tags:         newCalls[digest.Digest](tasks),
		listings:     listings{byKey: make(map[string]*listing)},
		listingCalls: newCalls[*listing](tasks),
		rechecks:     newRechecks(config.Limits.Remember, tasks),
	}
	e.evictor = &evictor{
		store: store, metrics: e.metrics, log: config.Log, abandon: e.flights.abandon,
		ttl: config.TTL, high: config.HighWatermark, low: config.LowWatermark,
		usage: func() (volumeUsage, error) { return measure(config.RootDirectory) },
		wake:  make(chan struct{}, 1),
		blobs: make(map[digest.Digest]blobUse),
	}
	if e.remote, err = newRemote(config, e.metrics); err != nil {
		return nil, err
	}
	e.source = e.remote
	if err := e.metrics.register(config.Metrics, e); err != nil {
		return nil, fmt.Errorf("register metrics: %w", err)
	}
	return e, nil
}

// withRoom stores something, and does so again on a volume that was full after
// some bytes were freed.
func (e *Engine) withRoom(ctx context.Context, bytes int64, store func() error) error {
	err := store()
	if isFull(err) && e.evictor.makeRoom(ctx, bytes) > 0 {
		err = store()
	}
	return err
}

func (e *Engine) newDownload(repository string, dgst digest.Digest, offset int64) *download {
	return &download{
		source: e.source, limits: e.limits, repository: repository, digest: dgst, offset: offset, size: unknownSize,
		resumed: func(cause error) {
			e.metrics.resumes.Inc()
			e.log.Info("A blob broke off", "repository", repository, "digest", dgst.String(), "error", redact(cause))
		},
		pulled: func(n int) { e.metrics.pulled(typeBlob, n) },
	}
}

// Close ends all flights, and gives the volume back.
func (e *Engine) Close() error {
	e.tasks.close()
	e.remote.close()
	return e.lock.Close()
}
