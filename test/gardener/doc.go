// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

// Package gardener does in tests what Gardener does around an extension: it puts
// CRDs into Seed and Shoot, runs the real gardener-resource-manager between them,
// lays out a Shoot's namespace in the Seed, and writes Extensions and
// OperatingSystemConfigs as gardenlet does.
//
// What the clusters run on is the business of packages control and cluster; what
// our extension makes of the objects is the business of the tests.
package gardener
