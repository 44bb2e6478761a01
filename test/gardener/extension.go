// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package gardener

import (
	"context"
	"errors"
	"fmt"
	"time"

	gardencorev1beta1 "github.com/gardener/gardener/pkg/apis/core/v1beta1"
	v1beta1constants "github.com/gardener/gardener/pkg/apis/core/v1beta1/constants"
	extensionsv1alpha1 "github.com/gardener/gardener/pkg/apis/extensions/v1alpha1"
	"github.com/gardener/gardener/pkg/controllerutils"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// pollInterval is how often the progress of others is looked at.
const pollInterval = 100 * time.Millisecond

// ControllerArguments are the arguments of the extension's controller when it
// runs as its Deployment in the Seed has it, except that the API server reaches
// the webhook by its address. certDir is a folder for the webhook's certificate.
func ControllerArguments(kubeconfigFile, namespace, webhookHost string, webhookPort int, certDir, healthAddress string) []string {
	return []string{
		"controller",
		"--kubeconfig=" + kubeconfigFile,
		"--leader-election-namespace=" + namespace,
		"--heartbeat-namespace=" + namespace,
		"--webhook-config-namespace=" + namespace,
		"--webhook-config-mode=url",
		fmt.Sprintf("--webhook-config-url=%s:%d", webhookHost, webhookPort),
		"--webhook-config-server-host=" + webhookHost,
		fmt.Sprintf("--webhook-config-server-port=%d", webhookPort),
		"--webhook-config-cert-dir=" + certDir,
		"--metrics-bind-address=127.0.0.1:0",
		"--health-bind-address=" + healthAddress,
		"--log-level=info", "--log-format=text",
	}
}

// ReconcileExtension writes an Extension as gardenlet does when it reconciles a
// Shoot, and waits until its controller has worked it off. An error that the
// controller reports may pass when it tries again, and is returned when ctx ends.
func ReconcileExtension(ctx context.Context, c client.Client, namespace, extensionType string, config *runtime.RawExtension) (*extensionsv1alpha1.Extension, error) {
	extension := &extensionsv1alpha1.Extension{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: extensionType}}
	if _, err := controllerutils.GetAndCreateOrMergePatch(ctx, c, extension, func() error {
		metav1.SetMetaDataAnnotation(&extension.ObjectMeta, v1beta1constants.GardenerOperation, v1beta1constants.GardenerOperationReconcile)
		metav1.SetMetaDataAnnotation(&extension.ObjectMeta, v1beta1constants.GardenerTimestamp, time.Now().Format(time.RFC3339Nano))
		extension.Spec.Type = extensionType
		extension.Spec.ProviderConfig = config
		return nil
	}); err != nil {
		return nil, fmt.Errorf("write Extension %s/%s: %w", namespace, extensionType, err)
	}

	err := wait.PollUntilContextCancel(ctx, pollInterval, true, func(ctx context.Context) (bool, error) {
		if err := c.Get(ctx, client.ObjectKeyFromObject(extension), extension); err != nil {
			return false, err
		}
		// The annotation goes when the controller starts, so that an older result is
		// not taken for the new one.
		_, waiting := extension.Annotations[v1beta1constants.GardenerOperation]
		operation := extension.Status.LastOperation
		return !waiting && operation != nil && operation.State == gardencorev1beta1.LastOperationStateSucceeded &&
			extension.Status.ObservedGeneration == extension.Generation, nil
	})
	if err != nil {
		if reported := extension.Status.LastError; reported != nil {
			err = errors.Join(err, errors.New(reported.Description))
		}
		return nil, fmt.Errorf("reconcile Extension %s/%s: %w", namespace, extensionType, err)
	}
	return extension, nil
}

// DeleteExtension deletes an Extension as gardenlet does when a Shoot does not
// use it any more, and waits until it is gone.
func DeleteExtension(ctx context.Context, c client.Client, namespace, extensionType string) error {
	extension := &extensionsv1alpha1.Extension{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: extensionType}}
	if err := c.Delete(ctx, extension); client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("delete Extension %s/%s: %w", namespace, extensionType, err)
	}
	if err := awaitGone(ctx, c, extension); err != nil {
		return fmt.Errorf("delete Extension %s/%s: %w", namespace, extensionType, err)
	}
	return nil
}

func awaitGone(ctx context.Context, c client.Client, object client.Object) error {
	return wait.PollUntilContextCancel(ctx, pollInterval, true, func(ctx context.Context) (bool, error) {
		err := c.Get(ctx, client.ObjectKeyFromObject(object), object)
		if apierrors.IsNotFound(err) {
			return true, nil
		}
		return false, err
	})
}
