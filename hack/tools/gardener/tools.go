// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

//go:build tools

// Package gardener pins the Gardener binaries that the tests run.
//
// It is a module of its own because a binary gets the dependencies that
// Gardener released it with, and not those that the product happens to need.
package gardener

import (
	_ "github.com/gardener/gardener/cmd/gardener-apiserver"
	_ "github.com/gardener/gardener/cmd/gardener-node-agent"
	_ "github.com/gardener/gardener/cmd/gardener-resource-manager"
)
