// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package gardener

import (
	"context"
	"fmt"

	nodeagentconfigv1alpha1 "github.com/gardener/gardener/pkg/apis/config/nodeagent/v1alpha1"
	extensionsv1alpha1 "github.com/gardener/gardener/pkg/apis/extensions/v1alpha1"
	"github.com/gardener/gardener/pkg/component/extensions/operatingsystemconfig/original/components/nodeagent"
	"github.com/gardener/gardener/pkg/controllerutils"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// WriteOperatingSystemConfig writes an OperatingSystemConfig to the Seed as
// gardenlet does, which knows nothing of what webhooks add, and returns it as the
// webhooks made it.
func WriteOperatingSystemConfig(ctx context.Context, c client.Client, wanted *extensionsv1alpha1.OperatingSystemConfig) (*extensionsv1alpha1.OperatingSystemConfig, error) {
	osc := &extensionsv1alpha1.OperatingSystemConfig{ObjectMeta: metav1.ObjectMeta{Namespace: wanted.Namespace, Name: wanted.Name}}
	if _, err := controllerutils.GetAndCreateOrMergePatch(ctx, c, osc, func() error {
		wanted.Spec.DeepCopyInto(&osc.Spec)
		return nil
	}); err != nil {
		return nil, fmt.Errorf("write OperatingSystemConfig %s/%s: %w", wanted.Namespace, wanted.Name, err)
	}
	return osc, nil
}

// ApplyOperatingSystemConfig hands an OperatingSystemConfig of the Seed to a node
// of the Shoot, by the Secret that its gardener-node-agent looks at, and waits
// until that has applied it.
func ApplyOperatingSystemConfig(ctx context.Context, seed, shoot client.Client, osc *extensionsv1alpha1.OperatingSystemConfig, secretName, nodeName string) error {
	wanted, err := nodeagent.OperatingSystemConfigSecret(ctx, seed, osc.DeepCopy(), secretName, "pool", true)
	if err != nil {
		return fmt.Errorf("make Secret of OperatingSystemConfig %s/%s: %w", osc.Namespace, osc.Name, err)
	}
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: wanted.Namespace, Name: wanted.Name}}
	if _, err := controllerutils.GetAndCreateOrMergePatch(ctx, shoot, secret, func() error {
		secret.Labels, secret.Annotations, secret.Data = wanted.Labels, wanted.Annotations, wanted.Data
		return nil
	}); err != nil {
		return fmt.Errorf("write Secret %s: %w", secretName, err)
	}

	checksum := wanted.Annotations[nodeagentconfigv1alpha1.AnnotationKeyChecksumDownloadedOperatingSystemConfig]
	err = wait.PollUntilContextCancel(ctx, pollInterval, true, func(ctx context.Context) (bool, error) {
		node := &corev1.Node{}
		if err := shoot.Get(ctx, client.ObjectKey{Name: nodeName}, node); err != nil {
			return false, err
		}
		return node.Annotations[nodeagentconfigv1alpha1.AnnotationKeyChecksumAppliedOperatingSystemConfig] == checksum, nil
	})
	if err != nil {
		return fmt.Errorf("wait for node %s to apply its OperatingSystemConfig: %w", nodeName, err)
	}
	return nil
}
