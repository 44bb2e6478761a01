// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package admission_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	gardencorev1beta1 "github.com/gardener/gardener/pkg/apis/core/v1beta1"

	"github.com/gardener/gardener-extension-registry-cache/pkg/admission"
)

const (
	caches  = "apiVersion: registry.extensions.gardener.cloud/v1alpha3\nkind: RegistryConfig\ncaches:\n"
	mirrors = "apiVersion: mirror.extensions.gardener.cloud/v1alpha1\nkind: MirrorConfig\nmirrors:\n"
)

// secrets are those of the garden: what a user's Secret is called says what it
// is like.
type secrets struct {
	mu    sync.Mutex
	reads []string
}

func (s *secrets) Get(ctx context.Context, key client.ObjectKey, object client.Object, _ ...client.GetOption) error {
	s.mu.Lock()
	s.reads = append(s.reads, key.String())
	s.mu.Unlock()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	resource := schema.GroupResource{Resource: "secrets"}
	secret := object.(*corev1.Secret)
	secret.Namespace, secret.Name, secret.Immutable = key.Namespace, key.Name, ptr.To(true)
	switch {
	case strings.HasPrefix(key.Name, "credentials"):
		secret.Data = map[string][]byte{"username": []byte("u"), "password": []byte("p")}
	case key.Name == "mutable":
		secret.Immutable = nil
		secret.Data = map[string][]byte{"username": []byte("u"), "password": []byte("p")}
	case key.Name == "empty":
	case key.Name == "forbidden":
		return apierrors.NewForbidden(resource, key.Name, errors.New("ask them"))
	case key.Name == "broken":
		return errors.New("connection refused")
	case strings.HasPrefix(key.Name, "slow"):
		<-ctx.Done()
		return fmt.Errorf("get: %w", ctx.Err())
	default:
		return apierrors.NewNotFound(resource, key.Name)
	}
	return nil
}

func (s *secrets) List(context.Context, client.ObjectList, ...client.ListOption) error {
	return errors.New("nothing is to be listed")
}

// change makes a Shoot what a test needs.
type change func(*gardencorev1beta1.Shoot)

func newShoot(changes ...change) *gardencorev1beta1.Shoot {
	shoot := &gardencorev1beta1.Shoot{ObjectMeta: metav1.ObjectMeta{Namespace: "garden-dev", Name: "one"}}
	for _, c := range changes {
		c(shoot)
	}
	return shoot
}

// with adds an extension. An empty configuration is none.
func with(extensionType, config string) change {
	return func(shoot *gardencorev1beta1.Shoot) {
		extension := gardencorev1beta1.Extension{Type: extensionType}
		if config != "" {
			raw, err := yaml.YAMLToJSON([]byte(config))
			if err != nil {
				panic(err)
			}
			extension.ProviderConfig = &runtime.RawExtension{Raw: raw}
		}
		shoot.Spec.Extensions = append(shoot.Spec.Extensions, extension)
	}
}

// withRaw adds an extension with a configuration as it stands.
func withRaw(extensionType, raw string) change {
	return func(shoot *gardencorev1beta1.Shoot) {
		shoot.Spec.Extensions = append(shoot.Spec.Extensions, gardencorev1beta1.Extension{
			Type: extensionType, ProviderConfig: &runtime.RawExtension{Raw: []byte(raw)},
		})
	}
}

// disabled disables the extension that was added last.
func disabled(shoot *gardencorev1beta1.Shoot) {
	shoot.Spec.Extensions[len(shoot.Spec.Extensions)-1].Disabled = ptr.To(true)
}

// resource adds an entry that refers to a Secret.
func resource(name, secret string) change {
	return resourceOf(name, "v1", "Secret", secret)
}

func resourceOf(name, apiVersion, kind, object string) change {
	return func(shoot *gardencorev1beta1.Shoot) {
		reference := gardencorev1beta1.NamedResourceReference{Name: name}
		reference.ResourceRef.APIVersion, reference.ResourceRef.Kind, reference.ResourceRef.Name = apiVersion, kind, object
		shoot.Spec.Resources = append(shoot.Spec.Resources, reference)
	}
}

// worker adds a worker pool. An empty container runtime is none.
func worker(name, containerRuntime string) change {
	return func(shoot *gardencorev1beta1.Shoot) {
		pool := gardencorev1beta1.Worker{Name: name}
		if containerRuntime != "" {
			pool.CRI = &gardencorev1beta1.CRI{Name: gardencorev1beta1.CRIName(containerRuntime)}
		}
		shoot.Spec.Provider.Workers = append(shoot.Spec.Provider.Workers, pool)
	}
}

func emptyRuntime(shoot *gardencorev1beta1.Shoot) { shoot.Spec.Provider.Workers[0].CRI.Name = "" }

func inDeletion(shoot *gardencorev1beta1.Shoot) { shoot.DeletionTimestamp = &metav1.Time{} }

func hibernated(shoot *gardencorev1beta1.Shoot) {
	shoot.Spec.Hibernation = &gardencorev1beta1.Hibernation{Enabled: ptr.To(true)}
}

// texts are problems as users read them.
func texts(problems field.ErrorList) []string {
	result := make([]string, 0, len(problems))
	for _, problem := range problems {
		result = append(result, problem.Error())
	}
	return result
}

const (
	cacheConfig  = "spec.extensions[0].providerConfig"
	needsCache   = "must be a RegistryConfig of apiVersion registry.extensions.gardener.cloud/v1alpha3 with one cache or more: set it, or remove the extension"
	needsMirror  = "must be a MirrorConfig of apiVersion mirror.extensions.gardener.cloud/v1alpha1 with the mirrors of one upstream or more: set it, or remove the extension"
	unknownField = "unknown field: expected one of upstream, remoteURL, volume, garbageCollection, secretReferenceName, proxy, http, highAvailability, serviceNameSuffix"
	hasPath      = "must not have a path: remove / and what follows it"
	badScheme    = "must start with http:// or https://"
	needsRuntime = "must be containerd: registry-cache and registry-mirror work with no other container runtime"
)

func TestCreate(t *testing.T) {
	for name, test := range map[string]struct {
		shoot *gardencorev1beta1.Shoot
		want  []string
		reads []string
	}{
		"nothing of ours":       {shoot: newShoot(with("shoot-dns-service", "foo: bar"), worker("a", "docker"))},
		"caches":                {shoot: newShoot(with("registry-cache", caches+"- upstream: docker.io"), worker("a", "containerd"))},
		"mirrors":               {shoot: newShoot(with("registry-mirror", mirrors+"- {upstream: docker.io, hosts: [{host: https://m.example.com}]}"))},
		"both, of one upstream": {shoot: newShoot(with("registry-cache", caches+"- upstream: docker.io"), with("registry-mirror", mirrors+"- {upstream: docker.io, hosts: [{host: https://m.example.com}]}"))},
		"without workers":       {shoot: newShoot(with("registry-cache", caches+"- upstream: docker.io"))},
		"default runtime":       {shoot: newShoot(with("registry-cache", caches+"- upstream: docker.io"), worker("a", ""))},
		"disabled and wrong":    {shoot: newShoot(with("registry-cache", "foo: bar"), disabled, worker("a", "docker"))},
		"no runtime's name":     {shoot: newShoot(with("registry-cache", caches+"- upstream: docker.io"), worker("a", "containerd"), emptyRuntime), want: []string{`spec.provider.workers[0].cri.name: Invalid value: "": ` + needsRuntime}},
		"disabled and empty":    {shoot: newShoot(with("registry-mirror", ""), disabled)},
		"in deletion and wrong": {shoot: newShoot(with("registry-cache", "foo: bar"), worker("a", "docker"), inDeletion)},
		"Secrets, of which each is read and reported once": {
			shoot: newShoot(with("registry-cache", caches+"- {upstream: a.io, secretReferenceName: one}\n- {upstream: b.io, secretReferenceName: two}\n- {upstream: c.io}"),
				resource("one", "mutable"), resource("two", "mutable"), resource("other", "missing")),
			want:  []string{cacheConfig + `.caches[0].secretReferenceName: Invalid value: "one": the referenced Secret "garden-dev/mutable" must be immutable: set its field immutable to true`},
			reads: []string{"garden-dev/mutable"},
		},

		"no configuration of caches": {
			shoot: newShoot(with("registry-cache", "")),
			want:  []string{cacheConfig + `: Required value: ` + needsCache},
		},
		"no configuration of mirrors": {
			shoot: newShoot(with("registry-mirror", "null")),
			want:  []string{cacheConfig + `: Required value: ` + needsMirror},
		},
		"unknown fields": {
			shoot: newShoot(with("registry-cache", caches+"- {upstream: docker.io, size: 10Gi}\n- {upstream: a.io, ttl: 0s}")),
			want:  []string{cacheConfig + `.caches[0].size: Forbidden: ` + unknownField, cacheConfig + `.caches[1].ttl: Forbidden: ` + unknownField},
		},
		"other kind": {
			shoot: newShoot(with("registry-cache", mirrors+"- {upstream: docker.io, hosts: [{host: https://m.example.com}]}")),
			want:  []string{cacheConfig + `: Invalid value: expected apiVersion "registry.extensions.gardener.cloud/v1alpha3" and kind "RegistryConfig", but got "mirror.extensions.gardener.cloud/v1alpha1" and "MirrorConfig"`},
		},
		"all of both at once": {
			shoot: newShoot(with("registry-mirror", mirrors+"- {upstream: a.io/b, hosts: [{host: m.example.com}]}"), with("other", "a: b"),
				with("registry-cache", caches+"- {upstream: docker.io, remoteURL: registry-1.docker.io, secretReferenceName: one}\n- upstream: a.io/b"),
				worker("a", "containerd"), worker("b", "docker"), resource("one", "mutable")),
			want: []string{
				`spec.extensions[0].providerConfig.mirrors[0].upstream: Invalid value: "a.io/b": ` + hasPath,
				`spec.extensions[0].providerConfig.mirrors[0].hosts[0].host: Invalid value: "m.example.com": ` + badScheme,
				`spec.extensions[2].providerConfig.caches[0].remoteURL: Invalid value: "registry-1.docker.io": ` + badScheme,
				`spec.extensions[2].providerConfig.caches[1].upstream: Invalid value: "a.io/b": ` + hasPath,
				`spec.provider.workers[1].cri.name: Invalid value: "docker": ` + needsRuntime,
				`spec.extensions[2].providerConfig.caches[0].secretReferenceName: Invalid value: "one": the referenced Secret "garden-dev/mutable" must be immutable: set its field immutable to true`,
			},
			reads: []string{"garden-dev/mutable"},
		},
		"references that lead nowhere": {
			shoot: newShoot(with("registry-cache", caches+"- {upstream: a.io, secretReferenceName: none}\n- {upstream: b.io, secretReferenceName: map}"), resourceOf("map", "v1", "ConfigMap", "credentials")),
			want: []string{
				cacheConfig + `.caches[0].secretReferenceName: Not found: "none": spec.resources of the Shoot has no entry of this name: add one whose resourceRef is the v1 Secret with the credentials, or correct the name`,
				cacheConfig + `.caches[1].secretReferenceName: Invalid value: "map": the entry of this name in spec.resources of the Shoot must refer to apiVersion v1 and kind Secret, but refers to v1 and ConfigMap (name "credentials")`,
			},
		},
		"Secrets": {
			shoot: newShoot(with("registry-cache", caches+"- {upstream: a.io, secretReferenceName: missing}\n- {upstream: b.io, secretReferenceName: empty}\n- {upstream: c.io, secretReferenceName: forbidden}\n- {upstream: d.io, secretReferenceName: broken}"),
				with("registry-mirror", mirrors+"- {upstream: a.io, hosts: [{host: https://m.example.com, caBundleSecretReferenceName: empty}]}"),
				resource("missing", "gone"), resource("empty", "empty"), resource("forbidden", "forbidden"), resource("broken", "broken")),
			want: []string{
				cacheConfig + `.caches[0].secretReferenceName: Not found: "missing": the Secret "garden-dev/gone", to which the entry of this name in spec.resources of the Shoot refers, does not exist: create it, or correct resourceRef.name`,
				cacheConfig + `.caches[1].secretReferenceName: Invalid value: "empty": the referenced Secret "garden-dev/empty" lacks the key "username": add it`,
				cacheConfig + `.caches[1].secretReferenceName: Invalid value: "empty": the referenced Secret "garden-dev/empty" lacks the key "password": add it`,
				cacheConfig + `.caches[2].secretReferenceName: Internal error: the Secret "garden-dev/forbidden" cannot be checked, for the extension's admission is not allowed to read it: ask the operators of Gardener, who can change that`,
				cacheConfig + `.caches[3].secretReferenceName: Internal error: the Secret "garden-dev/broken" could not be read: try again`,
				`spec.extensions[1].providerConfig.mirrors[0].hosts[0].caBundleSecretReferenceName: Invalid value: "empty": the referenced Secret "garden-dev/empty" lacks the key "bundle.crt": add it`,
			},
			reads: []string{"garden-dev/gone", "garden-dev/empty", "garden-dev/empty", "garden-dev/forbidden", "garden-dev/broken"},
		},
		"too large": {
			shoot: newShoot(with("registry-cache", caches+"- upstream: "+strings.Repeat("a", 64<<10))),
			want:  []string{cacheConfig + `: Invalid value: the configuration has 65647 bytes, at most 65536 are allowed: remove caches or mirrors`},
		},
		"nested": {
			shoot: newShoot(withRaw("registry-mirror", strings.Repeat(`{"a":[`, 5_000)+strings.Repeat("]}", 5_000))),
			want:  []string{cacheConfig + `: Invalid value: the configuration is nested more than 16 levels deep, which no field of it is`},
		},
		"brackets in a string": {
			shoot: newShoot(with("registry-cache", caches+`- {upstream: docker.io, remoteURL: 'https://\"[[[[[[[[{{{{{{{{[[[['}`)),
			want:  []string{cacheConfig + `.caches[0].remoteURL: Invalid value: "https://\\\"[[[[[[[[{{{{{{{{[[[[": is not a valid URL: must be a scheme, a host and optionally a port, for example https://registry.example.com:5000`},
		},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			reader := &secrets{}
			g.Expect(texts(admission.NewValidator(reader).Validate(t.Context(), test.shoot, nil))).To(HaveExactElements(test.want))
			g.Expect(reader.reads).To(ConsistOf(test.reads))
		})
	}
}

func TestUpdate(t *testing.T) {
	const (
		wrong      = caches + "- {upstream: a.io/b, foo: bar}"
		withSecret = caches + "- {upstream: a.io, secretReferenceName: one}"
	)
	small, large := caches+"- {upstream: docker.io, volume: {size: 10Gi, storageClassName: fast}}", caches+"- {upstream: docker.io, volume: {size: 20Gi, storageClassName: fast}}"
	for name, test := range map[string]struct {
		old, shoot *gardencorev1beta1.Shoot
		want       []string
		reads      []string
	}{
		"nothing of the wrong configuration": {
			old:   newShoot(with("registry-cache", wrong), with("registry-mirror", ""), worker("a", "docker"), resource("one", "gone")),
			shoot: newShoot(with("registry-cache", wrong), with("registry-mirror", ""), worker("a", "docker"), resource("one", "gone"), hibernated),
		},
		"order and whitespace of a wrong one": {
			old:   newShoot(withRaw("registry-cache", `{"kind":"Foo","caches":[{"upstream":"a","foo":[1,2]}]}`)),
			shoot: newShoot(withRaw("registry-cache", `{"caches": [{"foo": [1, 2], "upstream": "a"}], "kind": "Foo"}`), hibernated),
		},
		"a wrong one that is out of bounds": {
			old:   newShoot(withRaw("registry-cache", strings.Repeat("[", 20)+strings.Repeat("]", 20))),
			shoot: newShoot(withRaw("registry-cache", strings.Repeat("[", 20)+" "+strings.Repeat("]", 20)), hibernated),
		},
		"defaults written out": {
			old:   newShoot(with("registry-cache", withSecret), resource("one", "gone")),
			shoot: newShoot(with("registry-cache", withSecret[:len(withSecret)-1]+", volume: {size: 10240Mi}, http: {tls: true}, remoteURL: https://a.io}"), resource("one", "gone")),
		},
		"position in the list": {
			old:   newShoot(with("registry-cache", wrong)),
			shoot: newShoot(with("other", ""), with("registry-cache", wrong)),
		},
		"a resource that is another's": {
			old:   newShoot(with("registry-cache", withSecret), resource("one", "gone")),
			shoot: newShoot(with("registry-cache", withSecret), resource("two", "empty"), resource("one", "gone")),
		},
		"mirrors beside wrong caches": {
			old:   newShoot(with("registry-cache", wrong), with("registry-mirror", mirrors+"- {upstream: a.io, hosts: [{host: https://m}]}")),
			shoot: newShoot(with("registry-cache", wrong), with("registry-mirror", mirrors+"- {upstream: a.io, hosts: [{host: m}]}")),
			want:  []string{`spec.extensions[1].providerConfig.mirrors[0].hosts[0].host: Invalid value: "m": ` + badScheme},
		},
		"something in a wrong one": {
			old:   newShoot(with("registry-cache", caches+"- {upstream: a.io/b}")),
			shoot: newShoot(with("registry-cache", caches+"- {upstream: a.io/c}")),
			want:  []string{cacheConfig + `.caches[0].upstream: Invalid value: "a.io/c": ` + hasPath},
		},
		"a wrong one for a right one": {
			old:   newShoot(with("registry-cache", wrong)),
			shoot: newShoot(with("registry-cache", small)),
		},
		"the configuration taken away": {
			old:   newShoot(with("registry-cache", small)),
			shoot: newShoot(with("registry-cache", "")),
			want:  []string{cacheConfig + `: Required value: ` + needsCache},
		},
		"another Secret": {
			old:   newShoot(with("registry-cache", withSecret), resource("one", "credentials-1")),
			shoot: newShoot(with("registry-cache", withSecret), resource("one", "credentials-2")),
			reads: []string{"garden-dev/credentials-2"},
		},
		"a Secret that is wrong": {
			old:   newShoot(with("registry-cache", withSecret), resource("one", "credentials-1")),
			shoot: newShoot(with("registry-cache", withSecret), resource("one", "mutable")),
			want:  []string{cacheConfig + `.caches[0].secretReferenceName: Invalid value: "one": the referenced Secret "garden-dev/mutable" must be immutable: set its field immutable to true`},
			reads: []string{"garden-dev/mutable"},
		},
		"another Secret beside what was accepted once": {
			old:   newShoot(with("registry-cache", withSecret+"\n- {upstream: a.io/b, secretReferenceName: two}\n- {upstream: c.io, secretReferenceName: three}"), resource("one", "credentials-1"), resource("two", "gone")),
			shoot: newShoot(with("registry-cache", withSecret+"\n- {upstream: a.io/b, secretReferenceName: two}\n- {upstream: c.io, secretReferenceName: three}"), resource("one", "credentials-2"), resource("two", "gone")),
			reads: []string{"garden-dev/credentials-2"},
		},
		"a field that is there twice, corrected": {
			old:   newShoot(withRaw("registry-cache", `{"apiVersion":"registry.extensions.gardener.cloud/v1alpha3","kind":"RegistryConfig","caches":[],"caches":[{"upstream":"a.io/b"}]}`)),
			shoot: newShoot(withRaw("registry-cache", `{"apiVersion":"registry.extensions.gardener.cloud/v1alpha3","kind":"RegistryConfig","caches":[{"upstream":"a.io/b"}]}`)),
			want:  []string{cacheConfig + `.caches[0].upstream: Invalid value: "a.io/b": ` + hasPath},
		},
		"the resource taken away": {
			old:   newShoot(with("registry-cache", withSecret), resource("one", "credentials")),
			shoot: newShoot(with("registry-cache", withSecret)),
			want:  []string{cacheConfig + `.caches[0].secretReferenceName: Not found: "one": spec.resources of the Shoot has no entry of this name: add one whose resourceRef is the v1 Secret with the credentials, or correct the name`},
		},
		"enabled": {
			old:   newShoot(with("registry-cache", wrong), disabled),
			shoot: newShoot(with("registry-cache", caches+"- {upstream: a.io/b}")),
			want:  []string{cacheConfig + `.caches[0].upstream: Invalid value: "a.io/b": ` + hasPath},
		},
		"disabled": {
			old:   newShoot(with("registry-cache", small)),
			shoot: newShoot(with("registry-cache", wrong), disabled),
		},
		"removed": {
			old:   newShoot(with("registry-cache", wrong)),
			shoot: newShoot(),
		},
		"deleted": {
			old:   newShoot(with("registry-cache", small)),
			shoot: newShoot(with("registry-cache", wrong), worker("a", "docker"), inDeletion),
		},
		"a larger volume": {
			old:   newShoot(with("registry-cache", small)),
			shoot: newShoot(with("registry-cache", large)),
		},
		"a smaller volume of another class": {
			old:   newShoot(with("registry-cache", large)),
			shoot: newShoot(with("registry-cache", strings.Replace(small, "fast", "slow", 1))),
			want: []string{
				cacheConfig + `.caches[0].volume.size: Invalid value: "10Gi": must not shrink: set 20Gi or more, or remove the cache and add it again in a second update, which deletes its content`,
				cacheConfig + `.caches[0].volume.storageClassName: Invalid value: "slow": is immutable: leave it "fast", or remove the cache and add it again in a second update, which deletes its content`,
			},
		},
		"a smaller volume while disabled": {
			old:   newShoot(with("registry-cache", large), disabled),
			shoot: newShoot(with("registry-cache", small)),
		},
		"a pool without containerd": {
			old:   newShoot(with("registry-cache", wrong), worker("a", "docker")),
			shoot: newShoot(with("registry-cache", wrong), worker("b", "docker"), worker("a", "docker")),
			want:  []string{`spec.provider.workers[0].cri.name: Invalid value: "docker": ` + needsRuntime},
		},
		"the runtime of a pool": {
			old:   newShoot(with("registry-cache", wrong), worker("a", "")),
			shoot: newShoot(with("registry-cache", wrong), worker("a", "docker")),
			want:  []string{`spec.provider.workers[0].cri.name: Invalid value: "docker": ` + needsRuntime},
		},
		"the first of our extensions": {
			old:   newShoot(worker("a", "docker"), with("registry-cache", small), disabled),
			shoot: newShoot(worker("a", "docker"), with("registry-cache", small)),
			want:  []string{`spec.provider.workers[0].cri.name: Invalid value: "docker": ` + needsRuntime},
		},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			reader := &secrets{}
			g.Expect(texts(admission.NewValidator(reader).Validate(t.Context(), test.shoot, test.old))).To(HaveExactElements(test.want))
			g.Expect(reader.reads).To(ConsistOf(test.reads))
		})
	}
}

func TestTooManySecretsAreNotRead(t *testing.T) {
	g := NewWithT(t)
	config := caches
	var changes []change
	for i := range 101 {
		config += fmt.Sprintf("- {upstream: a%d.io, secretReferenceName: r%d}\n", i, i)
		changes = append(changes, resource(fmt.Sprintf("r%d", i), fmt.Sprintf("s%d", i)))
	}
	reader := &secrets{}

	problems := admission.NewValidator(reader).Validate(t.Context(), newShoot(append(changes, with("registry-cache", config))...), nil)

	g.Expect(texts(problems)).To(ConsistOf(cacheConfig + ".caches[100].secretReferenceName: Forbidden: the Shoot has caches and mirrors with 101 Secrets, at most 100 are allowed: use one for several"))
	g.Expect(reader.reads).To(BeEmpty())
}

func TestSlowSecretsAreWaitedForTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewWithT(t)
		started := time.Now()
		shoot := newShoot(with("registry-cache", caches+"- {upstream: a.io, secretReferenceName: slow}\n- {upstream: b.io, secretReferenceName: slower}"),
			with("registry-mirror", mirrors+"- {upstream: a.io, hosts: [{host: 'https://m', caBundleSecretReferenceName: slow}]}"), resource("slow", "slow"), resource("slower", "slow-too"))

		problems := admission.NewValidator(&secrets{}).Validate(t.Context(), shoot, nil)

		g.Expect(texts(problems)).To(HaveLen(3))
		g.Expect(problems[0].Error()).To(Equal(cacheConfig + `.caches[0].secretReferenceName: Internal error: the Secret "garden-dev/slow" could not be checked within 5s: try again`))
		g.Expect(time.Since(started)).To(Equal(5 * time.Second))
	})
}

func TestTheEndOfTheProgramRefusesNoShoot(t *testing.T) {
	g := NewWithT(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	shoot := newShoot(with("registry-cache", caches+"- {upstream: a.io, secretReferenceName: one}"), resource("one", "credentials"))
	g.Expect(admission.NewValidator(&secrets{}).Validate(ctx, shoot, nil)).To(BeEmpty())
}

// busy counts how many Secrets are asked for at the same time.
type busy struct {
	secrets
	now, most int
}

func (b *busy) Get(ctx context.Context, key client.ObjectKey, object client.Object, options ...client.GetOption) error {
	count := func(difference int) {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.now += difference
		b.most = max(b.most, b.now)
	}
	count(1)
	defer count(-1)
	time.Sleep(time.Second)
	return b.secrets.Get(ctx, key, object, options...)
}

func TestFewSecretsAreReadAtTheSameTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewWithT(t)
		var (
			config  strings.Builder
			changes []change
		)
		config.WriteString(caches)
		for i := range 30 {
			fmt.Fprintf(&config, "- {upstream: 'registry-%d.example.com', secretReferenceName: 'r-%d'}\n", i, i)
			changes = append(changes, resource(fmt.Sprintf("r-%d", i), fmt.Sprintf("credentials-%d", i)))
		}
		shoot := newShoot(append(changes, with("registry-cache", config.String()))...)
		reader := &busy{}
		validator := admission.NewValidator(reader)

		var group sync.WaitGroup
		for range 5 {
			group.Go(func() { g.Expect(validator.Validate(t.Context(), shoot, nil)).To(BeEmpty()) })
		}
		group.Wait()
		g.Expect(reader.reads).To(HaveLen(150))
		g.Expect(reader.most).To(Equal(50))
	})
}

// newLargeShoot returns a Shoot with many caches.
func newLargeShoot(count int) *gardencorev1beta1.Shoot {
	var config strings.Builder
	config.WriteString(caches)
	for i := range count {
		fmt.Fprintf(&config, "- {upstream: 'registry-%d.example.com', volume: {size: %dGi}}\n", i, i+1)
	}
	return newShoot(with("registry-cache", config.String()), worker("a", "containerd"), worker("b", "containerd"))
}

// newFullShoot returns a Shoot with many caches that set what can be set.
func newFullShoot(count int) *gardencorev1beta1.Shoot {
	var config strings.Builder
	config.WriteString(caches)
	for i := range count {
		fmt.Fprintf(&config, "- {upstream: 'registry-%d.example.com:5000', remoteURL: 'https://origin-%d.example.com', volume: {size: %dGi, storageClassName: fast}, "+
			"garbageCollection: {ttl: 720h}, proxy: {httpProxy: 'http://proxy:3128', httpsProxy: 'http://proxy:3128'}, http: {tls: true}, highAvailability: {enabled: true}, serviceNameSuffix: cache-%d}\n", i, i, i+1, i)
	}
	return newShoot(with("registry-cache", config.String()), worker("a", "containerd"), worker("b", "containerd"))
}

func BenchmarkValidate(b *testing.B) {
	validator := admission.NewValidator(&secrets{})
	for name, test := range map[string]struct{ shoot, old *gardencorev1beta1.Shoot }{
		"create":                   {newLargeShoot(50), nil},
		"create with all fields":   {newFullShoot(50), nil},
		"update":                   {newLargeShoot(51), newLargeShoot(50)},
		"update with all fields":   {newFullShoot(51), newFullShoot(50)},
		"update of something else": {newFullShoot(50), newFullShoot(50)},
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if problems := validator.Validate(b.Context(), test.shoot, test.old); len(problems) > 0 {
					b.Fatal(problems.ToAggregate())
				}
			}
		})
	}
}

func toJSON(g *WithT, object any) []byte {
	raw, err := json.Marshal(object)
	g.Expect(err).NotTo(HaveOccurred())
	return raw
}
