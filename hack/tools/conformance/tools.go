// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

//go:build tools

// Package conformance pins the conformance suite of the OCI distribution
// specification, which the tests run against the cache server.
package conformance

import (
	_ "github.com/opencontainers/distribution-spec/conformance"
)
