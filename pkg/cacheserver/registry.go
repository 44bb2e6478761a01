// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package cacheserver

import (
	"context"
	"crypto/rand"
	"fmt"
	"sync"

	"github.com/distribution/distribution/v3"
	"github.com/distribution/distribution/v3/configuration"
	"github.com/distribution/distribution/v3/registry/handlers"
	registrymiddleware "github.com/distribution/distribution/v3/registry/middleware/registry"
	storagedriver "github.com/distribution/distribution/v3/registry/storage/driver"

	// The storage driver that the cache's configuration names.
	_ "github.com/distribution/distribution/v3/registry/storage/driver/filesystem"
)

const (
	middlewareName = "pullthrough"
	engineOption   = "engine"
)

// engine makes the registry that clients see from the local one. If the result
// has a method Close() error, it is called when the application is shut down.
type engine func(ctx context.Context, local distribution.Namespace, driver storagedriver.StorageDriver) (distribution.Namespace, error)

// registerMiddleware makes engines known to distribution under one name; the
// engine itself comes in the middleware's options, so that nothing about a cache
// hangs on the process.
var registerMiddleware = sync.OnceValue(func() error {
	return registrymiddleware.Register(middlewareName,
		func(ctx context.Context, local distribution.Namespace, driver storagedriver.StorageDriver, options map[string]any) (distribution.Namespace, error) {
			attach, ok := options[engineOption].(engine)
			if !ok {
				return nil, fmt.Errorf("option %s is %T", engineOption, options[engineOption])
			}
			return attach(ctx, local, driver)
		})
})

// newApplication returns distribution's registry API over its filesystem
// storage below rootDirectory and an engine.
func newApplication(rootDirectory string, attach engine) (app *handlers.App, err error) {
	if err := registerMiddleware(); err != nil {
		return nil, fmt.Errorf("register registry middleware: %w", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	// NewApp has no other way to report a bad configuration, and leaves behind
	// what it started. An application that was made ends with Shutdown.
	defer func() {
		if cause := recover(); cause != nil {
			cancel()
			app, err = nil, fmt.Errorf("configure registry: %v", cause)
		}
	}()
	return handlers.NewApp(ctx, distributionConfiguration(rootDirectory, attach)), nil
}

func distributionConfiguration(rootDirectory string, attach engine) *configuration.Configuration {
	config := &configuration.Configuration{
		Storage: configuration.Storage{
			"filesystem": configuration.Parameters{"rootdirectory": rootDirectory},
			// Expiry deletes through the same interfaces that clients would. Clients
			// cannot: only reads get that far.
			"delete":   configuration.Parameters{"enabled": true},
			"redirect": configuration.Parameters{"disable": true},
		},
		Middleware: map[string][]configuration.Middleware{
			"registry": {{Name: middlewareName, Options: configuration.Parameters{engineOption: attach}}},
		},
	}
	config.HTTP.RelativeURLs = true
	// It signs the state of uploads, of which there are none; unset, distribution
	// warns.
	config.HTTP.Secret = rand.Text()
	// What may be in an image is for the upstream to say.
	config.Validation.Disabled = true
	return config
}
