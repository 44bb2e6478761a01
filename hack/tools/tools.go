// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

//go:build tools

// Package tools pins the code and document generators, apart from what the
// product depends on.
package tools

import (
	_ "github.com/elastic/crd-ref-docs"
	_ "k8s.io/code-generator/cmd/defaulter-gen"
	_ "sigs.k8s.io/controller-tools/cmd/controller-gen"
)
