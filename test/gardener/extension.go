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
	"github.com/gardener/gardener/pkg/utils/kubernetes/health"
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

// RequestReconciliation writes an Extension as gardenlet does when it reconciles a
// Shoot, and returns it. Awaiting the result is left to the caller.
func RequestReconciliation(ctx context.Context, c client.Client, namespace, extensionType string, config *runtime.RawExtension) (*extensionsv1alpha1.Extension, error) {
	extension := &extensionsv1alpha1.Extension{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: extensionType}}
	if err := c.Get(ctx, client.ObjectKeyFromObject(extension), extension); client.IgnoreNotFound(err) != nil {
		return nil, fmt.Errorf("read Extension %s/%s: %w", namespace, extensionType, err)
	}
	awaitNextSecond(extension)
	if _, err := controllerutils.GetAndCreateOrMergePatch(ctx, c, extension, func() error {
		setOperation(extension, v1beta1constants.GardenerOperationReconcile)
		extension.Spec.Type = extensionType
		extension.Spec.ProviderConfig = config
		return nil
	}); err != nil {
		return nil, fmt.Errorf("write Extension %s/%s: %w", namespace, extensionType, err)
	}
	return extension, nil
}

// RequestOperation annotates an Extension with an operation, as gardenlet does for
// those that do not change what it says.
func RequestOperation(ctx context.Context, c client.Client, extension *extensionsv1alpha1.Extension, operation string) error {
	awaitNextSecond(extension)
	patch := client.MergeFrom(extension.DeepCopy())
	setOperation(extension, operation)
	if err := c.Patch(ctx, extension, patch); err != nil {
		return fmt.Errorf("ask for operation %s of Extension %s/%s: %w", operation, extension.Namespace, extension.Name, err)
	}
	return nil
}

// awaitNextSecond waits until the second is over in which an Extension had its last
// operation. The annotation that asks for the next one goes before the controller says
// that it begins, so that only the time of the request tells an older result from the
// new one, and times of results are in whole seconds.
func awaitNextSecond(extension *extensionsv1alpha1.Extension) {
	if last := extension.Status.LastOperation; last != nil {
		time.Sleep(time.Until(last.LastUpdateTime.Add(time.Second)))
	}
}

// setOperation sets both annotations by which gardenlet asks for an operation.
func setOperation(extension *extensionsv1alpha1.Extension, operation string) {
	metav1.SetMetaDataAnnotation(&extension.ObjectMeta, v1beta1constants.GardenerOperation, operation)
	metav1.SetMetaDataAnnotation(&extension.ObjectMeta, v1beta1constants.GardenerTimestamp, time.Now().Format(time.RFC3339Nano))
}

// ReconcileExtension is RequestReconciliation that waits until the controller has
// worked it off, by the check that gardenlet has for it. An error that the
// controller reports may pass when it tries again, and is returned when ctx ends.
func ReconcileExtension(ctx context.Context, c client.Client, namespace, extensionType string, config *runtime.RawExtension) (*extensionsv1alpha1.Extension, error) {
	if err := awaitOperation(ctx, c, namespace, extensionType); err != nil {
		return nil, err
	}
	extension, err := RequestReconciliation(ctx, c, namespace, extensionType, config)
	if err != nil {
		return nil, err
	}
	var problem error
	err = wait.PollUntilContextCancel(ctx, pollInterval, true, func(ctx context.Context) (bool, error) {
		if err := c.Get(ctx, client.ObjectKeyFromObject(extension), extension); err != nil {
			return false, err
		}
		problem = health.CheckExtensionObject(extension)
		return problem == nil, nil
	})
	if err != nil {
		return nil, fmt.Errorf("reconcile Extension %s/%s: %w", namespace, extensionType, errors.Join(err, problem))
	}
	return extension, nil
}

// awaitOperation waits up to 10 seconds for the end of what the controller of an Extension
// does of its own accord. If that ended after the request for the next operation, it
// would be taken for that.
func awaitOperation(ctx context.Context, c client.Client, namespace, extensionType string) error {
	extension := &extensionsv1alpha1.Extension{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: extensionType}}
	err := wait.PollUntilContextTimeout(ctx, pollInterval, 10*time.Second, true, func(ctx context.Context) (bool, error) {
		if err := c.Get(ctx, client.ObjectKeyFromObject(extension), extension); err != nil {
			return apierrors.IsNotFound(err), client.IgnoreNotFound(err)
		}
		last := extension.Status.LastOperation
		return last == nil || last.State != gardencorev1beta1.LastOperationStateProcessing, nil
	})
	if err != nil && !wait.Interrupted(err) {
		return fmt.Errorf("read Extension %s/%s: %w", namespace, extensionType, err)
	}
	return nil
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
