// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package hosts

import _ "embed"

// UnitName is the name of the systemd unit that runs the script.
const UnitName = "registry-hosts.service"

//go:embed registry-hosts.service
var unit string

// Unit returns the content of the unit. It has to be restarted when one of the
// files changes.
func Unit() string {
	return unit
}
