// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package scale_test

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"

	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/util/sets"
	apirequest "k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/client-go/tools/clientcmd"
)

// requests counts requests by verb and resource, for instance "patch extensions/status".
type requests map[string]int

// total is the number of all of them.
func (r requests) total() int {
	sum := 0
	for _, count := range r {
		sum += count
	}
	return sum
}

// per returns the requests for each of so many Extensions, as exactly as that can be
// said.
func (r requests) per(extensions int) map[string]string {
	result := make(map[string]string)
	for request, count := range r.forExtensions() {
		result[request] = fmt.Sprintf("%.2f", float64(count)/float64(extensions))
	}
	return result
}

// forItself marks requests in the namespace of the extension: for its Leases, and now
// and then for the certificate of its webhook.
const forItself = " (its own)"

// forExtensions leaves out what does not depend on the number of Extensions: what is the
// extension's own, and watches, which are renewed every few minutes.
func (r requests) forExtensions() requests {
	result := maps.Clone(r)
	maps.DeleteFunc(result, func(request string, _ int) bool {
		return strings.HasSuffix(request, forItself) || strings.HasSuffix(request, " mutatingwebhookconfigurations") || strings.HasPrefix(request, "watch ") ||
			slices.Contains([]string{"list extensions", "list namespaces"}, request)
	})
	return result
}

// writes returns the requests that change something, Leases excepted.
func writes(r requests) requests {
	result := r.forExtensions()
	maps.DeleteFunc(result, func(request string, _ int) bool {
		verb, _, _ := strings.Cut(request, " ")
		return slices.Contains([]string{"get", "list"}, verb)
	})
	return result
}

// counter counts the requests to an API server.
type counter struct {
	mutex    sync.Mutex
	requests requests
}

// take returns what was counted since the last call.
func (c *counter) take() requests {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	taken := c.requests
	c.requests = nil
	return taken
}

// wrap counts before it hands on.
func (c *counter) wrap(next http.Handler) http.Handler {
	resolver := apirequest.RequestInfoFactory{APIPrefixes: sets.NewString("api", "apis"), GrouplessAPIPrefixes: sets.NewString("api")}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		info, err := resolver.NewRequestInfo(r)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		name := info.Verb + " " + info.Path
		if info.IsResourceRequest {
			name = info.Verb + " " + strings.TrimSuffix(info.Resource+"/"+info.Subresource, "/")
		}
		if info.Namespace == extensionNamespace {
			name += forItself
		}
		c.mutex.Lock()
		if c.requests == nil {
			c.requests = requests{}
		}
		c.requests[name]++
		c.mutex.Unlock()
		next.ServeHTTP(w, r)
	})
}

// shootsPath is below which each Shoot has its own API server, as far as the
// extension can tell.
const shootsPath = "/shoots/"

// ownObjects gives each Shoot a view of the one API server that all of them share, in
// which a list of the objects of caches has its own only: an API server that is a
// Shoot's alone has no others.
func ownObjects(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		shoot, path, found := strings.Cut(strings.TrimPrefix(r.URL.Path, shootsPath), "/")
		if !found || shoot == "" {
			http.NotFound(w, r)
			return
		}
		r.URL.Path, r.URL.RawPath = "/"+path, ""
		query := r.URL.Query()
		if selector := query.Get("labelSelector"); selector != "" {
			query.Set("labelSelector", fmt.Sprintf("%s,upstream-host in (%s)", selector, strings.Join(upstreams(shoot), ",")))
			r.URL.RawQuery = query.Encode()
		}
		next.ServeHTTP(w, r)
	})
}

// kubeconfigOf returns a kubeconfig for the API server of a Shoot, made of that of the
// proxy that has ownObjects.
func kubeconfigOf(shoot string, proxy []byte) []byte {
	config, err := clientcmd.Load(proxy)
	Expect(err).NotTo(HaveOccurred())
	for _, cluster := range config.Clusters {
		cluster.Server += shootsPath + shoot
		// Shoots have no CA in common, and therefore no connection. A comment is enough
		// for clients to keep them apart.
		cluster.CertificateAuthorityData = append(cluster.CertificateAuthorityData, []byte("\n# of "+shoot+"\n")...)
	}
	kubeconfig, err := clientcmd.Write(*config)
	Expect(err).NotTo(HaveOccurred())
	return kubeconfig
}

// upstreams are the upstreams of a Shoot's caches. No two Shoots have one in common,
// since the objects of a cache are named by it.
func upstreams(shoot string) []string {
	var names []string
	for i := range cachesPerShoot {
		names = append(names, fmt.Sprintf("%s-%d.example.com", shoot, i))
	}
	return names
}
