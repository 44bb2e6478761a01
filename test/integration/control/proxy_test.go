// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package control_test

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/gardener/gardener-extension-registry-cache/test/integration/control"
)

// newProxy starts a proxy in front of a server that wants a token, and returns a
// client of the proxy with its address. Of the server's answers to /watch there
// is one line at once, and no end.
func newProxy(t *testing.T) (*control.Proxy, *http.Client, string) {
	g := NewWithT(t)
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer of-the-server" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		_, _ = fmt.Fprintln(w, r.URL.String())
		if strings.HasPrefix(r.URL.Path, "/watch") {
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		}
	}))
	t.Cleanup(server.Close)
	proxy, err := control.StartProxy(&rest.Config{
		Host: server.URL, BearerToken: "of-the-server", TLSClientConfig: rest.TLSClientConfig{Insecure: true},
	})
	g.Expect(err).NotTo(HaveOccurred())
	t.Cleanup(func() { NewWithT(t).Expect(proxy.Stop()).To(Succeed()) })

	config, err := clientcmd.RESTConfigFromKubeConfig(proxy.Kubeconfig)
	g.Expect(err).NotTo(HaveOccurred())
	client, err := rest.HTTPClientFor(config)
	g.Expect(err).NotTo(HaveOccurred())
	t.Cleanup(client.CloseIdleConnections)
	return proxy, client, config.Host
}

// get returns the status and the first line of an answer.
func get(ctx context.Context, client *http.Client, url string) (int, string, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, "", err
	}
	response, err := client.Do(request)
	if err != nil {
		return 0, "", err
	}
	defer func() { _ = response.Body.Close() }()
	line, err := bufio.NewReader(response.Body).ReadString('\n')
	if response.StatusCode >= http.StatusInternalServerError {
		err = nil
	}
	return response.StatusCode, line, err
}

func TestProxyPasses(t *testing.T) {
	g := NewWithT(t)
	_, client, url := newProxy(t)
	for _, path := range []string{"/api?limit=1", "/watch?a=b"} {
		status, line, err := get(t.Context(), client, url+path)
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(status).To(Equal(http.StatusOK))
		g.Expect(line).To(Equal(path + "\n"))
	}
}

func TestProxyWantsItsToken(t *testing.T) {
	g := NewWithT(t)
	_, client, url := newProxy(t)
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	g.Expect(err).NotTo(HaveOccurred())
	request.Header.Set("Authorization", "Bearer another")
	response, err := client.Do(request)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(response.Body.Close()).To(Succeed())
	g.Expect(response.StatusCode).To(Equal(http.StatusUnauthorized))
}

func TestProxyFaults(t *testing.T) {
	for name, fault := range map[string]struct {
		begin func(*control.Proxy) error
		meet  func(Gomega, *http.Client, string)
	}{
		"refuse": {(*control.Proxy).Refuse, func(g Gomega, client *http.Client, url string) {
			_, _, err := get(t.Context(), client, url)
			g.Expect(err).To(MatchError(syscall.ECONNREFUSED))
		}},
		"fail": {(*control.Proxy).Fail, func(g Gomega, client *http.Client, url string) {
			status, line, err := get(t.Context(), client, url)
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(status).To(Equal(http.StatusInternalServerError))
			g.Expect(line).To(ContainSubstring(`"reason":"InternalError"`))
		}},
		"delay": {func(p *control.Proxy) error { return p.Delay(300 * time.Millisecond) }, func(g Gomega, client *http.Client, url string) {
			before := time.Now()
			status, _, err := get(t.Context(), client, url)
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(status).To(Equal(http.StatusOK))
			g.Expect(time.Since(before)).To(BeNumerically(">=", 300*time.Millisecond))
		}},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			proxy, client, url := newProxy(t)
			// Twice: a fault comes after another, and after the end of it.
			for range 2 {
				g.Expect(fault.begin(proxy)).To(Succeed())
				// Eventually, for a client learns of the end of a connection by using it.
				g.Eventually(func(g Gomega) { fault.meet(g, client, url) }, "30s").Should(Succeed())
				g.Expect(proxy.Pass()).To(Succeed())
				g.Eventually(func(g Gomega) {
					status, _, err := get(t.Context(), client, url)
					g.Expect(err).NotTo(HaveOccurred())
					g.Expect(status).To(Equal(http.StatusOK))
				}, "30s").Should(Succeed())
			}
		})
	}
}

func TestProxyEndsWatchesThatHideAFault(t *testing.T) {
	for name, begin := range map[string]func(*control.Proxy) error{"refuse": (*control.Proxy).Refuse, "fail": (*control.Proxy).Fail} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			proxy, client, url := newProxy(t)
			request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url+"/watch", nil)
			g.Expect(err).NotTo(HaveOccurred())
			response, err := client.Do(request)
			g.Expect(err).NotTo(HaveOccurred())
			defer func() { _ = response.Body.Close() }()
			reader := bufio.NewReader(response.Body)
			_, err = reader.ReadString('\n')
			g.Expect(err).NotTo(HaveOccurred())

			g.Expect(begin(proxy)).To(Succeed())

			_, err = reader.ReadString('\n')
			g.Expect(err).To(HaveOccurred())
		})
	}
}

func TestProxyAnswersWhoWaitsWhenTheDelayEnds(t *testing.T) {
	g := NewWithT(t)
	proxy, client, url := newProxy(t)
	g.Expect(proxy.Delay(time.Hour)).To(Succeed())
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	_, _, err := get(ctx, client, url)
	g.Expect(err).To(MatchError(context.DeadlineExceeded))

	waited := make(chan error, 1)
	go func() {
		_, _, err := get(t.Context(), client, url)
		waited <- err
	}()
	g.Expect(proxy.Pass()).To(Succeed())
	g.Eventually(waited, "30s").Should(Receive(BeNil()))
}
