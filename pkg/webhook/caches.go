// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"context"
	"errors"

	extensionsv1alpha1 "github.com/gardener/gardener/pkg/apis/extensions/v1alpha1"

	"github.com/gardener/gardener-extension-registry-cache/pkg/apis/registry/v1alpha3"
	"github.com/gardener/gardener-extension-registry-cache/pkg/apis/strict"
	"github.com/gardener/gardener-extension-registry-cache/pkg/hosts"
)

// errNotReady is returned while the controller has not yet published the caches.
var errNotReady = errors.New("the Extension has no status yet")

// readCaches returns the caches that the controller published.
func (m *mutator) readCaches(ctx context.Context, namespace string) ([]hosts.Registry, error) {
	status, err := m.readStatus(ctx, namespace)
	if err != nil || status == nil {
		return nil, err
	}

	var caBundle []byte
	if status.CASecretName != nil {
		if caBundle, err = m.readCABundle(ctx, namespace, *status.CASecretName); err != nil {
			return nil, err
		}
	}
	registries := make([]hosts.Registry, 0, len(status.Caches))
	for _, cache := range status.Caches {
		registries = append(registries, hosts.Registry{
			Upstream: cache.Upstream,
			Server:   cache.RemoteURL,
			Hosts:    []hosts.Host{cacheHost(cache, caBundle)},
		})
	}
	return registries, nil
}

func cacheHost(cache v1alpha3.RegistryCacheStatus, caBundle []byte) hosts.Host {
	host := hosts.Host{
		Kind:         hosts.Cache,
		URL:          cache.Endpoint,
		Capabilities: []string{string(extensionsv1alpha1.PullCapability), string(extensionsv1alpha1.ResolveCapability)},
	}
	if hasTLS(cache.Endpoint) {
		host.CABundle = caBundle
	}
	return host
}

func (m *mutator) readStatus(ctx context.Context, namespace string) (*v1alpha3.RegistryStatus, error) {
	extension, err := m.readExtension(ctx, namespace, v1alpha3.ExtensionType)
	if err != nil || extension == nil {
		return nil, err
	}
	if extension.Status.ProviderStatus == nil {
		return nil, errNotReady
	}
	status, err := v1alpha3.DecodeStatus(extension.Status.ProviderStatus.Raw)
	// One without caches is that of a Shoot that was restored while it was hibernated.
	if errors.Is(err, strict.ErrEmpty) || err == nil && len(status.Caches) == 0 {
		return nil, errNotReady
	}
	return status, err
}
