// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"fmt"
	"net"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	vpaautoscalingv1 "k8s.io/autoscaler/vertical-pod-autoscaler/pkg/apis/autoscaling.k8s.io/v1"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	extensionsconfigv1alpha1 "github.com/gardener/gardener/extensions/pkg/apis/config/v1alpha1"
	"github.com/gardener/gardener/extensions/pkg/util"
	"github.com/gardener/gardener/pkg/client/kubernetes"

	"github.com/gardener/gardener-extension-registry-cache/pkg/resources"
	"github.com/gardener/gardener-extension-registry-cache/pkg/upstream"
)

// shootRequestTimeout is how long a request to a Shoot's API server takes at most. One
// that takes connections and never answers would use up all the time there is.
const shootRequestTimeout = 30 * time.Second

// ShootClientFunc returns a client of the Shoot whose control plane runs in the
// given namespace of the Seed, and a function to be called when it has served.
type ShootClientFunc func(ctx context.Context, seed client.Client, namespace string) (shoot client.Client, release func(), err error)

// ShootClient is a ShootClientFunc. The client has the credentials that gardenlet
// keeps for extensions and no cache, and knows the kinds that this package reads and
// writes in a Shoot. Once it is released no connection to the Shoot stays open.
func ShootClient(ctx context.Context, seed client.Client, namespace string) (client.Client, func(), error) {
	config, shoot, err := util.NewClientForShoot(ctx, seed, namespace, client.Options{
		Scheme: kubernetes.ShootScheme,
		Mapper: shootMapper(),
	}, extensionsconfigv1alpha1.RESTOptions{Timeout: ptr.To(shootRequestTimeout)})
	if err != nil {
		return nil, nil, fmt.Errorf("create client for the Shoot of namespace %s: %w", namespace, err)
	}
	// client-go has one transport for all clients with the same configuration.
	transport, err := rest.TransportFor(config)
	if err != nil {
		return nil, nil, fmt.Errorf("find transport to the Shoot of namespace %s: %w", namespace, err)
	}
	return shoot, func() { utilnet.CloseIdleConnectionsFor(transport) }, nil
}

// shootMapper spares each reconcile the question what a Shoot's API server serves.
func shootMapper() meta.RESTMapper {
	mapper := meta.NewDefaultRESTMapper([]schema.GroupVersion{corev1.SchemeGroupVersion, appsv1.SchemeGroupVersion, storagev1.SchemeGroupVersion, networkingv1.SchemeGroupVersion, policyv1.SchemeGroupVersion, vpaautoscalingv1.SchemeGroupVersion})
	mapper.Add(corev1.SchemeGroupVersion.WithKind("Service"), meta.RESTScopeNamespace)
	mapper.Add(corev1.SchemeGroupVersion.WithKind("PersistentVolumeClaim"), meta.RESTScopeNamespace)
	mapper.Add(corev1.SchemeGroupVersion.WithKind("Pod"), meta.RESTScopeNamespace)
	mapper.Add(corev1.SchemeGroupVersion.WithKind("Secret"), meta.RESTScopeNamespace)
	mapper.Add(networkingv1.SchemeGroupVersion.WithKind("NetworkPolicy"), meta.RESTScopeNamespace)
	mapper.Add(policyv1.SchemeGroupVersion.WithKind("PodDisruptionBudget"), meta.RESTScopeNamespace)
	mapper.Add(vpaautoscalingv1.SchemeGroupVersion.WithKind("VerticalPodAutoscaler"), meta.RESTScopeNamespace)
	mapper.Add(appsv1.SchemeGroupVersion.WithKind("StatefulSet"), meta.RESTScopeNamespace)
	mapper.Add(storagev1.SchemeGroupVersion.WithKind("StorageClass"), meta.RESTScopeRoot)
	return mapper
}

// readServiceAddresses returns the cluster IPs of the caches' Services by
// upstream.
func readServiceAddresses(ctx context.Context, shoot client.Reader, in *inputs) (map[string]net.IP, error) {
	services := &corev1.ServiceList{}
	if err := shoot.List(ctx, services, resources.ListOptions()...); err != nil {
		return nil, fmt.Errorf("read the Shoot's Services of caches: %w", err)
	}
	clusterIPs := make(map[string]string, len(services.Items))
	for _, service := range services.Items {
		clusterIPs[service.Name] = service.Spec.ClusterIP
	}
	addresses := make(map[string]net.IP, len(in.caches))
	for _, cache := range in.caches {
		name := upstream.ServiceName(cache.Upstream, cache.ServiceNameSuffix)
		clusterIP, found := clusterIPs[name]
		if !found {
			return nil, fmt.Errorf("the Shoot has no Service %s in namespace %s", name, resources.Namespace)
		}
		address := net.ParseIP(clusterIP)
		if address == nil {
			return nil, fmt.Errorf("the Shoot's Service %s has no cluster IP but %q", name, clusterIP)
		}
		addresses[cache.Upstream] = address
	}
	return addresses, nil
}
