// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package controller_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/go-logr/logr"
	. "github.com/onsi/gomega"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/gardener/gardener/extensions/pkg/controller/extension"
	v1beta1helper "github.com/gardener/gardener/pkg/api/core/v1beta1/helper"
	gardencorev1beta1 "github.com/gardener/gardener/pkg/apis/core/v1beta1"
	extensionsv1alpha1 "github.com/gardener/gardener/pkg/apis/extensions/v1alpha1"

	"github.com/gardener/gardener-extension-registry-cache/pkg/controller"
)

func TestMirrorsAreChecked(t *testing.T) {
	const path = "spec.providerConfig.mirrors[0].hosts[1].caBundleSecretReferenceName"
	bundle, err := os.ReadFile(filepath.Join("..", "hosts", "testdata", "bundle.crt"))
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	valid := mirrorConfig(`{"host":"https://a.io"},{"host":"https://b.io","caBundleSecretReferenceName":"ca"}`)

	for name, test := range map[string]struct {
		config  string
		secrets map[string]string
		want    []string
	}{
		"without a bundle": {mirrorConfig(`{"host":"https://a.io"}`), nil, nil},
		// Not immutable: as when the original was deleted and created anew.
		"with a bundle": {valid, map[string]string{"ref-ca-v1": string(bundle)}, nil},

		"empty":         {"", nil, []string{"spec.providerConfig: configuration is empty"}},
		"unknown field": {mirrorConfig(`{"url":"https://a.io"}`), nil, []string{`spec.providerConfig: decode MirrorConfig: mirrors[0].hosts[0].url: Forbidden: unknown field: expected one of host`}},
		"invalid hosts": {mirrorConfig(`{"host":"a.io"},{"host":"https://b.io/../c"}`), nil, []string{
			`spec.providerConfig.mirrors[0].hosts[0].host: Invalid value: "a.io": must start with http`,
			`spec.providerConfig.mirrors[0].hosts[1].host: Invalid value: "https://b.io/../c": must not have`,
		}},
		"no entry": {
			mirrorConfig(`{"host":"https://a.io"},{"host":"https://b.io","caBundleSecretReferenceName":"absent"}`), nil,
			[]string{path + `: Not found: "absent": spec.resources of the Shoot has no entry of this name`},
		},
		"no Secret":           {valid, nil, []string{path + `: Secret "ca-v1" does not exist`}},
		"Secret of no Shoot":  {valid, map[string]string{"ca-v1": string(bundle)}, []string{path + `: Secret "ca-v1" does not exist`}},
		"Secret without keys": {valid, map[string]string{"ref-ca-v1": ""}, []string{path + `: Invalid value: "ca": the referenced Secret "ca-v1" has the key "bundle.crt" without a certificate`}},
		"all Secrets": {
			mirrorConfig(`{"host":"https://a.io","caBundleSecretReferenceName":"other"},{"host":"https://b.io","caBundleSecretReferenceName":"ca"}`),
			map[string]string{"ref-ca-v1": "s3cret"},
			[]string{`spec.providerConfig.mirrors[0].hosts[0].caBundleSecretReferenceName: Secret "other-v1" does not exist`, path + `: Invalid value: "ca"`},
		},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			actuator := newMirrorActuator(t, test.secrets, interceptor.Funcs{})
			for _, err := range []error{
				actuator.Reconcile(t.Context(), logr.Discard(), mirrorExtension(test.config)),
				actuator.Restore(t.Context(), logr.Discard(), mirrorExtension(test.config)),
			} {
				if test.want == nil {
					g.Expect(err).NotTo(HaveOccurred())
					continue
				}
				for _, want := range test.want {
					g.Expect(err).To(MatchError(ContainSubstring(want)))
				}
				g.Expect(err).NotTo(MatchError(ContainSubstring("s3cret")))
				g.Expect(v1beta1helper.ExtractErrorCodes(err)).To(ConsistOf(gardencorev1beta1.ErrorConfigurationProblem))
			}
		})
	}
}

func TestMirrorsOfAHibernatedShootAreNotChecked(t *testing.T) {
	g := NewWithT(t)
	c := newSeed(g, func(shoot *gardencorev1beta1.Shoot) {
		shoot.Spec.Hibernation = &gardencorev1beta1.Hibernation{Enabled: ptr.To(true)}
		shoot.Status.IsHibernated = true
	}, interceptor.Funcs{})
	g.Expect(controller.NewMirrorActuator(c).Reconcile(t.Context(), logr.Discard(), mirrorExtension(""))).To(Succeed())
}

func TestMirrorsOfAWorkerlessShootAreNotChecked(t *testing.T) {
	g := NewWithT(t)
	c := newSeed(g, func(shoot *gardencorev1beta1.Shoot) { shoot.Spec.Provider.Workers = nil }, interceptor.Funcs{})
	g.Expect(controller.NewMirrorActuator(c).Reconcile(t.Context(), logr.Discard(), mirrorExtension(""))).To(Succeed())
}

func TestMirrorsAreNotToBlameForTheSeed(t *testing.T) {
	g := NewWithT(t)
	down := errors.New("the API server is down")
	actuator := newMirrorActuator(t, nil, interceptor.Funcs{
		Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, object client.Object, options ...client.GetOption) error {
			if _, isSecret := object.(*corev1.Secret); isSecret {
				return down
			}
			return c.Get(ctx, key, object, options...)
		},
	})
	err := actuator.Reconcile(t.Context(), logr.Discard(), mirrorExtension(mirrorConfig(`{"host":"https://b.io","caBundleSecretReferenceName":"ca"}`)))
	g.Expect(err).To(MatchError(down))
	g.Expect(v1beta1helper.ExtractErrorCodes(err)).To(BeEmpty())
}

func TestMirrorsLeaveNothingBehind(t *testing.T) {
	g := NewWithT(t)
	// Not even the Cluster is there any more.
	actuator := controller.NewMirrorActuator(nil)
	g.Expect(actuator.Delete(t.Context(), logr.Discard(), mirrorExtension(""))).To(Succeed())
	g.Expect(actuator.ForceDelete(t.Context(), logr.Discard(), mirrorExtension(""))).To(Succeed())
	g.Expect(actuator.Migrate(t.Context(), logr.Discard(), mirrorExtension(""))).To(Succeed())
}

// newMirrorActuator returns an actuator whose Shoot has the resources `ca` and
// `other`, and whose Seed holds the given CA bundles by the names of their
// Secrets. It panics if it writes.
func newMirrorActuator(t *testing.T, bundles map[string]string, funcs interceptor.Funcs) extension.Actuator {
	t.Helper()
	g := NewWithT(t)
	seed := newSeed(g, func(shoot *gardencorev1beta1.Shoot) {
		for _, name := range []string{"ca", "other"} {
			shoot.Spec.Resources = append(shoot.Spec.Resources, gardencorev1beta1.NamedResourceReference{
				Name:        name,
				ResourceRef: autoscalingv1.CrossVersionObjectReference{APIVersion: "v1", Kind: "Secret", Name: name + "-v1"},
			})
		}
	}, funcs)
	for name, bundle := range bundles {
		g.Expect(seed.Create(t.Context(), &corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
			Data:       map[string][]byte{"bundle.crt": []byte(bundle)},
		})).To(Succeed())
	}
	return controller.NewMirrorActuator(readOnly{reader: seed})
}

// readOnly is a client that only reads: the embedded one is nil, and all its
// other methods panic.
type readOnly struct {
	client.Client
	reader client.Reader
}

func (r readOnly) Get(ctx context.Context, key client.ObjectKey, object client.Object, options ...client.GetOption) error {
	return r.reader.Get(ctx, key, object, options...)
}

// mirrorConfig returns a configuration of one upstream with the given hosts.
func mirrorConfig(hosts string) string {
	return `{"apiVersion":"mirror.extensions.gardener.cloud/v1alpha1","kind":"MirrorConfig","mirrors":[{"upstream":"docker.io","hosts":[` + hosts + `]}]}`
}

func mirrorExtension(config string) *extensionsv1alpha1.Extension {
	ex := &extensionsv1alpha1.Extension{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "registry-mirror"},
		Spec:       extensionsv1alpha1.ExtensionSpec{DefaultSpec: extensionsv1alpha1.DefaultSpec{Type: "registry-mirror"}},
	}
	if config != "" {
		ex.Spec.ProviderConfig = &runtime.RawExtension{Raw: []byte(config)}
	}
	return ex
}
