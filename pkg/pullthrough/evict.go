// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package pullthrough

import (
	"cmp"
	"context"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

// Reasons why a blob leaves the volume.
const (
	reasonWatermark = "watermark"
	reasonFull      = "full"
	reasonTTL       = "ttl"
	reasonCorrupt   = "corrupt"
)

const (
	// spoolTTL is how long the beginning of a blob is kept for the next who asks.
	spoolTTL = time.Hour
	// coarsest is how old the time of a file may be compared to that of its blob's
	// last use: writing it at each use would cost more than it tells.
	coarsest = 10 * time.Minute
	// roomBytes is what is freed on a full volume for content of unknown size.
	roomBytes = 64 << 20
	// filesFull is the percentage of files in use at which those are what a volume
	// lacks, and not bytes.
	filesFull = 95
)

// evictor decides what leaves the volume, by an index of all blobs in memory. The
// times of use are kept in the times of the files, so the index is made anew at
// each start by a walk, during which the cache serves.
type evictor struct {
	store   *store
	metrics *metrics
	log     *slog.Logger
	// abandon removes the spool of a blob unless a flight uses it.
	abandon func(dgst digest.Digest, remove func() error) bool

	// ttl is the time since last use after which a blob goes; 0: never.
	ttl time.Duration
	// high and low are percentages of the volume.
	high, low int
	// usage measures the volume.
	usage func() (volumeUsage, error)
	// wake has a value when there is something to look at before the next tick.
	wake chan struct{}

	mu sync.Mutex
	// begun says that the walk has ended, walked that the index has all that there
	// is.
	begun, walked bool
	blobs         map[digest.Digest]blobUse
	bytes         int64
}

// blobUse is what the index knows of a blob. Times are in nanoseconds since 1970.
type blobUse struct {
	size int64
	// last is when it was last used, marked what its file says of that.
	last, marked int64
}

// volumeUsage is how full a volume is.
type volumeUsage struct {
	// used and total are bytes, of what may be used without privileges.
	used, total int64
	// usedFiles and totalFiles are files; 0: the file system has no limit.
	usedFiles, totalFiles int64
}

// measure returns the usage of the file system of a folder, as df has it.
func measure(folder string) (volumeUsage, error) {
	var stat unix.Statfs_t
	if err := unix.Statfs(folder, &stat); err != nil {
		return volumeUsage{}, &os.PathError{Op: "statfs", Path: folder, Err: err}
	}
	block := stat.Bsize
	used := int64(stat.Blocks-stat.Bfree) * block //nolint:gosec // no volume has 2^63 bytes
	return volumeUsage{
		used: used, total: used + int64(stat.Bavail)*block, //nolint:gosec // see above
		usedFiles: int64(stat.Files - stat.Ffree), totalFiles: int64(stat.Files), //nolint:gosec // nor files
	}, nil
}

// excess returns by how many bytes and files a volume is above a percentage.
func (u volumeUsage) excess(percent int) (bytes, files int64) {
	return u.used - u.total*int64(percent)/100, u.usedFiles - u.totalFiles*int64(percent)/100
}

// used notes the use of a blob, of which info is that of its file.
func (v *evictor) used(dgst digest.Digest, info fs.FileInfo) {
	v.mu.Lock()
	use, ok := v.blobs[dgst]
	if !ok && v.walked {
		// It was evicted after it was opened.
		v.mu.Unlock()
		return
	}
	if !ok {
		use = blobUse{size: info.Size(), marked: lastUse(info)}
		v.bytes += use.size
	}
	use.last = time.Now().UnixNano()
	mark := time.Duration(use.last-use.marked) > v.resolution()
	if mark {
		use.marked = use.last
	}
	v.blobs[dgst] = use
	v.mu.Unlock()

	if mark {
		if err := v.store.markUsed(dgst); err != nil && ignoreNotExist(err) != nil {
			v.log.Debug("Cannot note the use of a blob", "digest", dgst.String(), "error", err)
		}
	}
}

// resolution is how exact the times of files are.
func (v *evictor) resolution() time.Duration {
	if v.ttl == 0 {
		return coarsest
	}
	return min(coarsest, v.ttl/10)
}

// added notes a blob that was stored now.
func (v *evictor) added(dgst digest.Digest, size int64) {
	now := time.Now().UnixNano()
	v.mu.Lock()
	v.bytes += size - v.blobs[dgst].size
	v.blobs[dgst] = blobUse{size: size, last: now, marked: now}
	v.mu.Unlock()
	v.metrics.storedBlobSize.Observe(float64(size))
	select {
	case v.wake <- struct{}{}:
	default:
	}
}

// listed notes a blob that the walk came by.
func (v *evictor) listed(dgst digest.Digest, info fs.FileInfo) {
	at := lastUse(info)
	v.found(dgst, blobUse{size: info.Size(), last: at, marked: at})
}

// found notes a blob of before, unless it is known.
func (v *evictor) found(dgst digest.Digest, use blobUse) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if _, ok := v.blobs[dgst]; ok {
		return
	}
	v.blobs[dgst] = use
	v.bytes += use.size
}

// totals returns how many blobs there are, and their bytes.
func (v *evictor) totals() (blobs int, bytes int64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return len(v.blobs), v.bytes
}

// run evicts until ctx ends. It begins with a walk.
func (v *evictor) run(ctx context.Context, interval time.Duration) {
	began := time.Now()
	err := v.store.walk(ctx, v.listed)
	if err != nil && ctx.Err() == nil {
		v.log.Error("Cannot list all blobs", "error", err)
	}
	v.mu.Lock()
	v.begun, v.walked = true, err == nil
	v.mu.Unlock()
	blobs, bytes := v.totals()
	v.log.Info("Listed the blobs of the volume", "blobs", blobs, "bytes", bytes, "seconds", time.Since(began).Seconds())
	if err := v.store.removeUploads(ctx); err != nil {
		v.log.Error("Cannot remove uploads", "error", err)
	}
	v.clean(ctx)

	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for cleaned, evicted := time.Now(), 0; ; {
		evicted += v.lower(ctx)
		select {
		case <-ctx.Done():
			return
		case <-v.wake:
		case now := <-ticker.C:
			evicted += v.expire(now)
			v.removeSpools(spoolTTL)
		}
		if evicted > 0 && time.Since(cleaned) > cleanInterval {
			v.clean(ctx)
			cleaned, evicted = time.Now(), 0
		}
	}
}

// cleanInterval is the least time between two looks for links without content.
// They do no harm.
const cleanInterval = time.Hour

// clean removes links without content, and returns how many.
func (v *evictor) clean(ctx context.Context) int {
	removed, err := v.store.removeDangling(ctx)
	if err != nil && ctx.Err() == nil {
		v.log.Error("Cannot remove links without content", "error", err)
	}
	if removed > 0 {
		v.log.Info("Removed links without content", "links", removed)
	}
	return removed
}

// expire removes what was not used for the ttl.
func (v *evictor) expire(now time.Time) (evicted int) {
	if v.ttl == 0 {
		return 0
	}
	before := now.Add(-v.ttl).UnixNano()
	for _, old := range v.candidates(func(use blobUse) bool { return use.last < before }) {
		if v.evict(old, reasonTTL) {
			evicted++
		}
	}
	return evicted
}

// lower brings the volume below its low watermark if it is above the high one.
func (v *evictor) lower(ctx context.Context) (evicted int) {
	usage, err := v.usage()
	if err != nil {
		v.log.Error("Cannot measure the volume", "error", err)
		return 0
	}
	if bytes, files := usage.excess(v.high); bytes <= 0 && files <= 0 {
		return 0
	}
	bytes, files := usage.excess(v.low)
	evicted, freed := v.free(bytes, files, reasonWatermark)
	if evicted == 0 {
		return 0
	}
	if files > 0 {
		// Each blob has links, which are files, too.
		v.clean(ctx)
	}
	v.log.Info("Evicted the blobs that were not used for the longest time", "blobs", evicted, "bytes", freed)
	return evicted
}

// makeRoom evicts on a full volume, and returns how many files went. A need of 0
// is one that is not known.
func (v *evictor) makeRoom(ctx context.Context, need int64) (removed int) {
	removed = v.removeSpools(0)
	if !v.has(max(need, 1)) {
		return removed
	}
	if need <= 0 {
		need = roomBytes
	}
	evicted, _ := v.free(need, 1, reasonFull)
	if usage, err := v.usage(); err == nil && usage.totalFiles > 0 && usage.usedFiles > usage.totalFiles*filesFull/100 {
		removed += v.clean(ctx)
	}
	return removed + evicted
}

// has says whether so many bytes can be evicted. Before all blobs are known, those
// that are have just been used.
func (v *evictor) has(bytes int64) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.begun && v.bytes >= bytes
}

// tooLarge says whether a blob of a size cannot be on the volume without being
// evicted at once. One of unknown size may be.
func (v *evictor) tooLarge(size int64) bool {
	usage, err := v.usage()
	return err == nil && size > usage.total*int64(v.high)/100
}

// free evicts the least recently used blobs until they have so many bytes and
// files.
func (v *evictor) free(bytes, files int64, reason string) (evicted int, freed int64) {
	all := v.candidates(func(blobUse) bool { return true })
	slices.SortFunc(all, func(a, b candidate) int { return cmp.Compare(a.last, b.last) })
	for _, old := range all {
		if freed >= bytes && int64(evicted) >= files {
			break
		}
		if v.evict(old, reason) {
			evicted++
			freed += old.size
		}
	}
	return evicted, freed
}

// candidate is a blob that may be evicted if it was not used since.
type candidate struct {
	digest digest.Digest
	blobUse
}

func (v *evictor) candidates(choose func(blobUse) bool) []candidate {
	v.mu.Lock()
	defer v.mu.Unlock()
	var chosen []candidate
	for dgst, use := range v.blobs {
		if choose(use) {
			chosen = append(chosen, candidate{dgst, use})
		}
	}
	return chosen
}

// evict deletes a blob, unless it was used since it was chosen. Who reads it
// reads on.
func (v *evictor) evict(chosen candidate, reason string) bool {
	v.mu.Lock()
	if v.blobs[chosen.digest] != chosen.blobUse {
		v.mu.Unlock()
		return false
	}
	delete(v.blobs, chosen.digest)
	v.bytes -= chosen.size
	v.mu.Unlock()

	removed, err := v.store.remove(chosen.digest)
	if err != nil {
		v.log.Error("Cannot evict a blob", "digest", chosen.digest.String(), "error", err)
		v.found(chosen.digest, chosen.blobUse)
	}
	if !removed {
		return false
	}
	v.metrics.evicted(reason, chosen.size)
	v.metrics.evictedUnused.WithLabelValues(reason).Observe(time.Since(time.Unix(0, chosen.last)).Seconds())
	v.log.Debug("Evicted a blob", "digest", chosen.digest.String(), "bytes", chosen.size, "reason", reason)
	return true
}

// drop deletes a blob that is not what its digest says.
func (v *evictor) drop(dgst digest.Digest) error {
	v.mu.Lock()
	size := v.blobs[dgst].size
	v.bytes -= size
	delete(v.blobs, dgst)
	v.mu.Unlock()
	v.metrics.evicted(reasonCorrupt, size)
	_, err := v.store.remove(dgst)
	return err
}

// removeSpools deletes what flights of before left, once it has some age.
func (v *evictor) removeSpools(age time.Duration) (removed int) {
	entries, err := os.ReadDir(v.store.spool)
	if err != nil {
		return 0
	}
	for _, entry := range entries {
		info, err := entry.Info()
		if err != nil || time.Since(info.ModTime()) < age {
			continue
		}
		path := filepath.Join(v.store.spool, entry.Name())
		if dgst, ok := parseSpoolName(entry.Name()); ok && v.abandon(dgst, func() error { return os.Remove(path) }) {
			removed++
		}
	}
	return removed
}
