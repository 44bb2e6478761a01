// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package plugin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/utils/ptr"

	shootv1alpha3 "github.com/gardener/gardener-extension-registry-cache/pkg/apis/shoot/v1alpha3"
	"github.com/gardener/gardener-extension-registry-cache/pkg/upstream"
)

const (
	namespace = metav1.NamespaceSystem

	// The labels and annotations that the extension sets, see pkg/resources.
	labelUpstreamHost   = "upstream-host"
	annotationUpstream  = "upstream"
	annotationRemoteURL = "remote-url"
	annotationScheme    = "scheme"
	labelApp            = "app"

	serverPort = "5000"

	// askAtOnce is how many pods are asked at the same time.
	askAtOnce = 8

	debugPortName    = "debug"
	defaultDebugPort = "5001"

	// requestTimeout is how long a request takes at most unless --request-timeout says
	// another time. An API server that is gone often drops packets.
	requestTimeout = 20 * time.Second
)

// cluster is what the plugin reads from: the cluster of a kubeconfig.
type cluster struct {
	client kubernetes.Interface
	config *rest.Config
	host   string
}

func newCluster(flags *genericclioptions.ConfigFlags) (*cluster, error) {
	config, err := flags.ToRESTConfig()
	if err != nil {
		return nil, fmt.Errorf("kubeconfig: %w", err)
	}
	// Without any kubeconfig client-go takes an API server on this machine.
	if raw, err := flags.ToRawKubeConfigLoader().RawConfig(); err == nil && len(raw.Clusters) == 0 && ptr.Deref(flags.APIServer, "") == "" && config.Host == clientcmd.ClusterDefaults.Server {
		return nil, errors.New("there is no kubeconfig, or it is empty: target the Shoot with gardenctl, or set KUBECONFIG or --kubeconfig")
	}
	// Many small requests of one command are no load.
	config.QPS, config.Burst = 50, 100
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("kubeconfig: %w", err)
	}
	return &cluster{client: client, config: config, host: config.Host}, nil
}

// cache is a cache as it is in the cluster.
type cache struct {
	// upstream is as in image names, and name is of the cache's objects.
	upstream, name string
	// service is the name of its Service, and endpoint the URL at which nodes reach it.
	service, endpoint, remoteURL string
	// replicas are how many pods it is to have, and ready how many of them are. Without a
	// StatefulSet both are 0.
	replicas, ready int32
}

// caches returns the caches of the cluster in the order of their upstreams.
func (c *cluster) caches(ctx context.Context) ([]cache, error) {
	options := metav1.ListOptions{LabelSelector: labelUpstreamHost}
	services, err := c.client.CoreV1().Services(namespace).List(ctx, options)
	if err != nil {
		return nil, c.explain(err, "list", "services")
	}
	sets, err := c.client.AppsV1().StatefulSets(namespace).List(ctx, options)
	if err != nil {
		return nil, c.explain(err, "list", "statefulsets.apps")
	}
	caches := make([]cache, 0, len(services.Items))
	for _, service := range services.Items {
		if found, ok := newCache(service, sets.Items); ok {
			caches = append(caches, found)
		}
	}
	slices.SortFunc(caches, func(a, b cache) int { return strings.Compare(a.upstream, b.upstream) })
	return caches, nil
}

func newCache(service corev1.Service, sets []appsv1.StatefulSet) (cache, bool) {
	host := service.Annotations[annotationUpstream]
	if host == "" {
		return cache{}, false
	}
	found := cache{
		upstream: host, name: service.Labels[labelApp], service: service.Name,
		endpoint:  upstream.Endpoint(service.Annotations[annotationScheme], service.Spec.ClusterIP, serverPort),
		remoteURL: service.Annotations[annotationRemoteURL],
	}
	for _, set := range sets {
		if set.Name == found.name {
			found.replicas, found.ready = ptr.Deref(set.Spec.Replicas, 1), set.Status.ReadyReplicas
		}
	}
	return found, true
}

// reports returns what the caches have reported, by the names of their objects. found is
// false if the cluster does not know RegistryCaches.
func (c *cluster) reports(ctx context.Context) (reports map[string]*shootv1alpha3.RegistryCacheStatus, found bool, err error) {
	path := fmt.Sprintf("/apis/%s/namespaces/%s/%s", shootv1alpha3.SchemeGroupVersion, namespace, shootv1alpha3.Resource)
	raw, err := c.client.Discovery().RESTClient().Get().AbsPath(path).DoRaw(ctx)
	if apierrors.IsNotFound(err) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, c.explain(err, "list", shootv1alpha3.Resource+"."+shootv1alpha3.SchemeGroupVersion.Group)
	}
	list := &shootv1alpha3.RegistryCacheList{}
	if err := json.Unmarshal(raw, list); err != nil {
		return nil, false, fmt.Errorf("decode RegistryCaches: %w", err)
	}
	reports = make(map[string]*shootv1alpha3.RegistryCacheStatus, len(list.Items))
	for _, item := range list.Items {
		reports[item.Name] = item.Status
	}
	return reports, true, nil
}

// pod is a pod of a cache that is ready.
type pod struct {
	name string
	// debugPort is the port of metrics.
	debugPort string
}

// pods returns the pods that are ready by the names of their caches.
func (c *cluster) pods(ctx context.Context) (map[string][]pod, error) {
	pods, err := c.client.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{LabelSelector: labelUpstreamHost})
	if err != nil {
		return nil, c.explain(err, "list", "pods")
	}
	ready := make(map[string][]pod)
	for _, p := range pods.Items {
		if slices.ContainsFunc(p.Status.Conditions, func(condition corev1.PodCondition) bool {
			return condition.Type == corev1.PodReady && condition.Status == corev1.ConditionTrue
		}) {
			ready[p.Labels[labelApp]] = append(ready[p.Labels[labelApp]], pod{name: p.Name, debugPort: debugPort(p)})
		}
	}
	for _, pods := range ready {
		slices.SortFunc(pods, func(a, b pod) int { return strings.Compare(a.name, b.name) })
	}
	return ready, nil
}

func debugPort(p corev1.Pod) string {
	for _, container := range p.Spec.Containers {
		for _, port := range container.Ports {
			if port.Name == debugPortName {
				return strconv.Itoa(int(port.ContainerPort))
			}
		}
	}
	return defaultDebugPort
}

// ask returns the answer of a pod of a cache, by way of the API server's proxy.
func (c *cluster) ask(ctx context.Context, p pod, path string) ([]byte, error) {
	raw, err := c.client.CoreV1().Pods(namespace).ProxyGet("http", p.name, p.debugPort, path, nil).DoRaw(ctx)
	if err != nil {
		return nil, c.explainPod(err, p.name, "get", "pods/proxy")
	}
	return raw, nil
}

// noAnswerError says that the API server at a host does not answer, which may be different
// the next time.
type noAnswerError struct{ host string }

func (e *noAnswerError) Error() string {
	return fmt.Sprintf("the API server %s does not answer", e.host)
}

// clusterError is an error that all requests would have.
type clusterError struct{ error }

// Unwrap returns the error itself.
func (e clusterError) Unwrap() error { return e.error }

// isClusterError says whether it makes no sense to ask another pod.
func isClusterError(err error) bool {
	var all clusterError
	return errors.As(err, &all) || errors.Is(err, context.Canceled)
}

// refusal is how an API server says which right is missing.
var refusal = regexp.MustCompile(` is forbidden: (?:User .* cannot ([a-z]+) resource)?`)

// explain says what is to be done about the error of a request, and which right is
// missing if one is.
func (c *cluster) explain(err error, verb, resource string) error {
	var failed *url.Error
	switch {
	case apierrors.IsForbidden(err), refusal.MatchString(err.Error()):
		// What forwards ports has only the text.
		if refused := refusal.FindStringSubmatch(err.Error()); len(refused) > 1 && refused[1] != "" {
			verb = refused[1]
		}
		return clusterError{fmt.Errorf("your user lacks the right to %s %s in namespace %s: ask an administrator of the cluster for a Role with the verb %q on %q (%w)",
			verb, resource, namespace, verb, resource, err)}
	case apierrors.IsUnauthorized(err):
		return clusterError{fmt.Errorf("the API server %s does not accept your credentials: they may have expired, get a new kubeconfig or target the Shoot again (%w)", c.host, err)}
	case errors.Is(err, context.Canceled):
		return err
	case errors.As(err, &failed), isNetwork(err):
		return fmt.Errorf("%w: the Shoot may be hibernated or deleted, or the kubeconfig be of another network (%w)", &noAnswerError{c.host}, err)
	}
	return fmt.Errorf("%s %s in namespace %s: %w", verb, resource, namespace, err)
}

// explainPod is explain for what a pod is asked by way of the API server, which has just
// answered.
func (c *cluster) explainPod(err error, pod, verb, resource string) error {
	if explained := c.explain(err, verb, resource); isClusterError(explained) {
		return explained
	}
	return fmt.Errorf("pod %s does not answer: %w", pod, err)
}

func isNetwork(err error) bool {
	var failed net.Error
	return errors.As(err, &failed) || errors.Is(err, context.DeadlineExceeded) || utilnet.IsConnectionRefused(err)
}
