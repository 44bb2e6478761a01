// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/go-logr/logr"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	storagev1 "k8s.io/api/storage/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/apimachinery/pkg/util/sets"
	vpaautoscalingv1 "k8s.io/autoscaler/vertical-pod-autoscaler/pkg/apis/autoscaling.k8s.io/v1"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	extensionsconfigv1alpha1 "github.com/gardener/gardener/extensions/pkg/apis/config/v1alpha1"
	"github.com/gardener/gardener/extensions/pkg/util"
	resourcesv1alpha1 "github.com/gardener/gardener/pkg/apis/resources/v1alpha1"
	"github.com/gardener/gardener/pkg/client/kubernetes"

	shootv1alpha3 "github.com/gardener/gardener-extension-registry-cache/pkg/apis/shoot/v1alpha3"
	"github.com/gardener/gardener-extension-registry-cache/pkg/resources"
	"github.com/gardener/gardener-extension-registry-cache/pkg/upstream"
)

// shootRequestTimeout is how long a request to a Shoot's API server takes at most. One
// that takes connections and never answers would use up all the time there is.
const shootRequestTimeout = 30 * time.Second

// nodesWithdrawWithin is how long it takes at most until no node asks a cache any more
// whose address refuses connections: 11 s in the node's unit (docs/operations/nodes.md),
// and some for kube-proxy to hear of it.
const nodesWithdrawWithin = 15 * time.Second

// removalTime is what the removal of a Service takes at most in a Shoot that is well. If
// less is left of a reconcile, the Service stays, and refuses, until the next one.
const removalTime = 30 * time.Second

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
	mapper := meta.NewDefaultRESTMapper(nil)
	for kind, scope := range map[schema.GroupVersionKind]meta.RESTScope{
		corev1.SchemeGroupVersion.WithKind("Node"):                              meta.RESTScopeRoot,
		corev1.SchemeGroupVersion.WithKind("Service"):                           meta.RESTScopeNamespace,
		corev1.SchemeGroupVersion.WithKind("ServiceAccount"):                    meta.RESTScopeNamespace,
		corev1.SchemeGroupVersion.WithKind("PersistentVolumeClaim"):             meta.RESTScopeNamespace,
		corev1.SchemeGroupVersion.WithKind("Pod"):                               meta.RESTScopeNamespace,
		corev1.SchemeGroupVersion.WithKind("Secret"):                            meta.RESTScopeNamespace,
		appsv1.SchemeGroupVersion.WithKind("StatefulSet"):                       meta.RESTScopeNamespace,
		rbacv1.SchemeGroupVersion.WithKind("Role"):                              meta.RESTScopeNamespace,
		rbacv1.SchemeGroupVersion.WithKind("RoleBinding"):                       meta.RESTScopeNamespace,
		networkingv1.SchemeGroupVersion.WithKind("NetworkPolicy"):               meta.RESTScopeNamespace,
		policyv1.SchemeGroupVersion.WithKind("PodDisruptionBudget"):             meta.RESTScopeNamespace,
		storagev1.SchemeGroupVersion.WithKind("StorageClass"):                   meta.RESTScopeRoot,
		vpaautoscalingv1.SchemeGroupVersion.WithKind("VerticalPodAutoscaler"):   meta.RESTScopeNamespace,
		shootv1alpha3.SchemeGroupVersion.WithKind(shootv1alpha3.Kind):           meta.RESTScopeNamespace,
		apiextensionsv1.SchemeGroupVersion.WithKind("CustomResourceDefinition"): meta.RESTScopeRoot,
	} {
		mapper.Add(kind, scope)
	}
	return mapper
}

// readServices returns the Services in the Shoot that say they are of a cache.
func readServices(ctx context.Context, shoot client.Reader) ([]corev1.Service, error) {
	services := &corev1.ServiceList{}
	if err := shoot.List(ctx, services, resources.ListOptions()...); err != nil {
		return nil, fmt.Errorf("read the Shoot's Services of caches: %w", err)
	}
	return services.Items, nil
}

// leavingServices returns those Services of the caches of a Shoot that are not
// configured any more. Nodes may ask them still.
//
// They are known by the ManagedResource that they came with: whoever else has put our
// label on a Service has not given it to us.
func leavingServices(services []corev1.Service, namespace string, in *inputs) []corev1.Service {
	configured := sets.New[string]()
	for _, cache := range in.caches {
		configured.Insert(upstream.ServiceName(cache.Upstream, cache.ServiceNameSuffix))
	}
	ours := namespace + "/" + servicesManagedResource
	return slices.DeleteFunc(slices.Clone(services), func(service corev1.Service) bool {
		origin := service.Annotations[resourcesv1alpha1.OriginAnnotation]
		// Before a colon is the Seed, if it has an identity: another one after a migration.
		return configured.Has(service.Name) || origin != ours && !strings.HasSuffix(origin, ":"+ours)
	})
}

// services are the Services of a Shoot's caches as they are deployed.
type services struct {
	// addresses are the cluster IPs by upstream.
	addresses map[string]net.IP
	// removeLeaving removes those that are not configured any more, if there are any,
	// when no node asks them any more.
	removeLeaving func(context.Context) error
}

// deployAddresses deploys the Services, and has those that are not configured any more
// refuse connections.
func (a *cacheActuator) deployAddresses(ctx context.Context, log logr.Logger, namespace string, shoot client.Reader, in *inputs) (*services, error) {
	before, err := readServices(ctx, shoot)
	if err != nil {
		return nil, err
	}
	leaving := leavingServices(before, namespace, in)
	if err := a.deployServices(ctx, namespace, in, leaving); err != nil {
		return nil, err
	}
	refusing := a.clock.Now()
	addresses, err := serviceAddresses(before, in)
	if err != nil { // as long as Services are new
		after, err := readServices(ctx, shoot)
		if err != nil {
			return nil, err
		}
		if addresses, err = serviceAddresses(after, in); err != nil {
			return nil, err
		}
	}
	return &services{addresses: addresses, removeLeaving: func(ctx context.Context) error {
		if len(leaving) == 0 {
			return nil
		}
		if end, limited := ctx.Deadline(); limited && end.Sub(refusing) < nodesWithdrawWithin+removalTime {
			log.Info("Services of caches that are gone remain until the next reconciliation, for the Shoot's API server is slow")
			return nil
		}
		if err := a.awaitNodes(ctx, log, shoot, refusing); err != nil {
			return err
		}
		return a.deployServices(ctx, namespace, in, nil)
	}}, nil
}

// awaitNodes returns when nodes have withdrawn a host that refuses connections since
// the given time, and at once if the Shoot has no node. Where that cannot be found out
// it has some.
func (a *cacheActuator) awaitNodes(ctx context.Context, log logr.Logger, shoot client.Reader, since time.Time) error {
	nodes := &corev1.NodeList{}
	if err := shoot.List(ctx, nodes, client.Limit(1)); err != nil {
		log.Error(err, "Cannot find out whether the Shoot has nodes")
	} else if len(nodes.Items) == 0 {
		return nil
	}
	return a.awaitWithdrawal(ctx, log, since)
}

func (a *cacheActuator) awaitWithdrawal(ctx context.Context, log logr.Logger, since time.Time) error {
	remaining := nodesWithdrawWithin - a.clock.Since(since)
	log.Info("Waiting for nodes to withdraw caches that are gone", "duration", remaining)
	select {
	case <-a.clock.After(remaining):
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for nodes to withdraw caches that are gone: %w", ctx.Err())
	}
}

// serviceAddresses returns the cluster IPs of the caches' Services by upstream.
func serviceAddresses(services []corev1.Service, in *inputs) (map[string]net.IP, error) {
	clusterIPs := make(map[string]string, len(services))
	for _, service := range services {
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
