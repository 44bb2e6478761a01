// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

// Package resources says what the Kubernetes objects of a cache look like, one
// file a kind. It is pure: reading inputs and writing objects is the business of
// package controller.
//
// The names and labels are those that the extension has always had, see
// docs/usage/registry-cache.md: a Shoot that ran an earlier version keeps its
// Services' addresses and its volumes.
package resources

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	k8slabels "k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/gardener/gardener-extension-registry-cache/pkg/apis/registry/v1alpha3"
	"github.com/gardener/gardener-extension-registry-cache/pkg/upstream"
)

const (
	// Namespace is the namespace of all objects in the Shoot.
	Namespace = metav1.NamespaceSystem

	// AppName is the value of the label app.kubernetes.io/name on the pods of
	// all caches.
	AppName = "registry-cache"

	labelApp          = "app"
	labelAppName      = "app.kubernetes.io/name"
	labelUpstreamHost = "upstream-host"

	serverPort     = 5000
	serverPortName = "registry-cache"
	debugPort      = 5001
	debugPortName  = "debug"

	// DebugPortName is the name of the port with metrics and health.
	DebugPortName = debugPortName
)

// Cache is what the objects of one cache are made from.
type Cache struct {
	// Config is the cache's configuration, decoded with its defaults and valid.
	Config v1alpha3.RegistryCache
	// Image is the image of the cache server.
	Image string
	// Credentials are what the cache authenticates with at the upstream. Nil, it
	// pulls anonymously.
	Credentials *Credentials
	// Certificate is what the cache serves with. Nil, it speaks plain HTTP.
	Certificate *Certificate
	// Endpoint is the URL at which nodes reach the cache.
	Endpoint string
	// VerticalPodAutoscaler says whether the Shoot has one.
	VerticalPodAutoscaler bool
}

// Credentials are a user's name and password.
type Credentials struct {
	Username, Password []byte
}

// Certificate is a PEM encoded certificate with its private key.
type Certificate struct {
	Certificate, Key []byte
}

// Objects returns the objects of a cache, except its Service, its
// RegistryCache and its ReportRights, in the
// order in which they are named in this package's files. It returns an error if the
// cache's configuration file cannot be written.
func (c Cache) Objects() ([]client.Object, error) {
	configSecret, err := c.configSecret()
	if err != nil {
		return nil, fmt.Errorf("cache of upstream %s: %w", c.Config.Upstream, err)
	}
	objects := []client.Object{configSecret}
	if c.Credentials != nil {
		objects = append(objects, c.credentialsSecret())
	}
	if c.Certificate != nil {
		objects = append(objects, c.tlsSecret())
	}
	objects = append(objects, c.statefulSet(configSecret))
	objects = append(objects, c.serviceAccount())
	if c.VerticalPodAutoscaler {
		objects = append(objects, c.verticalPodAutoscaler())
	}
	if c.highlyAvailable() {
		objects = append(objects, c.podDisruptionBudget())
	}
	return objects, nil
}

// ReportRights returns the right of a cache to report its status to its RegistryCache.
// The cache serves without both.
func (c Cache) ReportRights() []client.Object {
	return []client.Object{c.role(), c.roleBinding()}
}

func (c Cache) name() string {
	return upstream.ResourceName(c.Config.Upstream)
}

func (c Cache) objectMeta(name string) metav1.ObjectMeta {
	return objectMeta(c.Config.Upstream, name)
}

func (c Cache) highlyAvailable() bool {
	return ptr.Deref(c.Config.HighAvailability.Enabled, false)
}

func objectMeta(upstreamHost, name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Name: name, Namespace: Namespace, Labels: labels(upstreamHost)}
}

// labels are the labels that all objects of a cache carry, and by which its
// Service and StatefulSet select its pods.
func labels(upstreamHost string) map[string]string {
	return map[string]string{
		labelApp:          upstream.ResourceName(upstreamHost),
		labelUpstreamHost: upstream.Label(upstreamHost),
	}
}

// ListOptions select the objects of all caches in the Shoot of one kind, of
// caches that are not configured any more too.
func ListOptions() []client.ListOption {
	return []client.ListOption{client.InNamespace(Namespace), client.HasLabels{labelUpstreamHost}}
}

// OthersSelector selects the objects in the Shoot of all caches but the given ones. All
// of them have both labels.
func OthersSelector(caches []v1alpha3.RegistryCache) (k8slabels.Selector, error) {
	isOfCache, err := k8slabels.NewRequirement(labelUpstreamHost, selection.Exists, nil)
	if err != nil {
		return nil, fmt.Errorf("select the objects of caches: %w", err)
	}
	hasApp, err := k8slabels.NewRequirement(labelApp, selection.Exists, nil)
	if err != nil {
		return nil, fmt.Errorf("select the objects of caches: %w", err)
	}
	selector := k8slabels.NewSelector().Add(*isOfCache, *hasApp)
	for _, cache := range caches {
		isOfOther, err := k8slabels.NewRequirement(labelUpstreamHost, selection.NotEquals, []string{upstream.Label(cache.Upstream)})
		if err != nil {
			return nil, fmt.Errorf("select the objects of other caches than %s: %w", cache.Upstream, err)
		}
		selector = selector.Add(*isOfOther)
	}
	return selector, nil
}

func secret(meta metav1.ObjectMeta, data map[string][]byte) *corev1.Secret {
	return &corev1.Secret{ObjectMeta: meta, Type: corev1.SecretTypeOpaque, Data: data}
}
