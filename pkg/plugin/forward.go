// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package plugin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"

	"k8s.io/apimachinery/pkg/util/httpstream" //nolint:staticcheck // client-go takes and returns its types
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/transport/spdy"

	"github.com/gardener/gardener-extension-registry-cache/pkg/apis/inventory"
)

// maxInventoryBytes bound the answer of a pod.
const maxInventoryBytes = 64 << 20

// inventory returns the images that a pod has: all, or those of one repository. It
// forwards a port for that, as kubectl port-forward does.
func (c *cluster) inventory(ctx context.Context, pod string, repository string) (*inventory.Inventory, error) {
	if c.config.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.config.Timeout)
		defer cancel()
	}
	address, stop, err := c.forward(ctx, pod)
	if err != nil {
		return nil, c.explainPod(err, pod, "create", "pods/portforward")
	}
	defer stop()

	target := url.URL{Scheme: "http", Host: address, Path: inventory.Path}
	if repository != "" {
		target.RawQuery = url.Values{inventory.RepositoryParameter: {repository}}.Encode()
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, target.String(), nil)
	if err != nil {
		return nil, err
	}
	response, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(request)
	if err != nil {
		return nil, fmt.Errorf("pod %s does not answer on its port %d, as those of older versions of the extension: %w", pod, inventory.Port, err)
	}
	defer func() { _ = response.Body.Close() }() // it has been read
	body, err := io.ReadAll(io.LimitReader(response.Body, maxInventoryBytes))
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", response.Status, printable(string(body)))
	}
	found := &inventory.Inventory{}
	if err == nil {
		err = json.Unmarshal(body, found)
	}
	if err != nil {
		return nil, fmt.Errorf("read the images of pod %s: %w", pod, err)
	}
	return found, nil
}

// forward makes a port of a pod reachable at an address of this machine until stop is
// called.
func (c *cluster) forward(ctx context.Context, pod string) (address string, stop func(), err error) {
	dialer, err := c.dialer(pod)
	if err != nil {
		return "", nil, err
	}
	stopped, ready, failed := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	forwarder, err := portforward.NewOnAddresses(dialer, []string{"127.0.0.1"}, []string{"0:" + strconv.Itoa(inventory.Port)}, stopped, ready, io.Discard, io.Discard)
	if err != nil {
		return "", nil, err
	}
	go func() { failed <- forwarder.ForwardPorts() }()
	stop = func() { close(stopped) }
	select {
	case <-ready:
	case err := <-failed:
		return "", nil, errors.Join(err, ctx.Err())
	case <-ctx.Done():
		stop()
		return "", nil, ctx.Err()
	}
	ports, err := forwarder.GetPorts()
	if err != nil || len(ports) != 1 {
		stop()
		return "", nil, fmt.Errorf("forward port %d of pod %s: %w", inventory.Port, pod, err)
	}
	return "127.0.0.1:" + strconv.Itoa(int(ports[0].Local)), stop, nil
}

// dialer speaks as kubectl does: by WebSocket, or as API servers did before.
func (c *cluster) dialer(pod string) (httpstream.Dialer, error) {
	target := c.client.CoreV1().RESTClient().Post().Resource("pods").Namespace(namespace).Name(pod).SubResource("portforward").URL()
	transport, upgrader, err := spdy.RoundTripperFor(c.config)
	if err != nil {
		return nil, err
	}
	before := spdy.NewDialer(upgrader, &http.Client{Transport: transport}, http.MethodPost, target)
	websocket, err := portforward.NewSPDYOverWebsocketDialer(target, c.config)
	if err != nil {
		return nil, err
	}
	return portforward.NewFallbackDialer(websocket, before, func(err error) bool {
		return httpstream.IsUpgradeFailure(err) || httpstream.IsHTTPSProxyError(err)
	}), nil
}
