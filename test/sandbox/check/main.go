// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

// Command check tells whether this machine can run a sandbox, by running an empty
// one. It builds in seconds, before anything large is built for nothing.
package main

import (
	"fmt"
	"os"

	"github.com/gardener/gardener-extension-registry-cache/test/sandbox"
)

func main() {
	os.Exit(sandbox.Run(
		func(*sandbox.Sandbox) int { return 0 },
		func(err error) int {
			fmt.Fprintln(os.Stderr, "This machine cannot run the test cluster:", err)
			return 3 // which hack/test.sh tells from other failures
		},
	))
}
