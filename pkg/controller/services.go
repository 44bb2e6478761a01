// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"fmt"
	"net"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	extensionsconfigv1alpha1 "github.com/gardener/gardener/extensions/pkg/apis/config/v1alpha1"
	"github.com/gardener/gardener/extensions/pkg/util"
	"github.com/gardener/gardener/pkg/client/kubernetes"

	"github.com/gardener/gardener-extension-registry-cache/pkg/resources"
	"github.com/gardener/gardener-extension-registry-cache/pkg/upstream"
)

// ShootReader returns a reader of the Services in the Shoot whose control plane
// runs in the given namespace of the Seed, with gardenlet's credentials.
func ShootReader(ctx context.Context, seed client.Client, namespace string) (client.Reader, error) {
	_, reader, err := util.NewClientForShoot(ctx, seed, namespace, client.Options{
		Scheme: kubernetes.ShootScheme,
		Mapper: shootMapper(),
	}, extensionsconfigv1alpha1.RESTOptions{})
	if err != nil {
		return nil, fmt.Errorf("create client for the Shoot of namespace %s: %w", namespace, err)
	}
	return reader, nil
}

// shootMapper knows the kinds that are read from a Shoot, so that no reconcile
// has to ask its API server for what it serves.
func shootMapper() meta.RESTMapper {
	mapper := meta.NewDefaultRESTMapper([]schema.GroupVersion{corev1.SchemeGroupVersion})
	mapper.Add(corev1.SchemeGroupVersion.WithKind("Service"), meta.RESTScopeNamespace)
	return mapper
}

// readServiceAddresses returns the cluster IPs of the caches' Services by
// upstream.
func (a *cacheActuator) readServiceAddresses(ctx context.Context, namespace string, in *inputs) (map[string]net.IP, error) {
	shoot, err := a.shootReader(ctx, a.client, namespace)
	if err != nil {
		return nil, err
	}
	addresses := make(map[string]net.IP, len(in.caches))
	for _, cache := range in.caches {
		service := &corev1.Service{}
		key := client.ObjectKey{Namespace: resources.Namespace, Name: upstream.ServiceName(cache.Upstream, cache.ServiceNameSuffix)}
		if err := shoot.Get(ctx, key, service); err != nil {
			return nil, fmt.Errorf("read Service %s of the Shoot: %w", key, err)
		}
		address := net.ParseIP(service.Spec.ClusterIP)
		if address == nil {
			return nil, fmt.Errorf("the Shoot's Service %s has no cluster IP but %q", key, service.Spec.ClusterIP)
		}
		addresses[cache.Upstream] = address
	}
	return addresses, nil
}
