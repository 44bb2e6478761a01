// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/manager"

	extensionsconfigv1alpha1 "github.com/gardener/gardener/extensions/pkg/apis/config/v1alpha1"
	extensionscontroller "github.com/gardener/gardener/extensions/pkg/controller"
	"github.com/gardener/gardener/extensions/pkg/controller/healthcheck"
	"github.com/gardener/gardener/extensions/pkg/controller/healthcheck/general"
	v1beta1helper "github.com/gardener/gardener/pkg/api/core/v1beta1/helper"
	gardencorev1beta1 "github.com/gardener/gardener/pkg/apis/core/v1beta1"
	extensionsv1alpha1 "github.com/gardener/gardener/pkg/apis/extensions/v1alpha1"

	"github.com/gardener/gardener-extension-registry-cache/pkg/apis/registry/v1alpha3"
	"github.com/gardener/gardener-extension-registry-cache/pkg/monitoring"
	"github.com/gardener/gardener-extension-registry-cache/pkg/resources"
)

const (
	// progressingThreshold is how long the monitoring may take to follow the purpose
	// of a Shoot.
	progressingThreshold = 5 * time.Minute
	// shootCheckTimeout is how long a Shoot's API server has for a check. As long as it is
	// waited for a worker checks no other Shoot.
	shootCheckTimeout = 10 * time.Second
	// maxMessage is how much of the words of others is passed on: those of a
	// scheduler can be very long.
	maxMessage = 300
)

// AddHealthChecksToManager adds the controller that says in the conditions of
// registry-cache Extensions, once in a while, how the caches are. gardenlet makes
// them part of the Shoot's conditions.
func AddHealthChecksToManager(mgr manager.Manager, options Options, syncPeriod time.Duration) error {
	forShootsWithCaches := func(condition gardencorev1beta1.ConditionType, check healthcheck.HealthCheck) healthcheck.ConditionTypeToHealthCheck {
		return healthcheck.ConditionTypeToHealthCheck{ConditionType: string(condition), PreCheckFunc: hasCaches, HealthCheck: check}
	}
	if err := healthcheck.DefaultRegistration(
		v1alpha3.ExtensionType,
		extensionsv1alpha1.SchemeGroupVersion.WithKind(extensionsv1alpha1.ExtensionResource),
		func() client.ObjectList { return &extensionsv1alpha1.ExtensionList{} },
		func() extensionsv1alpha1.Object { return &extensionsv1alpha1.Extension{} },
		mgr,
		healthcheck.DefaultAddArgs{
			Controller:        options.Controller,
			HealthCheckConfig: extensionsconfigv1alpha1.HealthCheckConfig{SyncPeriod: metav1.Duration{Duration: syncPeriod}},
			ExtensionClasses:  options.ExtensionClasses,
		},
		nil,
		[]healthcheck.ConditionTypeToHealthCheck{
			forShootsWithCaches(gardencorev1beta1.ShootSystemComponentsHealthy, general.CheckManagedResource(servicesManagedResource)),
			forShootsWithCaches(gardencorev1beta1.ShootSystemComponentsHealthy, general.CheckManagedResource(cachesManagedResource)),
			forShootsWithCaches(gardencorev1beta1.ShootSystemComponentsHealthy, &podCheck{seed: mgr.GetClient(), shootClient: ShootClient}),
			forShootsWithCaches(gardencorev1beta1.ShootObservabilityComponentsHealthy, general.CheckManagedResource(definitionManagedResource)),
			forShootsWithCaches(gardencorev1beta1.ShootObservabilityComponentsHealthy, general.CheckManagedResource(reportsManagedResource)),
			forShootsWithCaches(gardencorev1beta1.ShootObservabilityComponentsHealthy, &monitoringCheck{seed: mgr.GetClient()}),
		},
		sets.New[gardencorev1beta1.ConditionType](),
	); err != nil {
		return fmt.Errorf("add health checks of %s: %w", CacheControllerName, err)
	}
	return nil
}

// hasCaches says whether anything is deployed for an Extension.
func hasCaches(_ context.Context, _ client.Client, _ client.Object, cluster any) bool {
	c, ok := cluster.(*extensionscontroller.Cluster)
	return ok && c.Shoot != nil && !v1beta1helper.IsWorkerless(c.Shoot)
}

// podCheck says which cache is ill, and why. The ManagedResource tells that a
// StatefulSet has too few pods, but not what is wrong with them.
//
// It makes its own client of the Shoot: the library gives all Shoots that are checked
// at one time the same check, and would give it the client of any of them.
type podCheck struct {
	seed        client.Client
	shootClient ShootClientFunc
}

// SetLoggerSuffix implements healthcheck.HealthCheck. Nothing is logged.
func (*podCheck) SetLoggerSuffix(string, string) {}

// Check implements healthcheck.HealthCheck.
func (c *podCheck) Check(ctx context.Context, request types.NamespacedName) (*healthcheck.SingleCheckResult, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, shootCheckTimeout, fmt.Errorf("no answer within %s", shootCheckTimeout))
	defer cancel()
	shoot, release, err := c.shootClient(ctx, c.seed, request.Namespace)
	if err != nil {
		return nil, err
	}
	defer release()
	statefulSets, pods := &appsv1.StatefulSetList{}, &corev1.PodList{}
	for _, list := range []client.ObjectList{statefulSets, pods} {
		if err := shoot.List(ctx, list, resources.ListOptions()...); err != nil {
			if cause := context.Cause(ctx); cause != nil {
				err = fmt.Errorf("%w: %w", cause, err)
			}
			return nil, fmt.Errorf("read the Shoot's pods of caches: %w", err)
		}
	}
	var problems []string
	for _, statefulSet := range statefulSets.Items {
		problems = append(problems, problemsOf(statefulSet, pods.Items)...)
	}
	if len(problems) > 0 {
		// Not Progressing, for the ManagedResource is not either when a pod is missing.
		// gardenlet knows for how long operators have patience.
		return &healthcheck.SingleCheckResult{Status: gardencorev1beta1.ConditionFalse, Detail: strings.Join(problems, "; ")}, nil
	}
	return &healthcheck.SingleCheckResult{Status: gardencorev1beta1.ConditionTrue}, nil
}

// problemsOf returns what is wrong with a cache.
func problemsOf(statefulSet appsv1.StatefulSet, pods []corev1.Pod) []string {
	if statefulSet.DeletionTimestamp != nil {
		return nil
	}
	var problems []string
	found := int32(0)
	for _, pod := range pods {
		if owner := metav1.GetControllerOf(&pod); owner == nil || owner.UID != statefulSet.UID {
			continue
		}
		found++
		if problem := problemOf(pod); problem != "" {
			problems = append(problems, fmt.Sprintf("%s: pod %s %s", statefulSet.Name, pod.Name, problem))
		}
	}
	if wanted := ptr.Deref(statefulSet.Spec.Replicas, 1); found < wanted {
		problems = append(problems, fmt.Sprintf("%s: %d of %d pods are there", statefulSet.Name, found, wanted))
	}
	return problems
}

// problemOf returns why a pod is not ready, and nothing if it is.
func problemOf(pod corev1.Pod) string {
	if pod.DeletionTimestamp != nil {
		return "is being deleted"
	}
	conditionOf := func(conditionType corev1.PodConditionType) *corev1.PodCondition {
		i := slices.IndexFunc(pod.Status.Conditions, func(condition corev1.PodCondition) bool { return condition.Type == conditionType })
		if i < 0 {
			return nil
		}
		return &pod.Status.Conditions[i]
	}
	ready, scheduled := conditionOf(corev1.PodReady), conditionOf(corev1.PodScheduled)
	switch {
	case ready != nil && ready.Status == corev1.ConditionTrue:
		return ""
	case scheduled != nil && scheduled.Status == corev1.ConditionFalse:
		return because("is "+string(pod.Status.Phase), scheduled.Message)
	}
	for _, container := range pod.Status.ContainerStatuses {
		if problem := containerProblem(container); problem != "" {
			return problem
		}
	}
	if pod.Status.Phase == corev1.PodRunning {
		return "runs, but is not ready"
	}
	return because("is "+string(pod.Status.Phase), pod.Status.Message)
}

// containerProblem returns what a container waits for, and how it ended before.
func containerProblem(container corev1.ContainerStatus) string {
	waiting := container.State.Waiting
	if waiting == nil || waiting.Reason == "" {
		return ""
	}
	message := waiting.Message
	if ended := container.LastTerminationState.Terminated; ended != nil {
		message = fmt.Sprintf("it ended with exit code %d, %s, after %d restarts", ended.ExitCode, ended.Reason, container.RestartCount)
	}
	return because("waits, "+waiting.Reason, message)
}

func because(what, why string) string {
	if why == "" {
		return what
	}
	if len(why) > maxMessage {
		why = strings.ToValidUTF8(why[:maxMessage], "") + " ..."
	}
	return what + ": " + why
}

// monitoringCheck says what is missing for the Shoot's Prometheus and Plutono to
// know of the caches, for a reconcile does not.
type monitoringCheck struct {
	seed client.Client
}

// SetLoggerSuffix implements healthcheck.HealthCheck. Nothing is logged.
func (*monitoringCheck) SetLoggerSuffix(string, string) {}

// Check implements healthcheck.HealthCheck.
func (c *monitoringCheck) Check(ctx context.Context, request types.NamespacedName) (*healthcheck.SingleCheckResult, error) {
	cluster, err := extensionscontroller.GetCluster(ctx, c.seed, request.Namespace)
	if err != nil {
		return nil, fmt.Errorf("read Cluster %s: %w", request.Namespace, err)
	}
	if cluster.Shoot == nil || !isMonitored(cluster.Shoot) {
		return &healthcheck.SingleCheckResult{Status: gardencorev1beta1.ConditionTrue}, nil
	}
	var problems []string
	for _, object := range monitoring.EmptyObjects(request.Namespace) {
		err := c.seed.Get(ctx, client.ObjectKeyFromObject(object), object)
		switch {
		case apierrors.IsNotFound(err):
			problems = append(problems, fmt.Sprintf("%s %s is missing, the next reconciliation writes it", kindOf(object), object.GetName()))
		case meta.IsNoMatchError(err):
			// The Seed has nothing that could read them.
		case err != nil:
			return nil, fmt.Errorf("read %s %s: %w", kindOf(object), object.GetName(), err)
		}
	}
	if len(problems) > 0 {
		return &healthcheck.SingleCheckResult{
			Status:               gardencorev1beta1.ConditionProgressing,
			ProgressingThreshold: ptr.To(progressingThreshold),
			Detail:               strings.Join(problems, "; "),
		}, nil
	}
	return &healthcheck.SingleCheckResult{Status: gardencorev1beta1.ConditionTrue}, nil
}

// kindOf returns the kind of an object by its type, for clients do not set it.
func kindOf(object client.Object) string {
	name := fmt.Sprintf("%T", object)
	return name[strings.LastIndex(name, ".")+1:]
}
