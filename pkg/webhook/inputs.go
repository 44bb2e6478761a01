// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"context"
	"errors"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	extensionscontroller "github.com/gardener/gardener/extensions/pkg/controller"
	extensionsv1alpha1 "github.com/gardener/gardener/pkg/apis/extensions/v1alpha1"
	secretsutils "github.com/gardener/gardener/pkg/utils/secrets"

	"github.com/gardener/gardener-extension-registry-cache/pkg/hosts"
)

// readRegistries returns what a node is to know about each upstream: caches as
// the controller published them, and mirrors as they are configured. There are
// none if the Shoot is hibernated or about to be deleted, or without Extensions.
// With an error it returns what could be read.
func (m *mutator) readRegistries(ctx context.Context, namespace string) ([]hosts.Registry, error) {
	cluster, err := extensionscontroller.GetCluster(ctx, m.reader, namespace)
	if err != nil {
		return nil, fmt.Errorf("read Cluster %s: %w", namespace, err)
	}
	if cluster.Shoot == nil {
		return nil, fmt.Errorf("the Cluster %s has no Shoot", namespace)
	}
	if cluster.Shoot.DeletionTimestamp != nil || extensionscontroller.IsHibernationEnabled(cluster) {
		return nil, nil
	}
	caches, cachesErr := m.readCaches(ctx, namespace)
	mirrors, mirrorsErr := m.readMirrors(ctx, namespace, cluster.Shoot.Spec.Resources)
	return join(caches, mirrors), errors.Join(cachesErr, mirrorsErr)
}

// join returns caches and mirrors with one registry for each upstream, of which
// the cache comes first.
func join(caches, mirrors []hosts.Registry) []hosts.Registry {
	joined := slices.Clone(caches)
	for _, mirror := range mirrors {
		i := slices.IndexFunc(joined, func(registry hosts.Registry) bool { return registry.Upstream == mirror.Upstream })
		if i < 0 {
			joined = append(joined, mirror)
			continue
		}
		joined[i].Hosts = slices.Concat(joined[i].Hosts, mirror.Hosts)
	}
	return joined
}

// readExtension returns the Extension of a type, or nil if there is none or it
// is about to be deleted.
func (m *mutator) readExtension(ctx context.Context, namespace, extensionType string) (*extensionsv1alpha1.Extension, error) {
	extension := &extensionsv1alpha1.Extension{}
	err := m.reader.Get(ctx, client.ObjectKey{Namespace: namespace, Name: extensionType}, extension)
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read Extension %s/%s: %w", namespace, extensionType, err)
	}
	if extension.DeletionTimestamp != nil {
		return nil, nil
	}
	return extension, nil
}

// readCABundle returns the certificate authorities in a Secret.
func (m *mutator) readCABundle(ctx context.Context, namespace, name string) ([]byte, error) {
	secret := &corev1.Secret{}
	key := client.ObjectKey{Namespace: namespace, Name: name}
	if err := m.reader.Get(ctx, key, secret); err != nil {
		return nil, fmt.Errorf("read Secret %s: %w", key, err)
	}
	bundle := secret.Data[secretsutils.DataKeyCertificateBundle]
	if len(bundle) == 0 {
		return nil, fmt.Errorf("the Secret %s has no key %s", key, secretsutils.DataKeyCertificateBundle)
	}
	return bundle, nil
}
