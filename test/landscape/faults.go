// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package landscape

import (
	"context"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/controller-runtime/pkg/client"

	upstreamnames "github.com/gardener/gardener-extension-registry-cache/pkg/upstream"
)

// blackHole is the table of the node's nftables that drops packets.
const blackHole = "inet black-hole"

// OpenBlackHole has the node drop all packets to the address of an upstream's
// cache, and those from it to the node: nobody answers, and nobody refuses.
func (l *Landscape) OpenBlackHole(ctx context.Context, upstream string) error {
	service, err := l.service(ctx, upstream)
	if err != nil {
		return err
	}
	commands := []string{"add table " + blackHole}
	// Where kube-proxy has not yet made the address that of a pod, or has already
	// made that of a pod the address.
	for _, chain := range []struct{ hook, priority, match string }{
		{"prerouting", "raw", "daddr"}, {"output", "raw", "daddr"}, {"input", "filter", "saddr"},
	} {
		commands = append(commands,
			fmt.Sprintf("add chain %s %s { type filter hook %s priority %s; }", blackHole, chain.hook, chain.hook, chain.priority),
			fmt.Sprintf("add rule %s %s ip %s %s drop", blackHole, chain.hook, chain.match, service.Spec.ClusterIP),
		)
	}
	// All at the same moment: half of a black hole is another fault.
	if _, err := l.Node.Run(ctx, "nft", strings.Join(commands, "\n")); err != nil {
		return fmt.Errorf("open black hole: %w", err)
	}
	return nil
}

// CloseBlackHole ends what OpenBlackHole has begun. More calls do nothing.
func (l *Landscape) CloseBlackHole(ctx context.Context) error {
	if _, err := l.Node.Run(ctx, "nft", "add table "+blackHole+"\ndelete table "+blackHole); err != nil {
		return fmt.Errorf("close black hole: %w", err)
	}
	return nil
}

// KillUnit kills the main process of a unit on the node, which has no time to end.
func (l *Landscape) KillUnit(ctx context.Context, unit string) error {
	pid, err := l.Node.Run(ctx, "systemctl", "show", "--property=MainPID", "--value", unit)
	if err != nil {
		return err
	}
	_, err = l.Node.Run(ctx, "kill", "-KILL", strings.TrimSpace(pid))
	return err
}

// LoseService deletes the Service of an upstream's cache and has another one, with
// nothing behind it, take its address, so that the one that
// gardener-resource-manager creates gets a new address. It waits until the cache
// does not answer any more, and returns a function that deletes the other Service.
func (l *Landscape) LoseService(ctx context.Context, upstream string) (cleanup func(context.Context) error, err error) {
	service, err := l.service(ctx, upstream)
	if err != nil {
		return nil, err
	}
	if err := l.ShootClient.Delete(ctx, service); err != nil {
		return nil, fmt.Errorf("delete Service: %w", err)
	}
	other := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: metav1.NamespaceDefault, GenerateName: "other-"},
		Spec:       corev1.ServiceSpec{ClusterIP: service.Spec.ClusterIP, Ports: service.Spec.Ports, Selector: map[string]string{"app": "none"}},
	}
	if err := l.ShootClient.Create(ctx, other); err != nil {
		return nil, fmt.Errorf("give the address of the Service to another one: %w", err)
	}
	err = wait.PollUntilContextCancel(ctx, pollInterval, true, func(ctx context.Context) (bool, error) {
		return l.ask(ctx, service) != nil, nil
	})
	if err != nil {
		return nil, fmt.Errorf("wait until the cache of %s is not reached: %w", upstream, err)
	}
	return func(ctx context.Context) error { return client.IgnoreNotFound(l.ShootClient.Delete(ctx, other)) }, nil
}

// AwaitService waits until an upstream's cache has a Service, and returns its
// address.
func (l *Landscape) AwaitService(ctx context.Context, upstream string) (string, error) {
	var service *corev1.Service
	err := wait.PollUntilContextCancel(ctx, pollInterval, true, func(ctx context.Context) (bool, error) {
		var err error
		service, err = l.service(ctx, upstream)
		if apierrors.IsNotFound(err) {
			return false, nil
		}
		return err == nil, err
	})
	if err != nil {
		return "", fmt.Errorf("wait for the Service of the cache of %s: %w", upstream, err)
	}
	return service.Spec.ClusterIP, nil
}

func (l *Landscape) service(ctx context.Context, upstream string) (*corev1.Service, error) {
	service := &corev1.Service{}
	key := client.ObjectKey{Namespace: metav1.NamespaceSystem, Name: upstreamnames.ResourceName(upstream)}
	if err := l.ShootClient.Get(ctx, key, service); err != nil {
		return nil, fmt.Errorf("read Service of the cache: %w", err)
	}
	return service, nil
}
