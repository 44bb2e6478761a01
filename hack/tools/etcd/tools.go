// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

//go:build tools

// Package etcd pins the etcd binary that the tests run.
//
// It is a module of its own because Kubernetes and the tools depend on other
// versions of etcd's client modules.
package etcd

import (
	_ "go.etcd.io/etcd/server/v3"
)
