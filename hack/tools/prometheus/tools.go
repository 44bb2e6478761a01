// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

//go:build tools

// Package prometheus pins prometheus and promtool, with which the tests check
// rules and dashboard.
//
// It is a module of its own because Prometheus knows every cloud, and depends on
// hundreds of modules that nothing else here needs.
package prometheus

import (
	_ "github.com/prometheus/prometheus/cmd/prometheus"
	_ "github.com/prometheus/prometheus/cmd/promtool"
)
