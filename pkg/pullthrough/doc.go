// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

// Package pullthrough is the engine of the cache server: it answers for one
// upstream registry, from its volume if it can, and else from the upstream, which
// it asks once however many clients wait.
//
//   - engine.go: what an engine is made of, and all of its limits
//   - flight.go: what happens when many nodes ask for one cold blob
//   - spool.go: the growing file that a flight writes and its clients read
//   - content.go, serve.go: a blob as one client reads it, and gets it
//   - download.go: one blob from the upstream, with its interruptions
//   - remote.go, dial.go, breaker.go: the upstream itself, its credentials and its time
//     limits, and when it is left alone
//   - tags.go, manifests.go, listings.go: everything that is not a blob, which
//     calls.go asks for once
//   - store.go: the volume, in distribution's layout
//   - evict.go: what leaves the volume, and when
//   - recheck.go: how blobs are found that the volume has changed
//   - namespace.go: the engine as distribution's handlers see it
//
// All that is known about an upstream hangs on one Engine; the package has no
// state of its own. Servers, TLS and the log of requests are not its business:
// they are in pkg/cacheserver.
package pullthrough
