// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

//go:build tools

// Package runc pins the runc that runs on the test cluster's node.
//
// It is a module of its own because containerd depends on another version of
// its libraries.
package runc

import (
	_ "github.com/opencontainers/runc"
)
