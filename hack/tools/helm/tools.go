// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

//go:build tools

// Package helm pins the helm by which the commands of the documentation are
// followed.
//
// It is a module of its own so that its requirements are not those of the tools
// that the product is generated with.
package helm

import (
	_ "helm.sh/helm/v4/cmd/helm"
)
