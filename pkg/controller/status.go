// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"fmt"
	"net"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	extensionsv1alpha1 "github.com/gardener/gardener/pkg/apis/extensions/v1alpha1"

	"github.com/gardener/gardener-extension-registry-cache/pkg/apis/registry/v1alpha3"
	"github.com/gardener/gardener-extension-registry-cache/pkg/resources"
)

// updateStatus publishes where containerd finds the caches.
func (a *cacheActuator) updateStatus(
	ctx context.Context,
	ex *extensionsv1alpha1.Extension,
	in *inputs,
	addresses map[string]net.IP,
	certs *certificates,
) error {
	return a.publishStatus(ctx, ex, registryStatus(in, addresses, certs))
}

func (a *cacheActuator) publishStatus(ctx context.Context, ex *extensionsv1alpha1.Extension, status *v1alpha3.RegistryStatus) error {
	if ex.Status.ProviderStatus != nil {
		if current, err := v1alpha3.DecodeStatus(ex.Status.ProviderStatus.Raw); err == nil {
			current.TypeMeta = status.TypeMeta
			if equality.Semantic.DeepEqual(current, status) {
				return nil
			}
		}
	}

	encoded, err := v1alpha3.EncodeStatus(status)
	if err != nil {
		return err
	}
	patch := client.MergeFrom(ex.DeepCopy())
	ex.Status.ProviderStatus = encoded
	if err := a.client.Status().Patch(ctx, ex, patch); err != nil {
		return fmt.Errorf("publish the endpoints of the caches: %w", err)
	}
	return nil
}

func registryStatus(in *inputs, addresses map[string]net.IP, certs *certificates) *v1alpha3.RegistryStatus {
	status := &v1alpha3.RegistryStatus{Caches: make([]v1alpha3.RegistryCacheStatus, 0, len(in.caches))}
	if certs.caSecretName != "" {
		status.CASecretName = ptr.To(certs.caSecretName)
	}
	for _, cache := range in.caches {
		status.Caches = append(status.Caches, v1alpha3.RegistryCacheStatus{
			Upstream:  cache.Upstream,
			Endpoint:  resources.Endpoint(cache, addresses[cache.Upstream].String()),
			RemoteURL: *cache.RemoteURL,
		})
	}
	return status
}
