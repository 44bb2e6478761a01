// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package pullthrough

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/opencontainers/go-digest"
)

const (
	layersFolder    = "_layers"
	manifestsFolder = "_manifests"
	uploadsFolder   = "_uploads"
)

// walk calls found for each blob of the volume. What has no name of distribution's
// layout is left alone.
func (s *store) walk(ctx context.Context, found func(digest.Digest, fs.FileInfo)) error {
	root := filepath.Join(s.content, "blobs")
	return eachFolder(ctx, root, func(algorithm string) error {
		return eachFolder(ctx, filepath.Join(root, algorithm), func(prefix string) error {
			return eachFolder(ctx, filepath.Join(root, algorithm, prefix), func(hex string) error {
				dgst, ok := parseDigest(algorithm, hex)
				if !ok || hex[:2] != prefix {
					return nil
				}
				if info, err := os.Lstat(s.blobPath(dgst)); err == nil && info.Mode().IsRegular() {
					found(dgst, info)
				}
				return nil
			})
		})
	})
}

// eachFolder calls visit with the name of each folder in a folder, which need not
// exist, or be one. What cannot be looked at does not keep it from the rest, but the
// end of ctx does.
func eachFolder(ctx context.Context, folder string, visit func(name string) error) error {
	if ctx.Err() != nil {
		return interruption(ctx)
	}
	entries, err := os.ReadDir(folder)
	failures := []error{ignoreNotExist(err)}
	for _, entry := range entries {
		if ctx.Err() != nil {
			failures = append(failures, interruption(ctx))
			break
		}
		if entry.IsDir() {
			failures = append(failures, visit(entry.Name()))
		}
	}
	return errors.Join(failures...)
}

// interruption returns why a walk ended early, or nil if it had found enough.
func interruption(ctx context.Context) error {
	if errors.Is(context.Cause(ctx), errEnough) {
		return nil
	}
	return ctx.Err()
}

// parseDigest returns the digest of two names of folders.
func parseDigest(algorithm, hex string) (digest.Digest, bool) {
	dgst := digest.NewDigestFromEncoded(digest.Algorithm(algorithm), hex)
	return dgst, dgst.Validate() == nil
}

// parseSpoolName returns the digest of a file in the spool folder.
func parseSpoolName(name string) (digest.Digest, bool) {
	algorithm, hex, _ := strings.Cut(name, "-")
	return parseDigest(algorithm, hex)
}

// eachRepository calls visit with the folder of each repository, before those
// below it.
func (s *store) eachRepository(ctx context.Context, visit func(folder string) error) error {
	var descend func(folder string) error
	descend = func(folder string) error {
		return errors.Join(visit(folder), eachFolder(ctx, folder, func(name string) error {
			if strings.HasPrefix(name, "_") {
				// No part of a repository's name begins so.
				return nil
			}
			return descend(filepath.Join(folder, name))
		}))
	}
	root := filepath.Join(s.content, "repositories")
	if info, err := os.Stat(root); err != nil || !info.IsDir() {
		return ignoreNotExist(err)
	}
	return descend(root)
}

// removeUploads deletes what pushes, and distribution's own proxy, leave behind
// when they are cut. This cache makes none.
func (s *store) removeUploads(ctx context.Context) error {
	return s.eachRepository(ctx, func(folder string) error {
		return os.RemoveAll(filepath.Join(folder, uploadsFolder))
	})
}

// removeDangling deletes the links to blobs that are not stored, and the tags of
// manifests that are not, with the folders that become empty. It returns how many
// links and tags went.
func (s *store) removeDangling(ctx context.Context) (removed int, err error) {
	err = s.eachRepository(ctx, func(folder string) error {
		layers, layersErr := s.removeDanglingLinks(ctx, filepath.Join(folder, layersFolder))
		manifests := filepath.Join(folder, manifestsFolder)
		revisions, revisionsErr := s.removeDanglingLinks(ctx, filepath.Join(manifests, "revisions"))
		tags, tagsErr := s.removeDanglingTags(ctx, filepath.Join(manifests, "tags"))
		removed += layers + revisions + tags
		removeEmpty(manifests, folder)
		return errors.Join(layersErr, revisionsErr, tagsErr)
	})
	return removed, err
}

// removeDanglingLinks looks at folders of links, by algorithm and digest.
func (s *store) removeDanglingLinks(ctx context.Context, root string) (removed int, err error) {
	err = eachFolder(ctx, root, func(algorithm string) error {
		folder := filepath.Join(root, algorithm)
		err := eachFolder(ctx, folder, func(hex string) error {
			dgst, ok := parseDigest(algorithm, hex)
			if !ok || s.has(dgst) {
				return nil
			}
			removed++
			return os.RemoveAll(filepath.Join(folder, hex))
		})
		removeEmpty(folder)
		return err
	})
	removeEmpty(root)
	return removed, err
}

func (s *store) removeDanglingTags(ctx context.Context, root string) (removed int, err error) {
	err = eachFolder(ctx, root, func(tag string) error {
		folder := filepath.Join(root, tag)
		dgst, err := readLink(filepath.Join(folder, "current"))
		if err == nil && s.has(dgst) {
			return nil
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) && !isInvalidDigest(err) {
			return err
		}
		removed++
		return os.RemoveAll(folder)
	})
	removeEmpty(root)
	return removed, err
}

func isInvalidDigest(err error) bool {
	return errors.Is(err, digest.ErrDigestInvalidFormat) || errors.Is(err, digest.ErrDigestInvalidLength) ||
		errors.Is(err, digest.ErrDigestUnsupported)
}

// removeEmpty deletes folders in turn, as far as they are empty.
func removeEmpty(folders ...string) {
	for _, folder := range folders {
		_ = os.Remove(folder) // not empty, or gone
	}
}
