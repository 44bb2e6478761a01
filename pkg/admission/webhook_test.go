// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package admission_test

import (
	"testing"
	"time"

	. "github.com/onsi/gomega"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/manager"

	extensionswebhook "github.com/gardener/gardener/extensions/pkg/webhook"

	"github.com/gardener/gardener-extension-registry-cache/pkg/admission"
)

type fakeManager struct{ manager.Manager }

func (fakeManager) GetAPIReader() client.Reader { return &secrets{} }

func TestEachShootGoesToOneWebhook(t *testing.T) {
	const cacheLabel, mirrorLabel = "extensions.extensions.gardener.cloud/registry-cache", "extensions.extensions.gardener.cloud/registry-mirror"
	for name, test := range map[string]struct {
		labels labels.Set
		want   []string
	}{
		"none":    {labels.Set{"extensions.extensions.gardener.cloud/shoot-dns-service": "true"}, nil},
		"caches":  {labels.Set{cacheLabel: "true"}, []string{"registry-cache"}},
		"mirrors": {labels.Set{mirrorLabel: "true"}, []string{"registry-mirror"}},
		"both":    {labels.Set{cacheLabel: "true", mirrorLabel: "true"}, []string{"registry-cache"}},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			var selected []string
			for _, newWebhook := range []func(manager.Manager) (*extensionswebhook.Webhook, error){admission.NewCacheWebhook, admission.NewMirrorWebhook} {
				webhook, err := newWebhook(fakeManager{})
				g.Expect(err).NotTo(HaveOccurred())
				selector, err := metav1.LabelSelectorAsSelector(webhook.ObjectSelector)
				g.Expect(err).NotTo(HaveOccurred())
				if selector.Matches(test.labels) {
					selected = append(selected, webhook.Name)
				}
				g.Expect(webhook.FailurePolicy).To(HaveValue(Equal(admissionregistrationv1.Fail)))
				g.Expect(time.Duration(*webhook.TimeoutSeconds) * time.Second).To(And(BeNumerically(">", 5*time.Second), BeNumerically("<=", 10*time.Second)))
			}
			g.Expect(selected).To(Equal(test.want))
		})
	}
}
