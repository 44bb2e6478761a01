// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package charts

import (
	"context"
	"encoding/json"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
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
		data, err := json.Marshal(object)
		if err != nil {
			return fmt.Errorf("encode %s %s: %w", object.GetKind(), object.GetName(), err)
		}
		if err := c.Patch(ctx, object.DeepCopy(), client.RawPatch(types.ApplyPatchType, data), client.DryRunAll,
			client.FieldOwner("test"), client.ForceOwnership, client.FieldValidation(metav1.FieldValidationStrict)); err != nil {
			return fmt.Errorf("apply %s %s: %w", object.GetKind(), object.GetName(), err)
		}
	}
	return dryRunPod(ctx, c, release)
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
