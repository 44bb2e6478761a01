// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strconv"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	extensionscontroller "github.com/gardener/gardener/extensions/pkg/controller"
	extensionssecretsmanager "github.com/gardener/gardener/extensions/pkg/util/secret/manager"
	v1beta1helper "github.com/gardener/gardener/pkg/api/core/v1beta1/helper"
	gardencorev1beta1 "github.com/gardener/gardener/pkg/apis/core/v1beta1"
	secretsutils "github.com/gardener/gardener/pkg/utils/secrets"
	secretsmanager "github.com/gardener/gardener/pkg/utils/secrets/manager"

	"github.com/gardener/gardener-extension-registry-cache/pkg/resources"
)

// secretsManagerIdentity tells the Secrets of this extension from others' in
// the namespace of a Shoot.
const secretsManagerIdentity = "extension-registry-cache"

// certificates are those of the caches of one Shoot.
type certificates struct {
	manager secretsmanager.Interface
	// caSecretName is the name of the Secret with the certificate authorities to
	// be trusted: two during a rotation. Empty when no cache uses TLS.
	caSecretName string
	// servers are the serving certificates by upstream.
	servers map[string]*resources.Certificate
}

func (a *cacheActuator) generateCertificates(
	ctx context.Context,
	log logr.Logger,
	cluster *extensionscontroller.Cluster,
	in *inputs,
	addresses map[string]net.IP,
) (
	*certificates,
	error,
) {
	ca := extensionssecretsmanager.SecretConfigWithOptions{
		Config:  resources.CA(),
		Options: []secretsmanager.GenerateOption{secretsmanager.Persist()},
	}
	missed, err := a.missedRotation(ctx, cluster)
	if err != nil {
		return nil, err
	}
	if missed {
		ca.Options = append(ca.Options, secretsmanager.IgnoreOldSecrets())
	}
	manager, err := extensionssecretsmanager.SecretsManagerForCluster(ctx, log.WithName("secretsmanager"), a.clock, a.client, cluster,
		secretsManagerIdentity, []extensionssecretsmanager.SecretConfigWithOptions{ca})
	if err != nil {
		return nil, fmt.Errorf("create secrets manager: %w", err)
	}
	certs := &certificates{manager: manager, servers: make(map[string]*resources.Certificate)}

	for _, cache := range in.caches {
		if !*cache.HTTP.TLS {
			continue
		}
		if certs.caSecretName == "" {
			if err := certs.generateCA(ctx, ca); err != nil {
				return nil, err
			}
		}
		config := resources.ServerCertificate(cache, addresses[cache.Upstream])
		secret, err := manager.Generate(ctx, config, signedByTrustedCA(cluster.Shoot), secretsmanager.Rotate(secretsmanager.InPlace))
		if err != nil {
			return nil, fmt.Errorf("generate certificate %s: %w", config.Name, err)
		}
		certs.servers[cache.Upstream] = serverCertificate(secret)
	}
	return certs, nil
}

// missedRotation says whether a rotation of the certificate authorities began and
// ended while the Shoot was hibernated and all was left as it is. Then an authority
// from before is here still, which the phase Completing would have removed: it would
// go on signing, and expire as if there had been no rotation. Nodes do not miss it,
// for those of a Shoot that woke up are new.
func (a *cacheActuator) missedRotation(ctx context.Context, cluster *extensionscontroller.Cluster) (bool, error) {
	credentials := cluster.Shoot.Status.Credentials
	if v1beta1helper.GetShootCARotationPhase(credentials) != gardencorev1beta1.RotationCompleted {
		return false, nil
	}
	began := credentials.Rotation.CertificateAuthorities.LastInitiationTime
	if began == nil {
		return false, nil
	}
	authorities := &corev1.SecretList{}
	if err := a.client.List(ctx, authorities, client.InNamespace(cluster.ObjectMeta.Name), client.MatchingLabels{
		secretsmanager.LabelKeyManagedBy:       secretsmanager.LabelValueSecretsManager,
		secretsmanager.LabelKeyManagerIdentity: secretsManagerIdentity,
		secretsmanager.LabelKeyName:            resources.CAName,
	}); err != nil {
		return false, fmt.Errorf("list certificate authorities: %w", err)
	}
	rotation := strconv.FormatInt(began.Unix(), 10)
	return slices.ContainsFunc(authorities.Items, func(authority corev1.Secret) bool {
		return authority.Labels[secretsmanager.LabelKeyLastRotationInitiationTime] != rotation
	}), nil
}

// signedByTrustedCA has that certificate authority sign which all nodes trust. During
// a rotation that is the old one until all nodes got the new one too, by the phase
// Prepared. From then on it is the new one: in the phase Completing nodes lose the
// old one, maybe before the kubelets have given the pods a certificate of the new one.
func signedByTrustedCA(shoot *gardencorev1beta1.Shoot) secretsmanager.GenerateOption {
	switch v1beta1helper.GetShootCARotationPhase(shoot.Status.Credentials) {
	case gardencorev1beta1.RotationPrepared, gardencorev1beta1.RotationCompleting:
		return secretsmanager.SignedByCA(resources.CAName, secretsmanager.UseCurrentCA)
	default:
		return secretsmanager.SignedByCA(resources.CAName)
	}
}

func (c *certificates) generateCA(ctx context.Context, ca extensionssecretsmanager.SecretConfigWithOptions) error {
	if _, err := c.manager.Generate(ctx, ca.Config, ca.Options...); err != nil {
		return fmt.Errorf("generate certificate authority %s: %w", resources.CAName, err)
	}
	bundle, found := c.manager.Get(resources.CAName)
	if !found {
		return fmt.Errorf("the bundle of certificate authority %s was not generated", resources.CAName)
	}
	c.caSecretName = bundle.Name
	return nil
}

// cleanup deletes the certificates that no cache uses any more.
func (c *certificates) cleanup(ctx context.Context) error {
	if err := c.manager.Cleanup(ctx); err != nil {
		return fmt.Errorf("delete unused certificates: %w", err)
	}
	return nil
}

// deleteCertificates deletes all certificates of a Shoot's caches.
func (a *cacheActuator) deleteCertificates(ctx context.Context, log logr.Logger, namespace string) error {
	manager, err := secretsmanager.New(ctx, log.WithName("secretsmanager"), a.clock, a.client, secretsManagerIdentity,
		secretsmanager.WithNamespaces(namespace))
	if err != nil {
		return fmt.Errorf("create secrets manager: %w", err)
	}
	return (&certificates{manager: manager}).cleanup(ctx)
}

func serverCertificate(secret *corev1.Secret) *resources.Certificate {
	return &resources.Certificate{
		Certificate: secret.Data[secretsutils.DataKeyCertificate],
		Key:         secret.Data[secretsutils.DataKeyPrivateKey],
	}
}
