// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"context"
	"errors"
	"fmt"

	v1beta1helper "github.com/gardener/gardener/pkg/api/core/v1beta1/helper"
	gardencorev1beta1 "github.com/gardener/gardener/pkg/apis/core/v1beta1"
	v1beta1constants "github.com/gardener/gardener/pkg/apis/core/v1beta1/constants"

	"github.com/gardener/gardener-extension-registry-cache/pkg/apis/mirror/v1alpha1"
	"github.com/gardener/gardener-extension-registry-cache/pkg/apis/mirror/validation"
	"github.com/gardener/gardener-extension-registry-cache/pkg/hosts"
)

// readMirrors returns the configured mirrors, of which the controller publishes
// nothing. What is wrong with one upstream's mirrors, such as a Secret that is
// missing, is an error that does not keep the others from being returned.
func (m *mutator) readMirrors(ctx context.Context, namespace string, references []gardencorev1beta1.NamedResourceReference) ([]hosts.Registry, error) {
	extension, err := m.readExtension(ctx, namespace, v1alpha1.ExtensionType)
	if err != nil || extension == nil {
		return nil, err
	}
	var raw []byte
	if extension.Spec.ProviderConfig != nil {
		raw = extension.Spec.ProviderConfig.Raw
	}
	config, err := v1alpha1.Decode(raw)
	if err != nil {
		return nil, fmt.Errorf("read configuration of Extension %s/%s: %w", namespace, v1alpha1.ExtensionType, err)
	}

	var (
		registries = make([]hosts.Registry, 0, len(config.Mirrors))
		errs       []error
	)
	bundles := map[string][]byte{}
	for _, mirror := range config.Mirrors {
		// A mirror that nodes cannot use must not take the upstream's cache from them.
		if invalid := validation.ValidateMirrorConfig(&v1alpha1.MirrorConfig{Mirrors: []v1alpha1.MirrorConfiguration{mirror}}, nil); len(invalid) > 0 {
			errs = append(errs, fmt.Errorf("mirrors of %s: %w", mirror.Upstream, invalid.ToAggregate()))
			continue
		}
		// Without a server, containerd goes to where it would go without mirrors.
		registry := hosts.Registry{Upstream: mirror.Upstream}
		if registry.Hosts, err = m.mirrorHosts(ctx, namespace, mirror.Hosts, references, bundles); err != nil {
			errs = append(errs, fmt.Errorf("mirrors of %s: %w", mirror.Upstream, err))
			continue
		}
		registries = append(registries, registry)
	}
	return registries, errors.Join(errs...)
}

// mirrorHosts returns the hosts of one upstream. bundles are those that have been
// read, by their reference.
func (m *mutator) mirrorHosts(
	ctx context.Context,
	namespace string,
	configured []v1alpha1.MirrorHost,
	references []gardencorev1beta1.NamedResourceReference,
	bundles map[string][]byte,
) (
	[]hosts.Host,
	error,
) {
	mirrors := make([]hosts.Host, 0, len(configured))
	for _, mirror := range configured {
		host := hosts.Host{Kind: hosts.Mirror, URL: mirror.Host, OverridePath: mirror.OverridePath}
		for _, capability := range mirror.Capabilities {
			host.Capabilities = append(host.Capabilities, string(capability))
		}
		if name := mirror.CABundleSecretReferenceName; name != nil {
			if bundles[*name] == nil {
				bundle, err := m.readReferencedBundle(ctx, namespace, *name, references)
				if err != nil {
					return nil, err
				}
				bundles[*name] = bundle
			}
			host.CABundle = bundles[*name]
		}
		mirrors = append(mirrors, host)
	}
	return mirrors, nil
}

// readReferencedBundle returns the certificate authorities in the Secret to which
// an entry of the Shoot's resources refers, as gardenlet copies it into the
// Shoot's namespace.
func (m *mutator) readReferencedBundle(ctx context.Context, namespace, name string, references []gardencorev1beta1.NamedResourceReference) ([]byte, error) {
	reference := v1beta1helper.GetResourceByName(references, name)
	if reference == nil {
		return nil, fmt.Errorf("the Shoot's resources have no entry %q", name)
	}
	return m.readCABundle(ctx, namespace, v1beta1constants.ReferencedResourcesPrefix+reference.ResourceRef.Name)
}
