// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

//go:build !windows

package plugin

import "os"

// enableEscapes makes a terminal take escape sequences, and says whether it does.
func enableEscapes(*os.File) bool { return true }
