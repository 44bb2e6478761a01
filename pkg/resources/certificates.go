// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package resources

import (
	"net"
	"time"

	"k8s.io/utils/ptr"

	kubernetesutils "github.com/gardener/gardener/pkg/utils/kubernetes"
	secretsutils "github.com/gardener/gardener/pkg/utils/secrets"

	"github.com/gardener/gardener-extension-registry-cache/pkg/apis/registry/v1alpha3"
	"github.com/gardener/gardener-extension-registry-cache/pkg/upstream"
)

const (
	// CAName is the name of the certificate authority of all caches of a Shoot.
	CAName = "ca-extension-registry-cache"

	caValidity                = 2 * 365 * 24 * time.Hour
	serverCertificateValidity = 90 * 24 * time.Hour
)

// CA returns the certificate authority of all caches of a Shoot.
func CA() *secretsutils.CertificateSecretConfig {
	return &secretsutils.CertificateSecretConfig{
		Name:       CAName,
		CommonName: CAName,
		CertType:   secretsutils.CACert,
		Validity:   ptr.To(caValidity),
	}
}

// ServerCertificate returns the serving certificate of a cache whose Service
// has the given cluster IP. containerd dials the IP, so the IP is what the
// certificate is for; the Service's names are for people.
func ServerCertificate(cache v1alpha3.RegistryCache, clusterIP net.IP) *secretsutils.CertificateSecretConfig {
	serviceName := upstream.ServiceName(cache.Upstream, cache.ServiceNameSuffix)
	return &secretsutils.CertificateSecretConfig{
		Name:                        certificateName(cache.Upstream),
		CommonName:                  serviceName,
		CertType:                    secretsutils.ServerCert,
		DNSNames:                    kubernetesutils.DNSNamesForService(serviceName, Namespace),
		IPAddresses:                 []net.IP{clusterIP},
		Validity:                    ptr.To(serverCertificateValidity),
		SkipPublishingCACertificate: true,
	}
}

func certificateName(upstreamHost string) string {
	return upstream.ResourceName(upstreamHost) + "-tls"
}
