// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package landscape

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/gardener/gardener-extension-registry-cache/test/cluster"
	"github.com/gardener/gardener-extension-registry-cache/test/upstream"
)

// Pull is what it took to pull an image for a pod.
type Pull struct {
	// Duration is how long the pull took, as the kubelet says.
	Duration time.Duration
	// CacheBytes are the bytes of blobs that the cache served for it.
	CacheBytes int64
	// Upstream is what the upstream was asked for, and sent.
	Upstream upstream.Counts
}

// Run runs a pod with an image of an upstream, which the node does not have,
// until it is ready, and removes the pod and what the node has of the image alone.
// It returns what the pull took.
func (l *Landscape) Run(ctx context.Context, registry *upstream.Registry, upstreamHost, image string) (Pull, error) {
	var pod *corev1.Pod
	pull, err := l.measure(ctx, registry, upstreamHost, func() (time.Duration, error) {
		var err error
		if pod, err = l.StartPod(ctx, image); err != nil {
			return 0, err
		}
		return l.AwaitPod(ctx, pod)
	})
	if err != nil {
		return Pull{}, err
	}
	return pull, l.RemovePod(ctx, pod)
}

// PullImage has containerd pull an image of an upstream, which the node does not
// have, as the kubelet has it do for a pod, and removes what the node has of the
// image alone. There is no pod: it takes no longer than the pull. It returns what
// the pull took.
func (l *Landscape) PullImage(ctx context.Context, registry *upstream.Registry, upstreamHost, image string) (Pull, error) {
	conn, err := l.containerd(ctx)
	if err != nil {
		return Pull{}, err
	}
	defer func() { _ = conn.Close() }()
	pull, err := l.measure(ctx, registry, upstreamHost, func() (time.Duration, error) {
		before := time.Now()
		_, err := runtimeapi.NewImageServiceClient(conn).PullImage(ctx, &runtimeapi.PullImageRequest{Image: &runtimeapi.ImageSpec{Image: image}})
		return time.Since(before), err
	})
	if err != nil {
		return Pull{}, fmt.Errorf("pull image %s: %w", image, err)
	}
	return pull, forgetImage(ctx, l.Node, conn, image)
}

// PullAndForget is PullImage without figures, for pulls while a cache comes and goes.
// The first error ends it, also that containerd is not there.
func (l *Landscape) PullAndForget(ctx context.Context, image string) error {
	conn, err := grpc.NewClient("unix://"+l.Node.Path("/run/containerd/containerd.sock"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return fmt.Errorf("connect to containerd: %w", err)
	}
	defer func() { _ = conn.Close() }()
	if _, err := runtimeapi.NewImageServiceClient(conn).PullImage(ctx, &runtimeapi.PullImageRequest{Image: &runtimeapi.ImageSpec{Image: image}}); err != nil {
		return fmt.Errorf("pull image %s: %w", image, err)
	}
	return forgetImage(ctx, l.Node, conn, image)
}

// measure returns what a pull took, which tells its duration itself.
func (l *Landscape) measure(ctx context.Context, registry *upstream.Registry, upstreamHost string, pull func() (time.Duration, error)) (Pull, error) {
	servedBefore, err := l.CacheBytes(ctx, upstreamHost)
	if err != nil {
		return Pull{}, err
	}
	before := registry.Counts()
	duration, err := pull()
	if err != nil {
		return Pull{}, err
	}
	counts := registry.Since(before)
	served, err := l.CacheBytes(ctx, upstreamHost)
	if err != nil {
		return Pull{}, err
	}
	return Pull{Duration: duration, CacheBytes: served - servedBefore, Upstream: counts}, nil
}

// StartPod creates a pod with an image.
func (l *Landscape) StartPod(ctx context.Context, image string) (*corev1.Pod, error) {
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: metav1.NamespaceDefault, GenerateName: "app-"},
		Spec: corev1.PodSpec{
			Containers:                    []corev1.Container{{Name: "app", Image: image, ImagePullPolicy: corev1.PullIfNotPresent}},
			AutomountServiceAccountToken:  ptr.To(false),
			TerminationGracePeriodSeconds: ptr.To[int64](1),
		},
	}
	// The account comes a moment after its namespace.
	err := wait.PollUntilContextTimeout(ctx, pollInterval, 30*time.Second, true, func(ctx context.Context) (bool, error) {
		return l.ShootClient.Get(ctx, client.ObjectKey{Namespace: pod.Namespace, Name: "default"}, &corev1.ServiceAccount{}) == nil, nil
	})
	if err != nil {
		return nil, fmt.Errorf("wait for the service account of pods: %w", err)
	}
	if err := l.ShootClient.Create(ctx, pod); err != nil {
		return nil, fmt.Errorf("create pod with image %s: %w", image, err)
	}
	return pod, nil
}

// AwaitPod waits until a pod is ready, and returns how long its image was pulled.
func (l *Landscape) AwaitPod(ctx context.Context, pod *corev1.Pod) (time.Duration, error) {
	err := wait.PollUntilContextCancel(ctx, pollInterval, true, func(ctx context.Context) (bool, error) {
		if err := l.ShootClient.Get(ctx, client.ObjectKeyFromObject(pod), pod); err != nil {
			return false, err
		}
		return isReady(pod), nil
	})
	if err != nil {
		events, _ := l.Events(context.WithoutCancel(ctx), pod)
		return 0, fmt.Errorf("wait for pod with image %s: %w: %s", pod.Spec.Containers[0].Image, err, strings.Join(events, "; "))
	}
	// The event may come after the status.
	var duration time.Duration
	err = wait.PollUntilContextTimeout(ctx, pollInterval, time.Minute, true, func(ctx context.Context) (bool, error) {
		events, err := l.Events(ctx, pod)
		if err != nil {
			return false, err
		}
		for _, event := range events {
			if match := pulledPattern.FindStringSubmatch(event); match != nil {
				duration, err = time.ParseDuration(match[1])
				return true, err
			}
		}
		return false, nil
	})
	if err != nil {
		return 0, fmt.Errorf("find out how long image %s was pulled: %w", pod.Spec.Containers[0].Image, err)
	}
	return duration, nil
}

// pulledPattern finds in a kubelet's event how long a pull took, without the time
// that it waited for other pulls.
var pulledPattern = regexp.MustCompile(`Successfully pulled image "[^"]*" in ([^ ]+)`)

// Events returns the reasons and messages of the events about a pod.
func (l *Landscape) Events(ctx context.Context, pod *corev1.Pod) ([]string, error) {
	events := &corev1.EventList{}
	if err := l.ShootClient.List(ctx, events, client.InNamespace(pod.Namespace)); err != nil {
		return nil, fmt.Errorf("list events: %w", err)
	}
	var messages []string
	for _, event := range events.Items {
		if event.InvolvedObject.UID == pod.UID {
			messages = append(messages, event.Reason+": "+event.Message)
		}
	}
	return messages, nil
}

// RemovePod deletes a pod, waits until it is gone, and has the node forget its
// image: no layer is left that no other image has.
func (l *Landscape) RemovePod(ctx context.Context, pod *corev1.Pod) error {
	if err := l.ShootClient.Delete(ctx, pod); err != nil {
		return fmt.Errorf("delete pod: %w", err)
	}
	err := wait.PollUntilContextCancel(ctx, pollInterval, true, func(ctx context.Context) (bool, error) {
		err := l.ShootClient.Get(ctx, client.ObjectKeyFromObject(pod), pod)
		return err != nil, client.IgnoreNotFound(err)
	})
	if err != nil {
		return fmt.Errorf("wait for the end of a pod: %w", err)
	}
	conn, err := l.containerd(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	if err := awaitContainersGone(ctx, runtimeapi.NewRuntimeServiceClient(conn), pod); err != nil {
		return err
	}
	return forgetImage(ctx, l.Node, conn, pod.Spec.Containers[0].Image)
}

// containerd returns a connection to the CRI of the node's containerd when that
// answers: gardener-node-agent restarts it at times.
func (l *Landscape) containerd(ctx context.Context) (*grpc.ClientConn, error) {
	conn, err := grpc.NewClient("unix://"+l.Node.Path("/run/containerd/containerd.sock"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, fmt.Errorf("connect to containerd: %w", err)
	}
	if _, err := runtimeapi.NewRuntimeServiceClient(conn).Version(ctx, &runtimeapi.VersionRequest{}, grpc.WaitForReady(true)); err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("wait for containerd: %w", err)
	}
	return conn, nil
}

// forgetImage removes an image that no container has from the node, as a kubelet
// does that needs space.
func forgetImage(ctx context.Context, node *cluster.Node, conn grpc.ClientConnInterface, image string) error {
	images := runtimeapi.NewImageServiceClient(conn)
	status, err := images.ImageStatus(ctx, &runtimeapi.ImageStatusRequest{Image: &runtimeapi.ImageSpec{Image: image}})
	if err != nil || status.Image == nil || len(status.Image.RepoDigests) == 0 {
		return fmt.Errorf("find image %s on the node, by a digest: %w", image, cmp.Or(err, errors.New("it is not there")))
	}
	_, digest, _ := strings.Cut(status.Image.RepoDigests[0], "@sha256:")
	manifest := node.Path("/var/lib/containerd/io.containerd.content.v1.content/blobs/sha256/" + digest)

	// By its id too, and as often as it takes: containerd adds a name of the image by
	// its id when it learns of a pull, which may be after a removal.
	err = wait.PollUntilContextTimeout(ctx, pollInterval, time.Minute, true, func(ctx context.Context) (bool, error) {
		for _, name := range []string{image, status.Image.Id} {
			if _, err := images.RemoveImage(ctx, &runtimeapi.RemoveImageRequest{Image: &runtimeapi.ImageSpec{Image: name}}); err != nil {
				return false, err
			}
		}
		_, err := os.Stat(manifest)
		return errors.Is(err, os.ErrNotExist), nil
	})
	if err != nil {
		return fmt.Errorf("remove image %s from the node: %w", image, err)
	}
	return nil
}

// awaitContainersGone waits until the node has none of a pod's containers, each of
// which keeps the layers of its image.
func awaitContainersGone(ctx context.Context, runtime runtimeapi.RuntimeServiceClient, pod *corev1.Pod) error {
	filter := &runtimeapi.ContainerFilter{LabelSelector: map[string]string{"io.kubernetes.pod.uid": string(pod.UID)}}
	err := wait.PollUntilContextTimeout(ctx, pollInterval, 2*time.Minute, true, func(ctx context.Context) (bool, error) {
		containers, err := runtime.ListContainers(ctx, &runtimeapi.ListContainersRequest{Filter: filter})
		return err == nil && len(containers.Containers) == 0, err
	})
	if err != nil {
		return fmt.Errorf("wait for the end of the containers of pod %s: %w", pod.Name, err)
	}
	return nil
}
