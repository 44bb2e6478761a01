// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package resources_test

import (
	"flag"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/Masterminds/semver/v3"
	. "github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	k8slabels "k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/apiutil"
	"sigs.k8s.io/yaml"

	"github.com/gardener/gardener/pkg/client/kubernetes"

	configv1alpha1 "github.com/gardener/gardener-extension-registry-cache/pkg/apis/config/v1alpha1"
	"github.com/gardener/gardener-extension-registry-cache/pkg/apis/registry/v1alpha3"
	shootv1alpha3 "github.com/gardener/gardener-extension-registry-cache/pkg/apis/shoot/v1alpha3"
	"github.com/gardener/gardener-extension-registry-cache/pkg/resources"
)

var update = flag.Bool("update", false, "write the golden files anew")

// goldens are the caches whose objects stand in testdata, as a Shoot owner
// would read them with kubectl.
var goldens = []struct {
	name              string
	config            string
	kubernetesVersion string
	clusterIP         string
	credentials       *resources.Credentials
	vpa               bool
}{
	{name: "defaults", config: `{upstream: docker.io}`, clusterIP: "10.4.246.205", vpa: true},
	{
		name: "everything",
		config: `
upstream: registry.example.com
remoteURL: https://registry-origin.example.com:8443
volume: {size: 100Gi, storageClassName: premium}
garbageCollection: {ttl: 0s}
secretReferenceName: origin
proxy: {httpProxy: "http://proxy.example.com:3128", httpsProxy: "http://proxy.example.com:3129"}
http: {tls: true}
highAvailability: {enabled: true}
serviceNameSuffix: example
`,
		clusterIP:   "10.4.246.206",
		credentials: &resources.Credentials{Username: []byte("@robot"), Password: []byte("p#: 'x'")},
		vpa:         true,
	},
	{name: "http", config: `{upstream: ghcr.io, http: {tls: false}}`, clusterIP: "10.4.246.207"},
	{name: "high-availability", config: `{upstream: quay.io, highAvailability: {enabled: true}}`, clusterIP: "10.4.246.208"},
	{
		name: "high-availability-kubernetes-1.33", config: `{upstream: quay.io, highAvailability: {enabled: true}}`,
		kubernetesVersion: "1.33.7", clusterIP: "10.4.246.208",
	},
	{name: "ipv6", config: `{upstream: docker.io}`, clusterIP: "2001:db8:1::4f"},
	{name: "long-upstream", config: `{upstream: a-very-long-registry-name.artifacts.eu-central-1.example.com}`, clusterIP: "10.4.246.209"},
	{name: "port", config: `{upstream: "registry.example.com:5000", remoteURL: "http://registry.example.com:5000"}`, clusterIP: "10.4.246.210"},
}

func TestGoldens(t *testing.T) {
	for _, golden := range goldens {
		t.Run(golden.name, func(t *testing.T) {
			g := NewWithT(t)
			config := decode(g, golden.config)
			version := golden.kubernetesVersion
			if version == "" {
				version = "1.36.3"
			}

			cache := resources.Cache{
				Config:                config,
				Image:                 "registry.test/registry-cache:v1",
				Credentials:           golden.credentials,
				Endpoint:              resources.Endpoint(config, golden.clusterIP),
				VerticalPodAutoscaler: golden.vpa,
			}
			var rendered strings.Builder
			rendered.WriteString("# endpoint: " + resources.Endpoint(config, golden.clusterIP) + "\n")
			if *config.HTTP.TLS {
				certificate := resources.ServerCertificate(config, net.ParseIP(golden.clusterIP))
				rendered.WriteString("# certificate: " + certificate.Name + ", valid " + certificate.Validity.String() +
					", for " + certificate.IPAddresses[0].String() + ", " + strings.Join(certificate.DNSNames, ", ") + "\n")
				cache.Certificate = &resources.Certificate{Certificate: []byte("the certificate"), Key: []byte("the key")}
			}
			objects, err := cache.Objects()
			g.Expect(err).NotTo(HaveOccurred())
			objects = append([]client.Object{resources.Service(config, semver.MustParse(version))}, objects...)
			objects = append(append(objects, cache.RegistryCache()), cache.ReportRights()...)
			for _, object := range objects {
				rendered.WriteString("---\n" + render(g, object))
			}

			expectGolden(g, golden.name+".yaml", rendered.String())
		})
	}
}

func TestRefusingServiceSelectsNoPod(t *testing.T) {
	g := NewWithT(t)
	config := decode(g, `{upstream: docker.io}`)
	service := resources.Service(config, semver.MustParse("1.36.3"))
	service.Spec.ClusterIP = "10.0.0.1"

	refusing := resources.RefusingService(*service)

	g.Expect(refusing.Name).To(Equal(service.Name))
	g.Expect(refusing.Labels).To(Equal(service.Labels))
	g.Expect(refusing.Spec.Ports).To(Equal(service.Spec.Ports))
	for key, value := range service.Spec.Selector {
		g.Expect(refusing.Spec.Selector).To(HaveKeyWithValue(key, value))
	}
	g.Expect(podTemplate(g, resources.Cache{Config: config})).NotTo(ContainSubstring("leaving"))
	g.Expect(refusing.Spec.Selector).To(HaveKey("leaving"), "a label that no pod has")
}

func TestNetworkPolicy(t *testing.T) {
	g := NewWithT(t)
	expectGolden(g, "networkpolicy.yaml", render(g, resources.NetworkPolicy()))
}

func TestConfigurationIsWhatTheServerDecodes(t *testing.T) {
	g := NewWithT(t)
	cache := resources.Cache{
		Config:      decode(g, `{upstream: "registry.example.com:5000", garbageCollection: {ttl: 36h}}`),
		Credentials: &resources.Credentials{},
		Certificate: &resources.Certificate{},
	}

	objects, err := cache.Objects()
	g.Expect(err).NotTo(HaveOccurred())
	config, err := configv1alpha1.DecodeCacheConfiguration(objects[0].(*corev1.Secret).Data["config.yaml"])

	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(config.Upstream).To(Equal("registry.example.com:5000"))
	g.Expect(config.RemoteURL).To(Equal("https://registry.example.com:5000"))
	g.Expect(config.GarbageCollection.TTL.Duration).To(Equal(36 * time.Hour))
	g.Expect(config.CredentialsDir).To(Equal("/etc/registry-cache-credentials"))
	g.Expect(config.Server.TLS).To(Equal(&configv1alpha1.TLS{
		CertFile: "/etc/registry-cache-tls/tls.crt", KeyFile: "/etc/registry-cache-tls/tls.key",
	}))
}

func TestOnlyAChangeOfTheConfigurationRestartsThePods(t *testing.T) {
	g := NewWithT(t)
	base := resources.Cache{
		Config:      decode(g, `{upstream: docker.io}`),
		Image:       "registry.test/registry-cache:v1",
		Credentials: &resources.Credentials{Username: []byte("a"), Password: []byte("b")},
		Certificate: &resources.Certificate{Certificate: []byte("c"), Key: []byte("d")},
	}

	rotated := base
	rotated.Credentials = &resources.Credentials{Username: []byte("e"), Password: []byte("f")}
	rotated.Certificate = &resources.Certificate{Certificate: []byte("g"), Key: []byte("h")}
	resized := base
	resized.Config = decode(g, `{upstream: docker.io, volume: {size: 20Gi}}`)
	otherTTL := base
	otherTTL.Config = decode(g, `{upstream: docker.io, garbageCollection: {ttl: 1h}}`)

	template := podTemplate(g, base)
	g.Expect(podTemplate(g, rotated)).To(Equal(template))
	g.Expect(podTemplate(g, resized)).To(Equal(template))
	g.Expect(podTemplate(g, otherTTL)).NotTo(Equal(template))
}

func TestOthersSelectorSelectsAllOtherCaches(t *testing.T) {
	g := NewWithT(t)
	labelsOf := func(upstreamHost string) k8slabels.Set {
		config, err := v1alpha3.Decode([]byte(`{"apiVersion":"registry.extensions.gardener.cloud/v1alpha3","kind":"RegistryConfig","caches":[{"upstream":"` + upstreamHost + `"}]}`))
		g.Expect(err).NotTo(HaveOccurred())
		return k8slabels.Set(resources.Service(config.Caches[0], semver.MustParse("1.36.0")).Labels)
	}

	selector, err := resources.OthersSelector([]v1alpha3.RegistryCache{{Upstream: "docker.io"}, {Upstream: "localhost:5000"}})
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(selector.Matches(labelsOf("docker.io"))).To(BeFalse())
	g.Expect(selector.Matches(labelsOf("localhost:5000"))).To(BeFalse())
	g.Expect(selector.Matches(labelsOf("ghcr.io"))).To(BeTrue())
	g.Expect(selector.Matches(k8slabels.Set{"app": "kube-proxy"})).To(BeFalse(), "it is of no cache")

	selector, err = resources.OthersSelector(nil)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(selector.Matches(labelsOf("docker.io"))).To(BeTrue())
	g.Expect(selector.Matches(k8slabels.Set{"app": "kube-proxy"})).To(BeFalse())
}

func TestCA(t *testing.T) {
	g := NewWithT(t)
	ca := resources.CA()
	g.Expect(ca.Name).To(Equal("ca-extension-registry-cache"))
	g.Expect(*ca.Validity).To(Equal(17520 * time.Hour))
}

func decode(g *WithT, cache string) v1alpha3.RegistryCache {
	var fields map[string]any
	g.Expect(yaml.Unmarshal([]byte(cache), &fields)).To(Succeed())
	raw, err := yaml.Marshal(map[string]any{
		"apiVersion": v1alpha3.SchemeGroupVersion.String(), "kind": "RegistryConfig", "caches": []any{fields},
	})
	g.Expect(err).NotTo(HaveOccurred())
	config, err := v1alpha3.Decode(raw)
	g.Expect(err).NotTo(HaveOccurred())
	return config.Caches[0]
}

func podTemplate(g *WithT, cache resources.Cache) string {
	objects, err := cache.Objects()
	g.Expect(err).NotTo(HaveOccurred())
	for _, object := range objects {
		if _, ok := object.(*appsv1.StatefulSet); ok {
			rendered := render(g, object)
			return rendered[strings.Index(rendered, "  template:"):strings.Index(rendered, "  volumeClaimTemplates:")]
		}
	}
	g.Expect(objects).To(ContainElement(BeAssignableToTypeOf(&appsv1.StatefulSet{})))
	return ""
}

// render shows an object as YAML, with the data of Secrets in clear.
func render(g *WithT, object client.Object) string {
	object = object.DeepCopyObject().(client.Object)
	scheme := runtime.NewScheme()
	g.Expect(kubernetes.AddShootSchemeToScheme(scheme)).To(Succeed())
	g.Expect(shootv1alpha3.AddToScheme(scheme)).To(Succeed())
	gvk, err := apiutil.GVKForObject(object, scheme)
	g.Expect(err).NotTo(HaveOccurred())
	object.GetObjectKind().SetGroupVersionKind(gvk)
	if secret, ok := object.(*corev1.Secret); ok {
		secret.StringData = map[string]string{}
		for key, value := range secret.Data {
			secret.StringData[key] = string(value)
		}
		secret.Data = nil
	}
	rendered, err := yaml.Marshal(object)
	g.Expect(err).NotTo(HaveOccurred())
	return string(rendered)
}

func expectGolden(g *WithT, name, got string) {
	path := filepath.Join("testdata", name)
	if *update {
		g.Expect(os.MkdirAll("testdata", 0o755)).To(Succeed())
		g.Expect(os.WriteFile(path, []byte(got), 0o600)).To(Succeed())
	}
	want, err := os.ReadFile(path)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(got).To(Equal(string(want)))
}
