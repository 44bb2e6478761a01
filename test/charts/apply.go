// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package charts

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// Create creates objects in a cluster. Fields that it does not know are errors.
func Create(ctx context.Context, c client.Client, objects []*unstructured.Unstructured) error {
	for _, object := range objects {
		if err := c.Create(ctx, object.DeepCopy(), client.FieldValidation(metav1.FieldValidationStrict)); err != nil {
			return fmt.Errorf("create %s %s: %w", object.GetKind(), object.GetName(), err)
		}
	}
	return nil
}

// DryRun has a cluster judge all objects of a release, and a pod of its Deployment
// by the restricted Pod Security Standard. Only namespaces are left behind.
func DryRun(ctx context.Context, c client.Client, release Release) error {
	if err := createNamespace(ctx, c, release.Namespace, nil); err != nil {
		return err
	}
	objects, err := release.Objects()
	if err != nil {
		return err
	}
	for _, object := range objects {
		if err := dryRun(ctx, c, object); err != nil {
			return fmt.Errorf("apply %s %s: %w", object.GetKind(), object.GetName(), err)
		}
	}
	return dryRunPod(ctx, c, release)
}

// dryRun creates an object, or upgrades the one that is there.
func dryRun(ctx context.Context, c client.Client, object *unstructured.Unstructured) error {
	validation := client.FieldValidation(metav1.FieldValidationStrict)
	err := c.Create(ctx, object.DeepCopy(), client.DryRunAll, validation)
	if !apierrors.IsAlreadyExists(err) {
		return err
	}
	stored := object.DeepCopy()
	if err := c.Get(ctx, client.ObjectKeyFromObject(object), stored); err != nil {
		return err
	}
	object = object.DeepCopy()
	object.SetResourceVersion(stored.GetResourceVersion())
	return c.Update(ctx, object, client.DryRunAll, validation)
}

func dryRunPod(ctx context.Context, c client.Client, release Release) error {
	deployment, err := release.Deployment()
	if err != nil || deployment == nil {
		return err
	}
	const namespace = "restricted"
	if err := createNamespace(ctx, c, namespace, map[string]string{"pod-security.kubernetes.io/enforce": "restricted"}); err != nil {
		return err
	}
	template := deployment.Spec.Template
	pod := &corev1.Pod{ObjectMeta: template.ObjectMeta, Spec: template.Spec}
	pod.Namespace, pod.GenerateName = namespace, deployment.Name+"-"
	pod.Spec.PriorityClassName = "" // of Gardener
	if err := c.Create(ctx, pod, client.DryRunAll); err != nil {
		return fmt.Errorf("create pod of %s: %w", deployment.Name, err)
	}
	return nil
}

func createNamespace(ctx context.Context, c client.Client, name string, labels map[string]string) error {
	err := c.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels}})
	if client.IgnoreAlreadyExists(err) != nil {
		return fmt.Errorf("create namespace %s: %w", name, err)
	}
	return nil
}
