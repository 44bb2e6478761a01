// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

//go:build tools

// Package containerd pins the oldest containerd that nodes of Shoots run, with the
// dependencies that it was released with.
package containerd

import (
	_ "github.com/containerd/containerd/cmd/containerd"
)
