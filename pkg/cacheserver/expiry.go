// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package cacheserver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/distribution/distribution/v3"
	"github.com/distribution/distribution/v3/registry/proxy/scheduler"
	"github.com/distribution/distribution/v3/registry/storage"
	storagedriver "github.com/distribution/distribution/v3/registry/storage/driver"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
)

// expiryStateFile is where distribution's own proxy keeps its expiry times, too:
// a volume can go from one to the other.
const expiryStateFile = "/scheduler-state.json"

// expiry deletes content that was not used for some time. A nil expiry never
// deletes.
type expiry struct {
	scheduler *scheduler.TTLExpirationScheduler
	ttl       time.Duration
	log       *slog.Logger
}

// newExpiry starts the expiry of the content of local. It returns nil if ttl is
// 0.
func newExpiry(ctx context.Context, local distribution.Namespace, driver storagedriver.StorageDriver, ttl time.Duration, log *slog.Logger) (*expiry, error) {
	if ttl <= 0 {
		return nil, nil
	}
	e := &expiry{ttl: ttl, log: log}
	err := e.start(ctx, local, driver)
	var syntax *json.SyntaxError
	var mismatch *json.UnmarshalTypeError
	if errors.As(err, &syntax) || errors.As(err, &mismatch) {
		// The times are lost, the content is not: each counts anew from its next use.
		log.Warn("Dropping expiry times that cannot be read", "file", expiryStateFile, "error", err)
		if err := driver.Delete(ctx, expiryStateFile); err != nil {
			return nil, fmt.Errorf("delete %s: %w", expiryStateFile, err)
		}
		err = e.start(ctx, local, driver)
	}
	if err != nil {
		return nil, err
	}
	return e, nil
}

func (e *expiry) start(ctx context.Context, local distribution.Namespace, driver storagedriver.StorageDriver) error {
	vacuum := storage.NewVacuum(ctx, driver)
	e.scheduler = scheduler.New(ctx, driver, expiryStateFile)
	e.scheduler.OnBlobExpire(func(ref reference.Reference) error {
		canonical, repository, err := resolve(ctx, local, ref)
		if err != nil {
			return err
		}
		// The blob may be gone: another repository of the same content expired.
		if err := repository.Blobs(ctx).Delete(ctx, canonical.Digest()); err != nil && !isUnknown(err) {
			return err
		}
		var gone storagedriver.PathNotFoundError
		if err := vacuum.RemoveBlob(canonical.Digest().String()); err != nil && !errors.As(err, &gone) {
			return err
		}
		return nil
	})
	e.scheduler.OnManifestExpire(func(ref reference.Reference) error {
		canonical, repository, err := resolve(ctx, local, ref)
		if err != nil {
			return err
		}
		manifests, err := repository.Manifests(ctx)
		if err != nil {
			return err
		}
		if err := manifests.Delete(ctx, canonical.Digest()); err != nil && !isUnknown(err) {
			return err
		}
		return nil
	})
	return e.scheduler.Start()
}

func resolve(ctx context.Context, local distribution.Namespace, ref reference.Reference) (reference.Canonical, distribution.Repository, error) {
	canonical, ok := ref.(reference.Canonical)
	if !ok {
		return nil, nil, fmt.Errorf("no digest in %q", ref)
	}
	repository, err := local.Repository(ctx, canonical)
	return canonical, repository, err
}

func (e *expiry) usedBlob(name reference.Named, dgst digest.Digest) {
	if e != nil {
		e.used(name, dgst, e.scheduler.AddBlob)
	}
}

func (e *expiry) usedManifest(name reference.Named, dgst digest.Digest) {
	if e != nil {
		e.used(name, dgst, e.scheduler.AddManifest)
	}
}

func (e *expiry) used(name reference.Named, dgst digest.Digest, schedule func(reference.Canonical, time.Duration) error) {
	canonical, err := reference.WithDigest(reference.TrimNamed(name), dgst)
	if err == nil {
		err = schedule(canonical, e.ttl)
	}
	if err != nil {
		e.log.Error("Cannot schedule expiry", "repository", name.Name(), "digest", dgst.String(), "error", err)
	}
}

func (e *expiry) close() error {
	if e == nil {
		return nil
	}
	return e.scheduler.Stop()
}
