// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package resources

import (
	_ "embed"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/yaml"

	shootv1alpha3 "github.com/gardener/gardener-extension-registry-cache/pkg/apis/shoot/v1alpha3"
)

// tokenExpirationSeconds is how long a token of a cache is valid. The kubelet replaces
// it long before.
const tokenExpirationSeconds = 3600

// definition is written by hack/generate.sh.
//
//go:embed crd/registry.extensions.gardener.cloud_registrycaches.yaml
var definition []byte

// CustomResourceDefinition returns the definition of the RegistryCaches, of which each
// cache has one. It returns an error if the generated file is no such thing.
func CustomResourceDefinition() (*apiextensionsv1.CustomResourceDefinition, error) {
	crd := &apiextensionsv1.CustomResourceDefinition{}
	if err := yaml.UnmarshalStrict(definition, crd); err != nil {
		return nil, fmt.Errorf("decode the definition of RegistryCaches: %w", err)
	}
	return crd, nil
}

// RegistryCache returns what shows the cache to the Shoot's owner. The cache reports its
// status.
func (c Cache) RegistryCache() *shootv1alpha3.RegistryCache {
	return &shootv1alpha3.RegistryCache{
		ObjectMeta: c.objectMeta(c.name()),
		Spec:       shootv1alpha3.RegistryCacheSpec{RegistryCache: c.Config, Endpoint: c.Endpoint},
	}
}

// serviceAccount is who the pods of the cache are for the API server: somebody who may
// report the status of this one cache, and no more.
func (c Cache) serviceAccount() *corev1.ServiceAccount {
	return &corev1.ServiceAccount{ObjectMeta: c.objectMeta(c.name()), AutomountServiceAccountToken: ptr.To(false)}
}

func (c Cache) role() *rbacv1.Role {
	return &rbacv1.Role{
		ObjectMeta: c.objectMeta(c.name()),
		Rules: []rbacv1.PolicyRule{{
			APIGroups:     []string{shootv1alpha3.SchemeGroupVersion.Group},
			Resources:     []string{shootv1alpha3.Resource + "/status"},
			ResourceNames: []string{c.name()},
			Verbs:         []string{"patch"},
		}},
	}
}

func (c Cache) roleBinding() *rbacv1.RoleBinding {
	return &rbacv1.RoleBinding{
		ObjectMeta: c.objectMeta(c.name()),
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: c.name()},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: Namespace, Name: c.name()}},
	}
}

// reportVolume has what the cache needs to report its status. Without the authorities,
// which Kubernetes puts into each namespace, the pod starts all the same.
func reportVolume() corev1.Volume {
	return corev1.Volume{
		Name: reportVolumeName,
		VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{
			DefaultMode: ptr.To[int32](0o440),
			Sources: []corev1.VolumeProjection{
				{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{
					Path: corev1.ServiceAccountTokenKey, ExpirationSeconds: ptr.To[int64](tokenExpirationSeconds),
				}},
				{ConfigMap: &corev1.ConfigMapProjection{
					LocalObjectReference: corev1.LocalObjectReference{Name: "kube-root-ca.crt"},
					Items:                []corev1.KeyToPath{{Key: corev1.ServiceAccountRootCAKey, Path: corev1.ServiceAccountRootCAKey}},
					Optional:             ptr.To(true),
				}},
			},
		}},
	}
}
