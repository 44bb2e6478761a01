// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package resources

import (
	"maps"
	"strconv"

	"github.com/Masterminds/semver/v3"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"

	"github.com/gardener/gardener-extension-registry-cache/pkg/apis/registry/v1alpha3"
	"github.com/gardener/gardener-extension-registry-cache/pkg/upstream"
)

const (
	annotationUpstream  = "upstream"
	annotationRemoteURL = "remote-url"
	annotationScheme    = "scheme"

	// labelLeaving is a label that no pod has.
	labelLeaving = "leaving"
)

// preferSameZoneSince is the first Kubernetes version that knows the traffic
// distribution PreferSameZone; earlier ones call it PreferClose.
// https://kubernetes.io/docs/reference/networking/virtual-ips/#traffic-distribution
var preferSameZoneSince = semver.MustParse("1.34")

// Service returns the Service of a cache in a Shoot of the given Kubernetes
// version.
func Service(cache v1alpha3.RegistryCache, kubernetesVersion *semver.Version) *corev1.Service {
	service := &corev1.Service{
		ObjectMeta: objectMeta(cache.Upstream, upstream.ServiceName(cache.Upstream, cache.ServiceNameSuffix)),
		Spec: corev1.ServiceSpec{
			Type:     corev1.ServiceTypeClusterIP,
			Selector: labels(cache.Upstream),
			Ports: []corev1.ServicePort{
				servicePort(serverPortName, serverPort),
				servicePort(debugPortName, debugPort),
			},
		},
	}
	service.Annotations = map[string]string{
		annotationUpstream:  cache.Upstream,
		annotationRemoteURL: *cache.RemoteURL,
		annotationScheme:    Scheme(cache),
	}
	if ptr.Deref(cache.HighAvailability.Enabled, false) {
		service.Spec.TrafficDistribution = ptr.To(trafficDistribution(kubernetesVersion))
	}
	return service
}

// RefusingService returns what a Service of a cache that is not configured any more
// becomes before it is deleted: it has no endpoint, so that a node that still asks it is
// refused at once, instead of waiting for an address that nobody has.
func RefusingService(service corev1.Service) *corev1.Service {
	labels := map[string]string{labelApp: service.Labels[labelApp], labelUpstreamHost: service.Labels[labelUpstreamHost]}
	selector := maps.Clone(labels)
	selector[labelLeaving] = "true"
	ports := make([]corev1.ServicePort, 0, len(service.Spec.Ports))
	for _, port := range service.Spec.Ports {
		ports = append(ports, corev1.ServicePort{Name: port.Name, Port: port.Port, Protocol: port.Protocol, TargetPort: port.TargetPort})
	}
	return &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: service.Namespace, Name: service.Name, Labels: labels},
		Spec:       corev1.ServiceSpec{Type: corev1.ServiceTypeClusterIP, Selector: selector, Ports: ports},
	}
}

// Scheme returns the URL scheme by which containerd speaks to a cache.
func Scheme(cache v1alpha3.RegistryCache) string {
	if *cache.HTTP.TLS {
		return "https"
	}
	return "http"
}

// Endpoint returns the URL at which containerd reaches a cache whose Service
// has the given cluster IP.
func Endpoint(cache v1alpha3.RegistryCache, clusterIP string) string {
	return upstream.Endpoint(Scheme(cache), clusterIP, strconv.Itoa(serverPort))
}

func servicePort(name string, port int32) corev1.ServicePort {
	return corev1.ServicePort{Name: name, Port: port, Protocol: corev1.ProtocolTCP, TargetPort: intstr.FromString(name)}
}

func trafficDistribution(kubernetesVersion *semver.Version) string {
	if kubernetesVersion.LessThan(preferSameZoneSince) {
		return corev1.ServiceTrafficDistributionPreferClose
	}
	return corev1.ServiceTrafficDistributionPreferSameZone
}
