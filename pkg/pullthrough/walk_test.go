// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package pullthrough

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"github.com/opencontainers/go-digest"
)

// FuzzWalk makes a file of any name in the layout. Nothing but blobs may be found,
// and nothing but dangling links may be removed.
func FuzzWalk(f *testing.F) {
	hex := strings.Repeat("ab", 32)
	for _, path := range []string{
		"blobs/sha256/ab/" + hex + "/data",
		"blobs/sha512/ab/" + strings.Repeat("ab", 64) + "/data",
		"blobs/sha256/cd/" + hex + "/data",
		"blobs/sha256/ab/" + hex + "/data/data",
		"blobs/md5/ab/ab/data",
		"blobs/sha256/\xff/\xfe/data",
		"repositories/a/_layers/sha256/" + hex + "/link",
		"repositories/a/_manifests/tags/v1/current/link",
		"repositories/a/_manifests/revisions/sha256/" + hex + "/link",
		"repositories/_uploads/x/data",
		"repositories/a/b/c/d/e/_uploads/x",
		"repositories/..a/ /\n/link",
	} {
		f.Add(path)
	}
	f.Fuzz(func(t *testing.T, path string) {
		if !filepath.IsLocal(path) || strings.ContainsRune(path, 0) {
			return
		}
		root := t.TempDir()
		s, err := newStore(root)
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(s.content, path)
		if os.MkdirAll(filepath.Dir(file), 0o750) != nil || os.WriteFile(file, []byte("content"), 0o600) != nil {
			return
		}
		var found []digest.Digest
		if err := s.walk(context.Background(), func(dgst digest.Digest, _ fs.FileInfo) { found = append(found, dgst) }); err != nil {
			t.Fatal(err)
		}
		for _, dgst := range found {
			if s.blobPath(dgst) != filepath.Clean(file) {
				t.Fatalf("%q was taken for %s", path, dgst)
			}
		}
		if err := s.removeUploads(context.Background()); err != nil {
			t.Fatal(err)
		}
		if _, err := s.removeDangling(context.Background()); err != nil {
			t.Fatal(err)
		}
		_, err = os.Lstat(file)
		if err != nil && !strings.HasPrefix(path, "repositories/") {
			t.Fatalf("%q is gone", path)
		}
	})
}

func FuzzParseSpoolName(f *testing.F) {
	f.Add("sha256-" + strings.Repeat("ab", 32))
	f.Add("sha256-..")
	f.Add("-")
	f.Fuzz(func(t *testing.T, name string) {
		if dgst, ok := parseSpoolName(name); ok && dgst.Algorithm().String()+"-"+dgst.Encoded() != name {
			t.Fatalf("%q is taken for %s", name, dgst)
		}
	})
}

// BenchmarkWalk does what is done at each start on a volume of 100,000 blobs, each
// with a link.
func BenchmarkWalk(b *testing.B) {
	const blobs = 100_000
	s, err := newStore(b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	for i := range blobs {
		dgst := digest.FromString(fmt.Sprint(i))
		if err := os.MkdirAll(s.blobDir(dgst), 0o750); err != nil {
			b.Fatal(err)
		}
		if err := os.WriteFile(s.blobPath(dgst), nil, 0o600); err != nil {
			b.Fatal(err)
		}
		if err := s.linkLayer("library/app", dgst); err != nil {
			b.Fatal(err)
		}
	}
	var index time.Duration
	b.ResetTimer()
	for b.Loop() {
		began := time.Now()
		v := &evictor{store: s, log: slog.New(slog.DiscardHandler), blobs: map[digest.Digest]blobUse{}}
		if err := s.walk(b.Context(), v.listed); err != nil {
			b.Fatal(err)
		}
		if count, _ := v.totals(); count != blobs {
			b.Fatalf("%d blobs", count)
		}
		index += time.Since(began)
		if err := s.removeUploads(b.Context()); err != nil {
			b.Fatal(err)
		}
		if removed, err := s.removeDangling(b.Context()); err != nil || removed > 0 {
			b.Fatal(removed, err)
		}
	}
	b.ReportMetric(index.Seconds()/float64(b.N), "s/index")
	b.ReportMetric((b.Elapsed()-index).Seconds()/float64(b.N), "s/links")
}

func TestExcess(t *testing.T) {
	g := NewWithT(t)
	bytes, files := volumeUsage{used: 950, total: 1000, usedFiles: 10, totalFiles: 100}.excess(90)
	g.Expect([]int64{bytes, files}).To(Equal([]int64{50, -80}))
	_, files = volumeUsage{total: 1000}.excess(90)
	g.Expect(files).To(BeZero(), "a file system without a limit of files")
	usage, err := measure(t.TempDir())
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(usage.used).To(And(BeNumerically(">", 0), BeNumerically("<=", usage.total)))
	_, err = measure("/none")
	g.Expect(err).To(MatchError(fs.ErrNotExist))
}

func TestLowerEndsAtTheLowWatermark(t *testing.T) {
	g := NewWithT(t)
	s, err := newStore(t.TempDir())
	g.Expect(err).NotTo(HaveOccurred())
	v := &evictor{
		store: s, metrics: newMetrics(), log: slog.New(slog.DiscardHandler), high: 90, low: 80,
		blobs: map[digest.Digest]blobUse{}, wake: make(chan struct{}, 1),
	}
	v.usage = func() (volumeUsage, error) {
		_, bytes := v.totals()
		return volumeUsage{used: bytes, total: 1000}, nil
	}
	var all []digest.Digest
	for i := range 19 {
		content := bytes.Repeat([]byte{byte(i)}, 50)
		dgst := digest.FromBytes(content)
		g.Expect(s.put(dgst, content)).To(Succeed())
		v.added(dgst, 50)
		all = append(all, dgst)
		time.Sleep(time.Millisecond)
	}
	g.Expect(v.lower(t.Context())).To(Equal(3), "of 95 percent")
	_, bytes := v.totals()
	g.Expect(bytes).To(BeEquivalentTo(800))
	for i, dgst := range all {
		g.Expect(s.has(dgst)).To(Equal(i >= 3), "the oldest go")
	}
	g.Expect(v.lower(t.Context())).To(BeZero())
}

func TestABlobThatCannotBeEvictedStaysKnown(t *testing.T) {
	g := NewWithT(t)
	s, err := newStore(t.TempDir())
	g.Expect(err).NotTo(HaveOccurred())
	v := &evictor{store: s, metrics: newMetrics(), log: slog.New(slog.DiscardHandler), ttl: time.Nanosecond, blobs: map[digest.Digest]blobUse{}, wake: make(chan struct{}, 1), walked: true}
	dgst := digest.FromString("x")
	v.added(dgst, 1)
	obstacle := filepath.Join(s.blobPath(dgst), "file")
	g.Expect(os.MkdirAll(obstacle, 0o750)).To(Succeed())
	g.Expect(v.expire(time.Now().Add(time.Second))).To(BeZero())
	blobs, bytes := v.totals()
	g.Expect(blobs).To(Equal(1))
	g.Expect(bytes).To(BeEquivalentTo(1))

	g.Expect(os.Remove(obstacle)).To(Succeed())
	g.Expect(v.expire(time.Now().Add(time.Second))).To(Equal(1))
	blobs, bytes = v.totals()
	g.Expect(blobs).To(BeZero())
	g.Expect(bytes).To(BeZero())
}

func TestUseIsWrittenRarely(t *testing.T) {
	g := NewWithT(t)
	s, err := newStore(t.TempDir())
	g.Expect(err).NotTo(HaveOccurred())
	dgst := digest.FromString("x")
	g.Expect(s.put(dgst, []byte("x"))).To(Succeed())
	v := &evictor{store: s, log: slog.New(slog.DiscardHandler), blobs: map[digest.Digest]blobUse{}}
	long, short := time.Now().Add(-time.Hour).Truncate(time.Second), time.Now().Add(-time.Minute).Truncate(time.Second)
	for _, test := range []struct{ before, want time.Time }{{long, time.Now()}, {short, short}} {
		g.Expect(os.Chtimes(s.blobPath(dgst), test.before, test.before)).To(Succeed())
		clear(v.blobs)
		info, err := os.Stat(s.blobPath(dgst))
		g.Expect(err).NotTo(HaveOccurred())
		v.used(dgst, info)
		info, err = os.Stat(s.blobPath(dgst))
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(info.ModTime()).To(BeTemporally("~", test.want, 5*time.Second))
	}
}
