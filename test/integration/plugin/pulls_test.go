// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package plugin_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	containerregistry "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	. "github.com/onsi/gomega"
	"github.com/onsi/gomega/types"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/cri-streaming/pkg/streaming/portforward"

	"github.com/gardener/gardener-extension-registry-cache/pkg/apis/inventory"
	"github.com/gardener/gardener-extension-registry-cache/pkg/plugin"
	upstreamtest "github.com/gardener/gardener-extension-registry-cache/test/upstream"
)

const (
	nodeName  = "node-a"
	layers    = 3
	layerSize = 1 << 20
)

// What a cache that serves pulls says of itself.
func TestPulls(t *testing.T) {
	g := NewWithT(t)
	source, err := upstreamtest.Start(t.TempDir(), "", "")
	g.Expect(err).NotTo(HaveOccurred())
	t.Cleanup(func() { _ = source.Close() })
	address := machineAddress(t)
	server := startCacheServer(t, address, source.URL())
	startKubelet(t, "registry-docker-io-0", server.inventoryPort)
	newCache(t, "docker.io", 1, nil)
	newPod(t, "docker.io", address, server.debugPort)
	image := pushImage(t, source, "library/app")
	digest, err := image.Digest()
	g.Expect(err).NotTo(HaveOccurred())

	expectOutput(t, MatchRegexp(`^IMAGE +SIZE +LAST USED +CACHED +DIGEST\n$`), "images")
	expectOutput(t, MatchRegexp(`Cached: +no: not pulled through this cache yet`), "explain-pull", "app:v1")

	pull(t, server, "library/app")
	all := fmt.Sprintf(`yes, all %d blobs, 3\.0MiB, last used [0-9]+s ago\n`, layers+2)
	g.Eventually(func() string { return expectOutput(t, Not(BeEmpty()), "explain-pull", "app:v1") }).Should(MatchRegexp(`Cached: +`+all+` +tag v1 was last %s;`, digest))
	expectOutput(t, MatchRegexp(`Cached: +`+all), "explain-pull", "app@"+digest.String())
	expectOutput(t, MatchRegexp(`Cached: +no: .*\n +it has 1 other images of this repository`), "explain-pull", "app:v2")
	expectOutput(t, MatchRegexp(`\ndocker\.io/library/app:v1 +3\.0MiB +[0-9]+s ago +all +%s\n$`, digest), "images", "docker.io")
	var listed struct {
		Caches []struct {
			Upstream, Pod string
			Images        []inventory.Image
		}
	}
	g.Expect(json.Unmarshal([]byte(expectOutput(t, Not(BeEmpty()), "images", "-o", "json")), &listed)).To(Succeed())
	g.Expect(listed.Caches).To(ConsistOf(And(HaveField("Upstream", "docker.io"), HaveField("Pod", "registry-docker-io-0"),
		HaveField("Images", ConsistOf(And(HaveField("Digest", digest.String()), HaveField("Missing", BeZero())))))))

	// Of another cache the pod does not answer.
	newCache(t, "ghcr.io", 1, nil)
	newPod(t, "ghcr.io", address, server.debugPort)
	code, out, stderr := run(admin(t), "images")
	g.Expect(code).To(Equal(plugin.ExitFailed))
	g.Expect(out).To(ContainSubstring("docker.io/library/app:v1"))
	g.Expect(strings.Split(stderr, "\n")).To(HaveExactElements(
		MatchRegexp(`^ghcr\.io: .*registry-ghcr-io-0`), Equal("Error: 1 of 2 pods did not answer: what they have is not listed"), BeEmpty()))

	// One image is stored, and one is new each time.
	kubeconfig, shown := admin(t), make(chan string)
	go func() {
		_, out, err := run(kubeconfig, "top", "--once", "--interval", "3s")
		shown <- out + err
	}()
	for number := 0; ; number++ {
		added := "library/new-" + strconv.Itoa(number)
		pushImage(t, source, added)
		pull(t, server, added)
		pull(t, server, "library/app")
		select {
		case out := <-shown:
			g.Expect(out).To(MatchRegexp(`\ndocker\.io +1/1 +[1-9][0-9]*\.[0-9] +[1-9][0-9]?% +[0-9.]+MiB/s +[0-9.]+[KM]iB/s +[0-9]+ +[0-9.]+[KMGT]?i?B of `))
			return
		default:
		}
	}
}

// expectOutput runs the plugin as an administrator and returns what it printed.
func expectOutput(t *testing.T, matcher types.GomegaMatcher, args ...string) string {
	t.Helper()
	g := NewWithT(t)
	code, out, err := run(admin(t), args...)
	g.Expect(code).To(Equal(plugin.ExitOK), err)
	g.Expect(err).To(BeEmpty())
	g.Expect(out).To(matcher)
	return out
}

func pushImage(t *testing.T, registry *upstreamtest.Registry, repository string) containerregistry.Image {
	t.Helper()
	g := NewWithT(t)
	image, err := random.Image(layerSize, layers)
	g.Expect(err).NotTo(HaveOccurred())
	reference, err := name.ParseReference(registry.Host()+"/"+repository+":v1", name.Insecure)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(remote.Write(reference, image)).To(Succeed())
	return image
}

// pull pulls an image by way of a cache.
func pull(t *testing.T, server cacheServer, repository string) {
	t.Helper()
	g := NewWithT(t)
	reference, err := name.ParseReference(server.host+"/"+repository+":v1", name.Insecure)
	g.Expect(err).NotTo(HaveOccurred())
	image, err := remote.Image(reference)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(upstreamtest.ReadImage(image)).To(Succeed())
}

// startKubelet makes the Node of the pods, and serves there the one request to kubelets
// that the plugin causes, with the code of the real ones. The port of the inventory of
// a pod leads to where the cache has it here; those of other pods lead nowhere.
func startKubelet(t *testing.T, pod string, inventoryPort int) {
	t.Helper()
	mux := http.NewServeMux()
	mux.HandleFunc("/portForward/{namespace}/{pod}", func(w http.ResponseWriter, r *http.Request) {
		options, err := portforward.NewV4Options(r)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		portforward.ServePortForward(w, r, forwarder{pod: inventoryPort}, r.PathValue("pod"), "", options, time.Minute, 10*time.Second, portforward.SupportedProtocols)
	})
	kubelet := httptest.NewTLSServer(mux)
	t.Cleanup(kubelet.Close)
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: nodeName}}
	create(t, node)
	node.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "127.0.0.1"}}
	node.Status.DaemonEndpoints.KubeletEndpoint.Port = int32(kubelet.Listener.Addr().(*net.TCPAddr).Port)
	NewWithT(t).Expect(shoot.Status().Update(t.Context(), node)).To(Succeed())
}

// forwarder has, by the names of pods, the ports of this machine that those of their
// inventories lead to.
type forwarder map[string]int

func (f forwarder) PortForward(ctx context.Context, pod, _ string, port int32, stream io.ReadWriteCloser) error {
	defer func() { _ = stream.Close() }()
	target, found := f[pod]
	if !found || port != inventory.Port {
		return fmt.Errorf("nothing listens on port %d of pod %s", port, pod)
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(target)))
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	go func() { _, _ = io.Copy(conn, stream) }()
	_, err = io.Copy(stream, conn)
	return err
}
