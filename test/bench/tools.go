// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

//go:build tools

package main

import (
	// What bench compares with. It is pinned in this module and not in the
	// product's, so that it is built with the very dependencies that its own
	// go.mod names.
	_ "github.com/distribution/distribution/v3/cmd/registry"
)
