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

// wrap makes the registry that clients see from the local one.
type wrap func(local distribution.Namespace) distribution.Namespace

// registerMiddleware makes engines known to distribution under one name; the
// engine itself comes in the middleware's options, so that nothing about a cache
// hangs on the process.
var registerMiddleware = sync.OnceValue(func() error {
	return registrymiddleware.Register(middlewareName,
		func(_ context.Context, local distribution.Namespace, _ storagedriver.StorageDriver, options map[string]any) (distribution.Namespace, error) {
			wrap, ok := options[engineOption].(wrap)
			if !ok {
				return nil, fmt.Errorf("option %s is %T", engineOption, options[engineOption])
			}
			return wrap(local), nil
		})
})

// newApplication returns distribution's registry API over its filesystem
// storage below rootDirectory and an engine.
func newApplication(rootDirectory string, engine wrap) (app *handlers.App, err error) {
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
	return handlers.NewApp(ctx, distributionConfiguration(rootDirectory, engine)), nil
}

func distributionConfiguration(rootDirectory string, engine wrap) *configuration.Configuration {
	config := &configuration.Configuration{
		Storage: configuration.Storage{
			"filesystem": configuration.Parameters{"rootdirectory": rootDirectory},
			"redirect":   configuration.Parameters{"disable": true},
			"maintenance": configuration.Parameters{
				"readonly": map[any]any{"enabled": true},
				// The engine removes what it finds of them.
				"uploadpurging": map[any]any{"enabled": false},
			},
		},
		Middleware: map[string][]configuration.Middleware{
			"registry": {{Name: middlewareName, Options: configuration.Parameters{engineOption: engine}}},
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
