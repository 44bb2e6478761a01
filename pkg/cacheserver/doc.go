// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

// Package cacheserver runs one cache: the servers of the registry API and of
// metrics and health, their certificates and credentials, and the wiring of
// distribution's HTTP handlers with what pulls content through from the
// upstream.
//
// How content is fetched, kept and evicted does not belong here, with one
// exception for the time being: pullthrough.go, repository.go and expiry.go put
// distribution's own proxy behind the registry middleware that the engine of
// ours will take over.
package cacheserver
