// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package webhook_test

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	. "github.com/onsi/gomega"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	extensionscontroller "github.com/gardener/gardener/extensions/pkg/controller"
	gardencorev1beta1 "github.com/gardener/gardener/pkg/apis/core/v1beta1"
	extensionsv1alpha1 "github.com/gardener/gardener/pkg/apis/extensions/v1alpha1"
	secretsutils "github.com/gardener/gardener/pkg/utils/secrets"

	"github.com/gardener/gardener-extension-registry-cache/pkg/apis/mirror/v1alpha1"
	"github.com/gardener/gardener-extension-registry-cache/pkg/apis/registry/v1alpha3"
	"github.com/gardener/gardener-extension-registry-cache/pkg/hosts"
	"github.com/gardener/gardener-extension-registry-cache/pkg/webhook"
)

const namespace = "shoot--foo--bar"

var (
	caBundle  = newCA("cache")
	foreignCA = newCA("foreign")
	mirrorCA  = newCA("mirror")
)

func newCA(name string) string {
	certificate, err := (&secretsutils.CertificateSecretConfig{Name: name, CommonName: name, CertType: secretsutils.CACert}).GenerateCertificate()
	if err != nil {
		panic(err)
	}
	return string(certificate.CertificatePEM)
}

func TestMutateAddsFilesAndUnit(t *testing.T) {
	g := NewWithT(t)
	osc := newOSC()

	mutate(g, seed{}.client(g), osc, nil)

	g.Expect(unitsOf(osc)).To(Equal([]string{"kubelet.service", "registry-hosts.service"}))
	unit := osc.Spec.Units[1]
	g.Expect(unit.Command).To(HaveValue(Equal(extensionsv1alpha1.CommandStart)))
	g.Expect(unit.Enable).To(HaveValue(BeTrue()))
	g.Expect(*unit.Content).To(Equal(hosts.Unit()))
	g.Expect(unit.FilePaths).To(ContainElements(
		hosts.Directory+"/registry-hosts.sh",
		hosts.Directory+"/docker.io/00-server.toml",
		hosts.Directory+"/docker.io/10-cache.toml",
		hosts.Directory+"/ghcr.io/10-cache.toml",
	))
	for _, path := range unit.FilePaths {
		g.Expect(fileOf(osc, path)).NotTo(BeEmpty(), path)
	}
	g.Expect(fileOf(osc, hosts.Directory+"/docker.io/10-cache.toml")).To(ContainSubstring("https://10.4.1.1:5000"))
	g.Expect(allFiles(osc)).To(ContainSubstring(caBundle))
	g.Expect(fileOf(osc, hosts.Directory+"/ghcr.io/10-cache.toml")).To(And(
		ContainSubstring("http://10.4.1.2:5000"), Not(ContainSubstring("ca ="))))
}

func TestMutateIsIdempotent(t *testing.T) {
	g := NewWithT(t)
	c := seed{}.client(g)
	first := newOSC(foreignEntry("docker.io", nil), foreignEntry("quay.io", nil))
	mutate(g, c, first, nil)

	fromScratch := newOSC(foreignEntry("docker.io", nil), foreignEntry("quay.io", nil))
	mutate(g, c, fromScratch, first.DeepCopy())
	g.Expect(fromScratch.Spec).To(Equal(first.Spec))

	onlyMetadata := first.DeepCopy()
	onlyMetadata.Annotations = map[string]string{"gardener.cloud/timestamp": "now"}
	mutate(g, c, onlyMetadata, first.DeepCopy())
	g.Expect(onlyMetadata.Spec).To(Equal(first.Spec))
}

func TestMutateAddsToAnUnchangedConfigThatLacksTheUnit(t *testing.T) {
	g := NewWithT(t)
	unmutated := newOSC()
	osc := unmutated.DeepCopy()

	mutate(g, seed{}.client(g), osc, unmutated)

	g.Expect(unitsOf(osc)).To(ContainElement(hosts.UnitName))
}

func TestMutateLeavesAlone(t *testing.T) {
	tests := map[string]struct {
		seed seed
		osc  func(*extensionsv1alpha1.OperatingSystemConfig)
	}{
		"purpose provision": {osc: func(osc *extensionsv1alpha1.OperatingSystemConfig) {
			osc.Spec.Purpose = extensionsv1alpha1.OperatingSystemConfigPurposeProvision
		}},
		"about to be deleted": {osc: func(osc *extensionsv1alpha1.OperatingSystemConfig) {
			osc.DeletionTimestamp = &metav1.Time{Time: time.Now()}
		}},
		"no Extension":             {seed: seed{noExtension: true}},
		"Extension without status": {seed: seed{noStatus: true}},
		"Extension that was restored, without caches yet": {seed: seed{
			status: `{"apiVersion":"registry.extensions.gardener.cloud/v1alpha3","kind":"RegistryStatus","caches":[]}`,
		}},
		"broken status": {seed: seed{status: `{"apiVersion":"v1","kind":"Foo"}`}},
		"no CA Secret":  {seed: seed{noCA: true}},
		"no Cluster":    {seed: seed{noCluster: true}},
		"Shoot about to be deleted": {seed: seed{shoot: func(shoot *gardencorev1beta1.Shoot) {
			shoot.DeletionTimestamp = &metav1.Time{Time: time.Now()}
		}}},
		"hibernated Shoot": {seed: seed{shoot: func(shoot *gardencorev1beta1.Shoot) {
			shoot.Spec.Hibernation = &gardencorev1beta1.Hibernation{Enabled: ptr.To(true)}
		}}},
		"API server down": {seed: seed{readError: errors.New("connection refused")}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			osc := newOSC(foreignEntry("docker.io", nil))
			if test.osc != nil {
				test.osc(osc)
			}
			before := osc.DeepCopy()

			mutate(g, test.seed.client(g), osc, nil)

			g.Expect(osc).To(Equal(before))
		})
	}
}

func TestMutateKeepsWhatNodesHaveWhenItsInputsCannotBeRead(t *testing.T) {
	g := NewWithT(t)
	old := newOSC(foreignEntry("docker.io", nil), foreignEntry("quay.io", nil))
	mutate(g, seed{}.client(g), old, nil)

	osc := newOSC(foreignEntry("docker.io", nil), foreignEntry("quay.io", nil))
	mutate(g, seed{readError: errors.New("connection refused")}.client(g), osc, old.DeepCopy())

	g.Expect(osc.Spec).To(Equal(old.Spec))
}

func TestMutateKeepsWhatNodesHaveAfterARestorationUntilThereAreCaches(t *testing.T) {
	g := NewWithT(t)
	old := newOSC()
	mutate(g, seed{}.client(g), old, nil)

	osc := newOSC()
	mutate(g, seed{status: `{"apiVersion":"registry.extensions.gardener.cloud/v1alpha3","kind":"RegistryStatus","caches":[]}`}.client(g), osc, old.DeepCopy())

	g.Expect(osc.Spec).To(Equal(old.Spec))
}

func TestMutateRemovesWhatIsNoLongerConfigured(t *testing.T) {
	g := NewWithT(t)
	old := newOSC()
	mutate(g, seed{}.client(g), old, nil)

	fewer := old.DeepCopy()
	fewer.Annotations = nil
	fewer.Spec.Files = append(fewer.Spec.Files, extensionsv1alpha1.File{Path: "/etc/new"})
	oneCache := seed{status: `{"apiVersion":"registry.extensions.gardener.cloud/v1alpha3","kind":"RegistryStatus","caches":[
		{"upstream":"ghcr.io","endpoint":"http://10.4.1.2:5000","remoteURL":"https://ghcr.io"}]}`}
	mutate(g, oneCache.client(g), fewer, old)
	g.Expect(allFiles(fewer)).NotTo(Or(ContainSubstring("docker.io"), ContainSubstring(caBundle)))
	g.Expect(fileOf(fewer, hosts.Directory+"/ghcr.io/10-cache.toml")).NotTo(BeEmpty())

	none := old.DeepCopy()
	none.Spec.Files = append(none.Spec.Files, extensionsv1alpha1.File{Path: "/etc/new"})
	mutate(g, seed{noExtension: true}.client(g), none, old)
	g.Expect(unitsOf(none)).To(Equal([]string{"kubelet.service"}))
	g.Expect(none.Spec.Files).To(HaveEach(HaveField("Path", Not(HavePrefix(hosts.Directory)))))
}

func TestMutateTakesOverEntriesOfOthers(t *testing.T) {
	t.Run("hosts come after the cache", func(t *testing.T) {
		g := NewWithT(t)
		osc := newOSC(foreignEntry("docker.io", []string{"/etc/ssl/foreign.crt"}), foreignEntry("quay.io", nil))
		osc.Spec.Files = append(osc.Spec.Files, extensionsv1alpha1.File{
			Path:    "/etc/ssl/foreign.crt",
			Content: extensionsv1alpha1.FileContent{Inline: &extensionsv1alpha1.FileContentInline{Data: foreignCA}},
		})

		mutate(g, seed{}.client(g), osc, nil)

		g.Expect(osc.Spec.CRIConfig.Containerd.Registries).To(ConsistOf(HaveField("Upstream", "quay.io")))
		mirror := fileOf(osc, hosts.Directory+"/docker.io/20-mirror-01.toml")
		g.Expect(mirror).To(And(ContainSubstring("https://mirror.docker.io"), ContainSubstring("'pull'"), Not(ContainSubstring("'resolve'"))))
		g.Expect(allFiles(osc)).To(ContainSubstring(foreignCA))
	})

	t.Run("an entry for the cache itself adds nothing", func(t *testing.T) {
		g := NewWithT(t)
		entry := foreignEntry("docker.io", nil)
		entry.Hosts[0].URL = "https://10.4.1.1:5000"
		osc := newOSC(entry)

		mutate(g, seed{}.client(g), osc, nil)

		g.Expect(osc.Spec.CRIConfig.Containerd.Registries).To(BeEmpty())
		g.Expect(osc.Spec.Files).To(HaveEach(HaveField("Path", Not(ContainSubstring("20-mirror")))))
	})

	t.Run("an entry with unknown certificates stays", func(t *testing.T) {
		g := NewWithT(t)
		osc := newOSC(foreignEntry("docker.io", []string{"/not/in/the/config.crt"}))

		mutate(g, seed{}.client(g), osc, nil)

		g.Expect(osc.Spec.CRIConfig.Containerd.Registries).To(ConsistOf(HaveField("Upstream", "docker.io")))
		g.Expect(fileOf(osc, hosts.Directory+"/ghcr.io/10-cache.toml")).NotTo(BeEmpty())
		g.Expect(fileOf(osc, hosts.Directory+"/docker.io/10-cache.toml")).To(BeEmpty())
	})

	t.Run("an entry that no node could use stays", func(t *testing.T) {
		g := NewWithT(t)
		entry := foreignEntry("docker.io", nil)
		entry.Hosts[0].URL = "no URL"
		osc := newOSC(entry)

		mutate(g, seed{}.client(g), osc, nil)

		g.Expect(osc.Spec.CRIConfig.Containerd.Registries).To(ConsistOf(entry))
		g.Expect(fileOf(osc, hosts.Directory+"/ghcr.io/10-cache.toml")).NotTo(BeEmpty())
	})

	t.Run("no criConfig", func(t *testing.T) {
		g := NewWithT(t)
		osc := newOSC()
		osc.Spec.CRIConfig = nil

		mutate(g, seed{}.client(g), osc, nil)

		g.Expect(osc.Spec.CRIConfig).To(BeNil())
		g.Expect(unitsOf(osc)).To(ContainElement(hosts.UnitName))
	})
}

func TestMutateAddsMirrors(t *testing.T) {
	t.Run("after the cache and before the entries of others", func(t *testing.T) {
		g := NewWithT(t)
		osc := newOSC(foreignEntry("docker.io", nil), foreignEntry("quay.io", nil))

		mutate(g, seed{mirrors: mirrors}.client(g), osc, nil)

		g.Expect(osc.Spec.CRIConfig.Containerd.Registries).To(BeEmpty())
		for file, want := range map[string][]string{
			"docker.io/00-server.toml":    {"https://registry-1.docker.io"},
			"docker.io/10-cache.toml":     {"https://10.4.1.1:5000"},
			"docker.io/20-mirror-01.toml": {"http://first.example.com", "'pull', 'resolve'"},
			"docker.io/20-mirror-02.toml": {"https://second.example.com/path", "'pull'", "override_path = true", "ca = "},
			"docker.io/20-mirror-03.toml": {"https://mirror.docker.io"},
			"ghcr.io/10-cache.toml":       {"http://10.4.1.2:5000"},
			"quay.io/20-mirror-01.toml":   {"https://third.example.com", "'pull'"},
			"quay.io/20-mirror-02.toml":   {"https://mirror.quay.io"},
		} {
			for _, part := range want {
				g.Expect(fileOf(osc, hosts.Directory+"/"+file)).To(ContainSubstring(part), file)
			}
		}
		g.Expect(fileOf(osc, hosts.Directory+"/quay.io/00-server.toml")).NotTo(ContainSubstring("server ="), "containerd knows")
		g.Expect(allFiles(osc)).To(And(ContainSubstring(caBundle), ContainSubstring(mirrorCA)))
	})

	t.Run("without caches", func(t *testing.T) {
		g := NewWithT(t)
		osc := newOSC()

		mutate(g, seed{noExtension: true, mirrors: mirrors}.client(g), osc, nil)

		g.Expect(unitsOf(osc)).To(ContainElement(hosts.UnitName))
		g.Expect(fileOf(osc, hosts.Directory+"/docker.io/20-mirror-01.toml")).To(ContainSubstring("http://first.example.com"))
		g.Expect(osc.Spec.Files).To(HaveEach(HaveField("Path", Not(ContainSubstring("10-cache")))))
	})

	t.Run("without those whose Secret is missing", func(t *testing.T) {
		g := NewWithT(t)
		osc := newOSC()
		broken := seed{mirrors: mirrors, noMirrorCA: true}.client(g)

		mutate(g, broken, osc, nil)

		g.Expect(fileOf(osc, hosts.Directory+"/docker.io/10-cache.toml")).NotTo(BeEmpty(), "its cache does not depend on it")
		g.Expect(allFiles(osc)).NotTo(Or(ContainSubstring("first.example.com"), ContainSubstring("second.example.com")))
		g.Expect(fileOf(osc, hosts.Directory+"/quay.io/20-mirror-01.toml")).NotTo(BeEmpty())

		old := newOSC()
		mutate(g, seed{mirrors: mirrors}.client(g), old, nil)
		osc = newOSC()
		mutate(g, broken, osc, old.DeepCopy())
		g.Expect(osc.Spec).To(Equal(old.Spec), "nodes that had them keep them")
	})

	t.Run("without those that no node could use", func(t *testing.T) {
		g := NewWithT(t)
		osc, old := newOSC(), newOSC()
		broken := seed{mirrors: strings.Replace(mirrors, "http://first.example.com", "first.example.com", 1)}.client(g)

		mutate(g, broken, osc, nil)

		g.Expect(fileOf(osc, hosts.Directory+"/docker.io/10-cache.toml")).NotTo(BeEmpty(), "its cache does not depend on it")
		g.Expect(fileOf(osc, hosts.Directory+"/quay.io/20-mirror-01.toml")).NotTo(BeEmpty())
		mutate(g, seed{mirrors: mirrors}.client(g), old, nil)
		osc = newOSC()
		mutate(g, broken, osc, old.DeepCopy())
		g.Expect(osc.Spec).To(Equal(old.Spec), "nodes that had them keep them")

		// What has nothing of ours yet gets what is known.
		osc = newOSC()
		mutate(g, broken, osc, newOSC())
		g.Expect(fileOf(osc, hosts.Directory+"/docker.io/10-cache.toml")).NotTo(BeEmpty())
	})

	t.Run("unless their Extension is about to be deleted", func(t *testing.T) {
		g := NewWithT(t)
		osc, want := newOSC(), newOSC()

		mutate(g, seed{mirrors: mirrors, mirrorsDeleted: true}.client(g), osc, nil)

		mutate(g, seed{}.client(g), want, nil)
		g.Expect(osc.Spec).To(Equal(want.Spec))
	})

	t.Run("and nothing of what cannot be read", func(t *testing.T) {
		for name, raw := range map[string]string{"nothing": "", "foreign": `{"apiVersion":"v1","kind":"Foo"}`} {
			g := NewWithT(t)
			osc, want := newOSC(), newOSC()

			mutate(g, seed{mirrors: raw, emptyMirrors: raw == ""}.client(g), osc, nil)

			mutate(g, seed{}.client(g), want, nil)
			g.Expect(osc.Spec).To(Equal(want.Spec), name)
		}
	})
}

// mirrors has several mirrors of an upstream with a cache, and one of another.
const mirrors = `{"apiVersion":"mirror.extensions.gardener.cloud/v1alpha1","kind":"MirrorConfig","mirrors":[
	{"upstream":"docker.io","hosts":[
		{"host":"http://first.example.com","capabilities":["resolve","pull"]},
		{"host":"https://second.example.com/path","caBundleSecretReferenceName":"mirror-ca","overridePath":true}]},
	{"upstream":"quay.io","hosts":[{"host":"https://third.example.com"}]}]}`

// seed is what the webhook finds in the Seed: two caches, one with TLS, unless
// said otherwise.
type seed struct {
	noExtension, noStatus, noCA, noCluster bool
	status                                 string
	// mirrors configure an Extension of that type; there is none without them,
	// unless emptyMirrors.
	mirrors                                  string
	emptyMirrors, noMirrorCA, mirrorsDeleted bool
	shoot                                    func(*gardencorev1beta1.Shoot)
	readError                                error
}

func (s seed) client(g *WithT) client.Client {
	shoot := &gardencorev1beta1.Shoot{
		TypeMeta: metav1.TypeMeta{APIVersion: gardencorev1beta1.SchemeGroupVersion.String(), Kind: "Shoot"},
	}
	shoot.Spec.Resources = []gardencorev1beta1.NamedResourceReference{{
		Name: "mirror-ca", ResourceRef: autoscalingv1.CrossVersionObjectReference{APIVersion: "v1", Kind: "Secret", Name: "mirror-ca-1"},
	}}
	if s.shoot != nil {
		s.shoot(shoot)
	}
	rawShoot, err := json.Marshal(shoot)
	g.Expect(err).NotTo(HaveOccurred())
	if s.status == "" {
		s.status = `{"apiVersion":"registry.extensions.gardener.cloud/v1alpha3","kind":"RegistryStatus","caSecretName":"ca-bundle","caches":[
			{"upstream":"docker.io","endpoint":"https://10.4.1.1:5000","remoteURL":"https://registry-1.docker.io"},
			{"upstream":"ghcr.io","endpoint":"http://10.4.1.2:5000","remoteURL":"https://ghcr.io"}]}`
	}
	extension := &extensionsv1alpha1.Extension{ObjectMeta: metav1.ObjectMeta{Name: v1alpha3.ExtensionType, Namespace: namespace}}
	if !s.noStatus {
		extension.Status.ProviderStatus = &runtime.RawExtension{Raw: []byte(s.status)}
	}

	builder := fake.NewClientBuilder().WithScheme(extensionscontroller.ExtensionsScheme)
	if !s.noCluster {
		builder.WithObjects(&extensionsv1alpha1.Cluster{
			ObjectMeta: metav1.ObjectMeta{Name: namespace},
			Spec:       extensionsv1alpha1.ClusterSpec{Shoot: runtime.RawExtension{Raw: rawShoot}},
		})
	}
	if !s.noExtension {
		builder.WithObjects(extension)
	}
	if s.mirrors != "" || s.emptyMirrors {
		extension := &extensionsv1alpha1.Extension{ObjectMeta: metav1.ObjectMeta{Name: v1alpha1.ExtensionType, Namespace: namespace}}
		if s.mirrors != "" {
			extension.Spec.ProviderConfig = &runtime.RawExtension{Raw: []byte(s.mirrors)}
		}
		if s.mirrorsDeleted {
			extension.DeletionTimestamp = &metav1.Time{Time: time.Now()}
			extension.Finalizers = []string{"extensions.gardener.cloud/registry-mirror"}
		}
		builder.WithObjects(extension)
	}
	if !s.noMirrorCA {
		builder.WithObjects(&corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{Name: "ref-mirror-ca-1", Namespace: namespace},
			Data:       map[string][]byte{"bundle.crt": []byte(mirrorCA)},
		})
	}
	if !s.noCA {
		builder.WithObjects(&corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{Name: "ca-bundle", Namespace: namespace},
			Data:       map[string][]byte{"bundle.crt": []byte(caBundle)},
		})
	}
	if s.readError != nil {
		builder.WithInterceptorFuncs(interceptor.Funcs{
			Get: func(context.Context, client.WithWatch, client.ObjectKey, client.Object, ...client.GetOption) error {
				return s.readError
			},
		})
	}
	return builder.Build()
}

func mutate(g *WithT, c client.Client, osc, old *extensionsv1alpha1.OperatingSystemConfig) {
	var oldObj client.Object
	if old != nil {
		oldObj = old
	}
	g.Expect(webhook.NewMutator(c, logr.Discard()).Mutate(context.Background(), osc, oldObj)).To(Succeed())
}

func newOSC(registries ...extensionsv1alpha1.RegistryConfig) *extensionsv1alpha1.OperatingSystemConfig {
	return &extensionsv1alpha1.OperatingSystemConfig{
		ObjectMeta: metav1.ObjectMeta{Name: "osc", Namespace: namespace},
		Spec: extensionsv1alpha1.OperatingSystemConfigSpec{
			Purpose: extensionsv1alpha1.OperatingSystemConfigPurposeReconcile,
			CRIConfig: &extensionsv1alpha1.CRIConfig{
				Name:       extensionsv1alpha1.CRINameContainerD,
				Containerd: &extensionsv1alpha1.ContainerdConfig{Registries: registries},
			},
			Units: []extensionsv1alpha1.Unit{{Name: "kubelet.service"}},
			Files: []extensionsv1alpha1.File{{Path: "/etc/kubelet"}},
		},
	}
}

func foreignEntry(upstream string, caCerts []string) extensionsv1alpha1.RegistryConfig {
	return extensionsv1alpha1.RegistryConfig{
		Upstream: upstream,
		Hosts: []extensionsv1alpha1.RegistryHost{{
			URL:          "https://mirror." + upstream,
			Capabilities: []extensionsv1alpha1.RegistryCapability{extensionsv1alpha1.PullCapability},
			CACerts:      caCerts,
		}},
	}
}

func unitsOf(osc *extensionsv1alpha1.OperatingSystemConfig) []string {
	var names []string
	for _, unit := range osc.Spec.Units {
		names = append(names, unit.Name)
	}
	return names
}

func fileOf(osc *extensionsv1alpha1.OperatingSystemConfig, path string) string {
	for _, file := range osc.Spec.Files {
		if file.Path == path {
			return file.Content.Inline.Data
		}
	}
	return ""
}

func allFiles(osc *extensionsv1alpha1.OperatingSystemConfig) string {
	var all strings.Builder
	for _, file := range osc.Spec.Files {
		all.WriteString(file.Path + "\n")
		if file.Content.Inline != nil {
			all.WriteString(file.Content.Inline.Data)
		}
	}
	return all.String()
}
