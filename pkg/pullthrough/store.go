// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package pullthrough

import (
	"crypto/rand"
	_ "crypto/sha256" // digests of blobs
	_ "crypto/sha512" // digests of blobs
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

const (
	// layoutRoot is where distribution's filesystem storage has everything. Its
	// layout is described at pathFor in distribution's registry/storage/paths.go.
	layoutRoot = "docker/registry/v2"
	// ownRoot is for what is not in distribution's layout.
	ownRoot = "registry-cache"

	blobFile = "data"
	linkFile = "link"
	// mediaTypeFile stands beside the link of a manifest whose media type its
	// content does not tell. Distribution ignores it.
	mediaTypeFile = "mediatype"

	// A registry that takes over the volume may run as another user, so what may
	// be read is left to the umask, as distribution does.
	dirMode  = 0o777
	fileMode = 0o666

	// commitAttempts is how often a file is moved into a folder that eviction may
	// be about to remove.
	commitAttempts = 3
)

// store is the volume of a cache, in the layout of distribution's filesystem
// storage: what distribution stored is served, and distribution serves what is
// stored here. Only complete, verified content gets a name in it.
//
// The blob file says whether there is a blob. Links say which repositories it was
// seen in; one without a blob is harmless.
type store struct {
	// content is the folder of distribution's layout.
	content string
	// spool has blobs in flight, by digest.
	spool string
	// temporary has files that are about to be moved to their place.
	temporary string
}

// newStore deletes what an earlier process left unfinished.
func newStore(rootDirectory string) (*store, error) {
	s := &store{
		content:   filepath.Join(rootDirectory, layoutRoot),
		spool:     filepath.Join(rootDirectory, ownRoot, "spool"),
		temporary: filepath.Join(rootDirectory, ownRoot, "tmp"),
	}
	if err := errors.Join(os.RemoveAll(s.spool), os.RemoveAll(s.temporary)); err != nil {
		return nil, fmt.Errorf("remove unfinished files: %w", err)
	}
	return s, nil
}

func (s *store) blobDir(dgst digest.Digest) string {
	hex := dgst.Encoded()
	return filepath.Join(s.content, "blobs", dgst.Algorithm().String(), hex[:2], hex)
}

func (s *store) blobPath(dgst digest.Digest) string {
	return filepath.Join(s.blobDir(dgst), blobFile)
}

func (s *store) spoolPath(dgst digest.Digest) string {
	return filepath.Join(s.spool, dgst.Algorithm().String()+"-"+dgst.Encoded())
}

func (s *store) layerDir(repository string, dgst digest.Digest) string {
	return filepath.Join(s.content, "repositories", repository, "_layers", dgst.Algorithm().String(), dgst.Encoded())
}

func (s *store) revisionDir(repository string, dgst digest.Digest) string {
	return filepath.Join(s.content, "repositories", repository, "_manifests", "revisions", dgst.Algorithm().String(), dgst.Encoded())
}

func (s *store) tagDir(repository, tag string) string {
	return filepath.Join(s.content, "repositories", repository, "_manifests", "tags", tag)
}

// open returns a blob, or an error that is fs.ErrNotExist.
func (s *store) open(dgst digest.Digest) (*os.File, fs.FileInfo, error) {
	file, err := os.Open(s.blobPath(dgst))
	if err != nil {
		return nil, nil, err
	}
	info, err := file.Stat()
	switch {
	case err == nil && !info.Mode().IsRegular():
		err = fmt.Errorf("%s is no regular file: %w", file.Name(), fs.ErrNotExist)
	case err == nil && info.Size() == 0 && dgst != dgst.Algorithm().FromBytes(nil):
		// What a crash of the machine can leave of one that was not synced.
		err = fmt.Errorf("%s is empty: %w", file.Name(), fs.ErrNotExist)
	}
	if err != nil {
		return nil, nil, errors.Join(err, file.Close())
	}
	return file, info, nil
}

func (s *store) has(dgst digest.Digest) bool {
	_, err := os.Stat(s.blobPath(dgst))
	return err == nil
}

// createSpool makes a new spool for a blob. One of before is left to its readers.
func (s *store) createSpool(dgst digest.Digest) (*os.File, error) {
	if err := os.MkdirAll(s.spool, dirMode); err != nil {
		return nil, err
	}
	if err := ignoreNotExist(os.Remove(s.spoolPath(dgst))); err != nil {
		return nil, err
	}
	return os.OpenFile(s.spoolPath(dgst), os.O_RDWR|os.O_CREATE|os.O_EXCL, fileMode)
}

// openSpool opens the spool of before.
func (s *store) openSpool(dgst digest.Digest) (*os.File, error) {
	return os.OpenFile(s.spoolPath(dgst), os.O_RDWR, 0)
}

// commit gives a verified file the name of its blob.
func (s *store) commit(path string, dgst digest.Digest) error {
	return moveTo(path, s.blobPath(dgst))
}

// put stores a small blob.
func (s *store) put(dgst digest.Digest, content []byte) error {
	if file, _, err := s.open(dgst); err == nil {
		return file.Close()
	}
	return s.write(s.blobPath(dgst), content)
}

// hasRepository says whether the upstream has given anything of a repository.
func (s *store) hasRepository(repository string) bool {
	_, err := os.Stat(filepath.Join(s.content, "repositories", repository))
	return err == nil
}

// linkLayer notes that a repository has a blob.
func (s *store) linkLayer(repository string, dgst digest.Digest) error {
	return s.link(s.layerDir(repository, dgst), dgst)
}

// linkManifest notes that a repository has a manifest, and the media type of
// manifests that do not tell it themselves: it is empty for all others.
func (s *store) linkManifest(repository string, dgst digest.Digest, mediaType string) error {
	dir := s.revisionDir(repository, dgst)
	if mediaType != "" {
		if err := s.write(filepath.Join(dir, mediaTypeFile), []byte(mediaType)); err != nil {
			return err
		}
	}
	return s.link(dir, dgst)
}

// manifest returns whether a repository has a manifest, and its media type if
// that was stored.
func (s *store) manifest(repository string, dgst digest.Digest) (mediaType string, ok bool) {
	dir := s.revisionDir(repository, dgst)
	if linked, err := readLink(dir); err != nil || linked != dgst {
		return "", false
	}
	raw, err := os.ReadFile(filepath.Join(dir, mediaTypeFile)) //nolint:gosec // a path of ours
	if err != nil {
		return "", errors.Is(err, fs.ErrNotExist)
	}
	return string(raw), true
}

// tag returns what a tag was last known to stand for.
func (s *store) tag(repository, tag string) (digest.Digest, bool) {
	dgst, err := readLink(filepath.Join(s.tagDir(repository, tag), "current"))
	return dgst, err == nil
}

// setTag notes what a tag stands for.
func (s *store) setTag(repository, tag string, dgst digest.Digest) error {
	dir := s.tagDir(repository, tag)
	if err := s.link(filepath.Join(dir, "index", dgst.Algorithm().String(), dgst.Encoded()), dgst); err != nil {
		return err
	}
	return s.link(filepath.Join(dir, "current"), dgst)
}

// removeTag forgets a tag.
func (s *store) removeTag(repository, tag string) error {
	return os.RemoveAll(s.tagDir(repository, tag))
}

// link makes the link file in a folder be that of a digest.
func (s *store) link(dir string, dgst digest.Digest) error {
	if linked, err := readLink(dir); err == nil && linked == dgst {
		return nil
	}
	return s.write(filepath.Join(dir, linkFile), []byte(dgst))
}

func readLink(dir string) (digest.Digest, error) {
	raw, err := os.ReadFile(filepath.Join(dir, linkFile)) //nolint:gosec // a path of ours
	if err != nil {
		return "", err
	}
	return digest.Parse(strings.TrimSpace(string(raw)))
}

// write makes a file appear with all of its content. It is for content that can
// be fetched again, and does not wait for the disk: what a crash of the machine
// leaves empty is no valid link, and no manifest of its digest.
func (s *store) write(path string, content []byte) error {
	if err := os.MkdirAll(s.temporary, dirMode); err != nil {
		return err
	}
	file, err := os.OpenFile(filepath.Join(s.temporary, rand.Text()), os.O_WRONLY|os.O_CREATE|os.O_EXCL, fileMode)
	if err != nil {
		return err
	}
	_, err = file.Write(content)
	if err = errors.Join(err, file.Close()); err == nil {
		err = moveTo(file.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(file.Name()))
	}
	return nil
}

// moveTo moves a file to its place, and makes the folders that lead there.
// Cleaning removes folders that are empty, so one may go in between.
func moveTo(from, to string) error {
	var err error
	for range commitAttempts {
		if err = os.MkdirAll(filepath.Dir(to), dirMode); err == nil {
			err = os.Rename(from, to)
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return err
}

// remove deletes a blob, and says whether there was one. Who reads it reads on.
func (s *store) remove(dgst digest.Digest) (removed bool, err error) {
	err = os.Remove(s.blobPath(dgst))
	removeEmpty(s.blobDir(dgst), filepath.Dir(s.blobDir(dgst)))
	return err == nil, ignoreNotExist(err)
}

// markUsed keeps the time of a blob's use, which is now, in the times of its file.
// Who may write the file may do so, whoever owns it.
func (s *store) markUsed(dgst digest.Digest) error {
	now := unix.Timespec{Nsec: unix.UTIME_NOW}
	return unix.UtimesNanoAt(unix.AT_FDCWD, s.blobPath(dgst), []unix.Timespec{now, now}, 0)
}

// lastUse returns when a file was last used: its time of access tells, where this
// cache did not.
func lastUse(info fs.FileInfo) int64 {
	last := info.ModTime().UnixNano()
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		last = max(last, stat.Atim.Nano())
	}
	return last
}
