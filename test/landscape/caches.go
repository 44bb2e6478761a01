// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package landscape

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	v1beta1helper "github.com/gardener/gardener/pkg/api/core/v1beta1/helper"
	resourcesv1alpha1 "github.com/gardener/gardener/pkg/apis/resources/v1alpha1"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/controller-runtime/pkg/client"

	upstreamnames "github.com/gardener/gardener-extension-registry-cache/pkg/upstream"
	"github.com/gardener/gardener-extension-registry-cache/test/cluster"
)

// Pod returns the pod of an upstream's cache, the first one of a highly available one.
func (l *Landscape) Pod(ctx context.Context, upstream string) (*corev1.Pod, error) {
	return l.replica(ctx, upstream, 0)
}

func (l *Landscape) replica(ctx context.Context, upstream string, ordinal int) (*corev1.Pod, error) {
	pod := &corev1.Pod{}
	key := client.ObjectKey{Namespace: metav1.NamespaceSystem, Name: fmt.Sprintf("%s-%d", upstreamnames.ResourceName(upstream), ordinal)}
	if err := l.ShootClient.Get(ctx, key, pod); err != nil {
		return nil, fmt.Errorf("read pod of the cache: %w", err)
	}
	return pod, nil
}

// AwaitCache waits until an upstream's cache is ready and answers the node, and
// returns its pod.
func (l *Landscape) AwaitCache(ctx context.Context, upstream string) (*corev1.Pod, error) {
	var pod *corev1.Pod
	err := wait.PollUntilContextCancel(ctx, pollInterval, true, func(ctx context.Context) (bool, error) {
		var err error
		if pod, err = l.Pod(ctx, upstream); err != nil {
			return false, client.IgnoreNotFound(err)
		}
		return isReady(pod), nil
	})
	if err != nil {
		problem := "there is no pod"
		if pod != nil {
			problem = fmt.Sprintf("%+v", pod.Status)
		}
		return nil, fmt.Errorf("wait for the cache of %s: %w: %s", upstream, err, problem)
	}
	return pod, l.AwaitAnswer(ctx, upstream)
}

// AwaitReplicas waits until that many pods of an upstream's cache are ready.
func (l *Landscape) AwaitReplicas(ctx context.Context, upstream string, replicas int) error {
	ready := 0
	err := wait.PollUntilContextCancel(ctx, pollInterval, true, func(ctx context.Context) (bool, error) {
		for ready = 0; ready < replicas; ready++ {
			pod, err := l.replica(ctx, upstream, ready)
			if err != nil {
				return false, client.IgnoreNotFound(err)
			}
			if !isReady(pod) {
				return false, nil
			}
		}
		return true, nil
	})
	if err != nil {
		return fmt.Errorf("wait for %d pods of the cache of %s, of which the first %d are ready: %w", replicas, upstream, ready, err)
	}
	return nil
}

// AwaitAnswer waits until an upstream's cache answers the node at the address of
// its Service, which is a moment after its pod is ready.
func (l *Landscape) AwaitAnswer(ctx context.Context, upstream string) error {
	service, err := l.service(ctx, upstream)
	if err != nil {
		return err
	}
	var problem error
	err = wait.PollUntilContextCancel(ctx, pollInterval, true, func(ctx context.Context) (bool, error) {
		problem = l.ask(ctx, service)
		return problem == nil, nil
	})
	if err != nil {
		return fmt.Errorf("wait for an answer of the cache of %s: %w", upstream, errors.Join(err, problem))
	}
	return nil
}

// ask has the node ask a cache whether it is there.
func (l *Landscape) ask(ctx context.Context, service *corev1.Service) error {
	_, err := l.Node.Run(ctx, "curl", "--silent", "--show-error", "--fail", "--insecure", "--max-time", "5", address(service))
	return err
}

// Address returns the URL at which an upstream's cache says that it is there.
func (l *Landscape) Address(ctx context.Context, upstream string) (string, error) {
	service, err := l.service(ctx, upstream)
	if err != nil {
		return "", err
	}
	return address(service), nil
}

func address(service *corev1.Service) string {
	return service.Annotations["scheme"] + "://" + net.JoinHostPort(service.Spec.ClusterIP, "5000") + "/v2/"
}

func isReady(pod *corev1.Pod) bool {
	for _, condition := range pod.Status.Conditions {
		if condition.Type == corev1.PodReady {
			return condition.Status == corev1.ConditionTrue && pod.DeletionTimestamp == nil
		}
	}
	return false
}

// ScaleCache sets the number of pods of an upstream's cache, and waits until none
// is left if it is 0. So that it stays so, gardener-resource-manager is told to
// leave the objects of caches alone until it is 1 again.
func (s *Shoot) ScaleCache(ctx context.Context, upstream string, replicas int32) error {
	managed := &resourcesv1alpha1.ManagedResource{ObjectMeta: metav1.ObjectMeta{Namespace: s.Namespace, Name: "extension-registry-cache"}}
	ignore := strconv.FormatBool(replicas == 0)
	raw := fmt.Appendf(nil, `{"metadata":{"annotations":{%q:%q}}}`, resourcesv1alpha1.Ignore, ignore)
	if err := s.landscape.SeedClient.Patch(ctx, managed, client.RawPatch("application/merge-patch+json", raw)); err != nil {
		return fmt.Errorf("annotate ManagedResource: %w", err)
	}
	// What was under way goes on to its end, and would scale back.
	err := wait.PollUntilContextCancel(ctx, pollInterval, true, func(ctx context.Context) (bool, error) {
		if err := s.landscape.SeedClient.Get(ctx, client.ObjectKeyFromObject(managed), managed); err != nil {
			return false, err
		}
		applied := v1beta1helper.GetCondition(managed.Status.Conditions, resourcesv1alpha1.ResourcesApplied)
		return applied != nil && (applied.Reason == resourcesv1alpha1.ConditionManagedResourceIgnored) == (replicas == 0), nil
	})
	if err != nil {
		return fmt.Errorf("wait for gardener-resource-manager to heed the annotation (ignore: %s): %w", ignore, err)
	}
	name := upstreamnames.ResourceName(upstream)
	statefulSet := &appsv1.StatefulSet{ObjectMeta: metav1.ObjectMeta{Namespace: metav1.NamespaceSystem, Name: name}}
	raw = fmt.Appendf(nil, `{"spec":{"replicas":%d}}`, replicas)
	if err := s.landscape.ShootClient.Patch(ctx, statefulSet, client.RawPatch("application/merge-patch+json", raw)); err != nil {
		return fmt.Errorf("scale StatefulSet %s: %w", name, err)
	}
	if replicas > 0 {
		return nil
	}
	err = wait.PollUntilContextCancel(ctx, pollInterval, true, func(ctx context.Context) (bool, error) {
		_, err := s.landscape.Pod(ctx, upstream)
		if apierrors.IsNotFound(err) {
			return true, nil
		}
		return false, err
	})
	if err != nil {
		return fmt.Errorf("wait for the end of the cache of %s: %w", upstream, err)
	}
	return nil
}

// CacheBytes are the bytes of blobs that an upstream's cache has served since it
// started, or 0 while it does not run.
func (l *Landscape) CacheBytes(ctx context.Context, upstream string) (int64, error) {
	pod, err := l.Pod(ctx, upstream)
	if apierrors.IsNotFound(err) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	url := "http://" + net.JoinHostPort(pod.Status.PodIP, "5001") + "/metrics"
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, fmt.Errorf("ask the cache for metrics: %w", err)
	}
	// A pod that has just ended may leave a connection without an answer.
	response, err := (&http.Client{Timeout: 10 * time.Second}).Do(request)
	if err != nil {
		if after, getErr := l.Pod(ctx, upstream); apierrors.IsNotFound(getErr) || getErr == nil && (after.UID != pod.UID || after.DeletionTimestamp != nil) {
			return 0, nil
		}
		return 0, fmt.Errorf("ask the cache for metrics: %w", err)
	}
	defer func() { _ = response.Body.Close() }()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(response.Body)
	if err != nil {
		return 0, fmt.Errorf("read metrics of the cache: %w", err)
	}
	for _, metric := range families["registry_proxy_pushed_bytes_total"].GetMetric() {
		for _, label := range metric.GetLabel() {
			if label.GetName() == "type" && label.GetValue() == "blob" {
				return int64(metric.GetCounter().GetValue()), nil
			}
		}
	}
	return 0, nil
}

// AwaitHostsTOML waits until the node's hosts.toml of an upstream is there, or is
// gone, and returns its content.
func (l *Landscape) AwaitHostsTOML(ctx context.Context, upstream string, there bool) (string, error) {
	var content []byte
	err := wait.PollUntilContextCancel(ctx, pollInterval, true, func(context.Context) (bool, error) {
		var err error
		content, err = os.ReadFile(l.Node.Path("/etc/containerd/certs.d/" + upstream + "/hosts.toml"))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return false, err
		}
		return (err == nil) == there, nil
	})
	if err != nil {
		journal, _ := l.Node.Run(context.WithoutCancel(ctx), "journalctl", "--no-pager", "--lines=20", "--unit=registry-hosts.service")
		return "", fmt.Errorf("wait for hosts.toml of %s (there: %v): %w\n%s", upstream, there, err, journal)
	}
	return string(content), nil
}

// DeletePod deletes the pod of an upstream's cache, which has time to end.
func (l *Landscape) DeletePod(ctx context.Context, upstream string) error {
	pod, err := l.Pod(ctx, upstream)
	if err != nil {
		return err
	}
	if err := l.ShootClient.Delete(ctx, pod); err != nil {
		return fmt.Errorf("delete pod: %w", err)
	}
	return nil
}

// KillCache kills the process of an upstream's cache, which has no time to end.
func (l *Landscape) KillCache(ctx context.Context, upstream string) error {
	pid, err := l.CacheProcess(ctx, upstream)
	if err != nil {
		return err
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		return fmt.Errorf("kill process of the cache: %w", err)
	}
	return nil
}

// CacheLogs are the logs of the pod of an upstream's cache.
func (l *Landscape) CacheLogs(ctx context.Context, upstream string) (string, error) {
	clientset, err := kubernetes.NewForConfig(l.Shoot.Config)
	if err != nil {
		return "", fmt.Errorf("create client for logs: %w", err)
	}
	name := upstreamnames.ResourceName(upstream) + "-0"
	content, err := clientset.CoreV1().Pods(metav1.NamespaceSystem).GetLogs(name, &corev1.PodLogOptions{}).DoRaw(ctx)
	if err != nil {
		return "", fmt.Errorf("read logs of pod %s: %w", name, err)
	}
	return string(content), nil
}

// CacheProcess is the id of the process of an upstream's cache.
func (l *Landscape) CacheProcess(ctx context.Context, upstream string) (int, error) {
	pod, err := l.Pod(ctx, upstream)
	if err != nil {
		return 0, err
	}
	processes, err := os.ReadDir("/proc")
	if err != nil {
		return 0, fmt.Errorf("find the process of the cache: %w", err)
	}
	for _, process := range processes {
		id, err := strconv.Atoi(process.Name())
		if err != nil {
			continue
		}
		groups, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", id))
		if err != nil || !strings.Contains(string(groups), "pod"+string(pod.UID)) {
			continue
		}
		if command, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", id)); err == nil && strings.HasPrefix(string(command), "/registry-cache\x00") {
			return id, nil
		}
	}
	return 0, fmt.Errorf("pod %s has no process of the cache on node %s", pod.Name, cluster.NodeName)
}
