// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

// Package cacheserver runs one cache: the servers of the registry API and of
// metrics and health, their certificates and credentials, and the wiring of
// distribution's HTTP handlers with what pulls content through from the
// upstream.
//
// How content is fetched, kept and evicted does not belong here: that is
// pkg/pullthrough, which is put behind distribution's handlers as a registry
// middleware.
package cacheserver
