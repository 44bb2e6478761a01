// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package v1alpha1

// SetDefaults_MirrorHost makes a mirror without capabilities one for pulls. A
// caBundleSecretReferenceName and an overridePath have no default.
func SetDefaults_MirrorHost(host *MirrorHost) {
	// Also an empty list: to containerd it would mean all capabilities.
	if len(host.Capabilities) == 0 {
		host.Capabilities = []MirrorHostCapability{MirrorHostCapabilityPull}
	}
}
