// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package resources

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"

	resourcesv1alpha1 "github.com/gardener/gardener/pkg/apis/resources/v1alpha1"

	configv1alpha1 "github.com/gardener/gardener-extension-registry-cache/pkg/apis/config/v1alpha1"
	"github.com/gardener/gardener-extension-registry-cache/pkg/apis/inventory"
)

const (
	configDir      = "/etc/registry-cache"
	configKey      = "config.yaml"
	credentialsDir = "/etc/registry-cache-credentials" //nolint:gosec // a path, not a credential
	tlsDir         = "/etc/registry-cache-tls"
	reportDir      = "/etc/registry-cache-report"
	storageDir     = "/var/lib/registry"

	credentialsKeyUsername = "username"
	credentialsKeyPassword = "password"
)

// configSecret holds the configuration file of the cache server. A change of
// it restarts the pods.
func (c Cache) configSecret() (*corev1.Secret, error) {
	config, err := configv1alpha1.EncodeCacheConfiguration(c.configuration())
	if err != nil {
		return nil, err
	}
	return secret(c.objectMeta(c.name()+"-config"), map[string][]byte{configKey: config}), nil
}

// credentialsSecret holds what the cache authenticates with at the upstream.
// The server reads it again when it changes, so its pods need no restart.
func (c Cache) credentialsSecret() *corev1.Secret {
	return secret(c.objectMeta(c.name()+"-credentials"), map[string][]byte{
		credentialsKeyUsername: c.Credentials.Username,
		credentialsKeyPassword: c.Credentials.Password,
	})
}

// tlsSecret holds the serving certificate. The server reads it again when it
// changes, so its pods need no restart.
func (c Cache) tlsSecret() *corev1.Secret {
	tls := secret(c.objectMeta(certificateName(c.Config.Upstream)), map[string][]byte{
		corev1.TLSCertKey:       c.Certificate.Certificate,
		corev1.TLSPrivateKeyKey: c.Certificate.Key,
	})
	tls.Type = corev1.SecretTypeTLS
	// The type cannot be changed, and a Secret of this name may be there from
	// another version of the extension. The pods keep what they have mounted.
	tls.Annotations = map[string]string{resourcesv1alpha1.DeleteOnInvalidUpdate: "true"}
	return tls
}

func (c Cache) configuration() *configv1alpha1.CacheConfiguration {
	config := &configv1alpha1.CacheConfiguration{
		Upstream:          c.Config.Upstream,
		RemoteURL:         *c.Config.RemoteURL,
		GarbageCollection: configv1alpha1.GarbageCollection{TTL: c.Config.GarbageCollection.TTL},
	}
	configv1alpha1.SetObjectDefaults_CacheConfiguration(config)
	config.Server.ShutdownDelay.Duration = shutdownDelay
	config.Debug.InventoryPort = ptr.To[int32](inventory.Port)
	config.Report = &configv1alpha1.Report{Namespace: Namespace, Name: c.name(), CredentialsDir: reportDir}
	if c.Credentials != nil {
		config.CredentialsDir = credentialsDir
	}
	if c.Certificate != nil {
		config.Server.TLS = &configv1alpha1.TLS{
			CertFile: tlsDir + "/" + corev1.TLSCertKey,
			KeyFile:  tlsDir + "/" + corev1.TLSPrivateKeyKey,
		}
	}
	return config
}
