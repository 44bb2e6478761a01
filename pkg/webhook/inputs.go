// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"context"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	extensionscontroller "github.com/gardener/gardener/extensions/pkg/controller"
	extensionsv1alpha1 "github.com/gardener/gardener/pkg/apis/extensions/v1alpha1"
	secretsutils "github.com/gardener/gardener/pkg/utils/secrets"

	"github.com/gardener/gardener-extension-registry-cache/pkg/apis/registry/v1alpha3"
	"github.com/gardener/gardener-extension-registry-cache/pkg/apis/strict"
	"github.com/gardener/gardener-extension-registry-cache/pkg/hosts"
)

// errNotReady is returned while the controller has not yet published the caches.
var errNotReady = errors.New("the Extension has no status yet")

// readCaches returns the caches that the controller published. There are none
// if the Shoot is hibernated or about to be deleted, or without the Extension.
func (m *mutator) readCaches(ctx context.Context, namespace string) ([]hosts.Registry, error) {
	cluster, err := extensionscontroller.GetCluster(ctx, m.reader, namespace)
	if err != nil {
		return nil, fmt.Errorf("read Cluster %s: %w", namespace, err)
	}
	if cluster.Shoot.DeletionTimestamp != nil || extensionscontroller.IsHibernationEnabled(cluster) {
		return nil, nil
	}
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
	extension := &extensionsv1alpha1.Extension{}
	err := m.reader.Get(ctx, client.ObjectKey{Namespace: namespace, Name: v1alpha3.ExtensionType}, extension)
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read Extension %s/%s: %w", namespace, v1alpha3.ExtensionType, err)
	}
	if extension.DeletionTimestamp != nil {
		return nil, nil
	}
	if extension.Status.ProviderStatus == nil {
		return nil, errNotReady
	}
	status, err := v1alpha3.DecodeStatus(extension.Status.ProviderStatus.Raw)
	if errors.Is(err, strict.ErrEmpty) {
		return nil, errNotReady
	}
	return status, err
}

func (m *mutator) readCABundle(ctx context.Context, namespace, name string) ([]byte, error) {
	secret := &corev1.Secret{}
	key := client.ObjectKey{Namespace: namespace, Name: name}
	if err := m.reader.Get(ctx, key, secret); err != nil {
		return nil, fmt.Errorf("read Secret %s with the certificate authorities of the caches: %w", key, err)
	}
	bundle := secret.Data[secretsutils.DataKeyCertificateBundle]
	if len(bundle) == 0 {
		return nil, fmt.Errorf("the Secret %s has no key %s", key, secretsutils.DataKeyCertificateBundle)
	}
	return bundle, nil
}
