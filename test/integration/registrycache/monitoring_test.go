// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package registrycache_test

import (
	"context"
	"errors"
	"time"

	"github.com/go-logr/logr"
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	monitoringv1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	monitoringv1alpha1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1alpha1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	gardencorev1beta1 "github.com/gardener/gardener/pkg/apis/core/v1beta1"
	v1beta1constants "github.com/gardener/gardener/pkg/apis/core/v1beta1/constants"
	"github.com/gardener/gardener/pkg/client/kubernetes"

	"github.com/gardener/gardener-extension-registry-cache/pkg/controller"
	"github.com/gardener/gardener-extension-registry-cache/pkg/imagevector"
)

var _ = Describe("Monitoring", func() {
	It("comes with the caches and goes with them", func(ctx SpecContext) {
		namespace := newShoot(ctx)
		reconcile(ctx, namespace, cache{"upstream": "docker.io"}, cache{"upstream": "ghcr.io", "serviceNameSuffix": "github"})

		scrapeConfig, rule, dashboards := monitoringObjects(ctx, namespace)
		Expect(scrapeConfig.Labels).To(HaveKeyWithValue("prometheus", "shoot"))
		Expect(scrapeConfig.Spec.RelabelConfigs).To(ContainElement(HaveField("Regex", "(registry-docker-io|registry-github);debug")))
		Expect(rule.Labels).To(HaveKeyWithValue("prometheus", "shoot"))
		Expect(alertsOf(rule, "RegistryCacheDown")).To(Equal([]string{"docker.io", "ghcr.io"}))
		Expect(dashboards.Labels).To(HaveKeyWithValue("dashboard.monitoring.gardener.cloud/shoot", "true"))
		Expect(dashboards.Data).To(HaveKeyWithValue("registry-cache-dashboard.json", ContainSubstring("registry_proxy_hits_total")))

		By("changing what somebody else changed back, and following the configuration")
		rule.Spec.Groups = nil
		rule.Labels["prometheus"] = "nobody"
		rule.Labels["kept"] = "yes"
		Expect(seed.Update(ctx, rule)).To(Succeed())
		reconcile(ctx, namespace, cache{"upstream": "docker.io"})
		_, rule, _ = monitoringObjects(ctx, namespace)
		Expect(rule.Labels).To(And(HaveKeyWithValue("prometheus", "shoot"), HaveKeyWithValue("kept", "yes")))
		Expect(alertsOf(rule, "RegistryCacheDown")).To(Equal([]string{"docker.io"}))

		By("deleting the Extension")
		deleteExtension(ctx, namespace)
		expectNoMonitoring(ctx, namespace)
	}, SpecTimeout(2*time.Minute))

	It("is not for Shoots that are for testing", func(ctx SpecContext) {
		namespace := newShoot(ctx)
		setPurpose := func(purpose gardencorev1beta1.ShootPurpose) {
			updateShoot(ctx, namespace, func(shoot *gardencorev1beta1.Shoot) { shoot.Spec.Purpose = ptr.To(purpose) })
			// A reconcile of before may still be under way, and its end taken for ours.
			for range 2 {
				reconcile(ctx, namespace, cache{"upstream": "docker.io"})
				awaitQuiet(ctx, namespace)
			}
		}
		setPurpose(gardencorev1beta1.ShootPurposeTesting)
		expectNoMonitoring(ctx, namespace)

		setPurpose(gardencorev1beta1.ShootPurposeProduction)
		monitoringObjects(ctx, namespace)

		setPurpose(gardencorev1beta1.ShootPurposeTesting)
		expectNoMonitoring(ctx, namespace)
	}, SpecTimeout(2*time.Minute))

	It("stays as it is while the Shoot is hibernated", func(ctx SpecContext) {
		namespace := newShoot(ctx)
		reconcile(ctx, namespace, cache{"upstream": "docker.io"})
		before := monitoringVersions(ctx, namespace)
		hibernate(ctx, namespace, cache{"upstream": "docker.io"})
		reconcile(ctx, namespace, cache{"upstream": "docker.io"}, cache{"upstream": "ghcr.io"})
		Expect(monitoringVersions(ctx, namespace)).To(Equal(before))
	}, SpecTimeout(2*time.Minute))

	It("goes when the Shoot is migrated to another Seed", func(ctx SpecContext) {
		namespace := newShoot(ctx)
		reconcile(ctx, namespace, cache{"upstream": "docker.io"})
		monitoringObjects(ctx, namespace)
		extension := getExtension(ctx, namespace)
		annotate(ctx, extension, v1beta1constants.GardenerOperationMigrate)
		awaitExtension(ctx, extension, gardencorev1beta1.LastOperationStateSucceeded)
		expectNoMonitoring(ctx, namespace)

		By("bringing the Shoot back, so that its caches go with the Extension")
		deleteExtension(ctx, namespace)
		reconcile(ctx, namespace, cache{"upstream": "docker.io"})
		monitoringObjects(ctx, namespace)
	}, SpecTimeout(2*time.Minute))

	DescribeTable("that cannot be written stops no reconciliation", func(ctx SpecContext, problem error) {
		namespace := newShoot(ctx)
		reconcile(ctx, namespace, cache{"upstream": "docker.io"})
		extension := getExtension(ctx, namespace)
		base, err := client.NewWithWatch(environment.Seed, client.Options{Scheme: kubernetes.SeedScheme})
		Expect(err).NotTo(HaveOccurred())
		faulty := interceptor.NewClient(base, interceptor.Funcs{
			Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, object client.Object, options ...client.GetOption) error {
				if isForPrometheus(object) {
					return problem
				}
				return c.Get(ctx, key, object, options...)
			},
			Delete: func(ctx context.Context, c client.WithWatch, object client.Object, options ...client.DeleteOption) error {
				if isForPrometheus(object) && meta.IsNoMatchError(problem) {
					return problem
				}
				return c.Delete(ctx, object, options...)
			},
		})
		images, err := imagevector.Read()
		Expect(err).NotTo(HaveOccurred())
		actuator := controller.NewCacheActuator(faulty, seed, controller.ShootClient, clock.RealClock{}, images)

		extension.Spec.ProviderConfig.Raw = registryConfig([]cache{{"upstream": "docker.io"}, {"upstream": "ghcr.io"}})
		Expect(actuator.Reconcile(ctx, logr.Discard(), extension)).To(Succeed())
		Expect(statusOf(ctx, namespace).Caches).To(HaveLen(2))
		Expect(actuator.Delete(ctx, logr.Discard(), extension)).To(Succeed())
		Expect(apierrors.IsNotFound(seed.Get(ctx, client.ObjectKey{Namespace: namespace, Name: "registry-cache-dashboards"}, &corev1.ConfigMap{}))).To(BeTrue())
	},
		Entry("for there are no CRDs", &meta.NoKindMatchError{}, SpecTimeout(2*time.Minute)),
		Entry("for the Seed's API server fails", errors.New("no"), SpecTimeout(2*time.Minute)),
	)
})

func isForPrometheus(object client.Object) bool {
	switch object.(type) {
	case *monitoringv1.PrometheusRule, *monitoringv1alpha1.ScrapeConfig:
		return true
	default:
		return false
	}
}

func monitoringObjects(ctx context.Context, namespace string) (*monitoringv1alpha1.ScrapeConfig, *monitoringv1.PrometheusRule, *corev1.ConfigMap) {
	GinkgoHelper()
	scrapeConfig, rule, dashboards := &monitoringv1alpha1.ScrapeConfig{}, &monitoringv1.PrometheusRule{}, &corev1.ConfigMap{}
	Expect(seed.Get(ctx, client.ObjectKey{Namespace: namespace, Name: "shoot-registry-cache"}, scrapeConfig)).To(Succeed())
	Expect(seed.Get(ctx, client.ObjectKey{Namespace: namespace, Name: "shoot-registry-cache"}, rule)).To(Succeed())
	Expect(seed.Get(ctx, client.ObjectKey{Namespace: namespace, Name: "registry-cache-dashboards"}, dashboards)).To(Succeed())
	return scrapeConfig, rule, dashboards
}

func monitoringVersions(ctx context.Context, namespace string) []string {
	GinkgoHelper()
	scrapeConfig, rule, dashboards := monitoringObjects(ctx, namespace)
	return []string{scrapeConfig.ResourceVersion, rule.ResourceVersion, dashboards.ResourceVersion}
}

func expectNoMonitoring(ctx context.Context, namespace string) {
	GinkgoHelper()
	for _, list := range []client.ObjectList{&monitoringv1alpha1.ScrapeConfigList{}, &monitoringv1.PrometheusRuleList{}} {
		Expect(seed.List(ctx, list, client.InNamespace(namespace))).To(Succeed())
		Expect(meta.LenList(list)).To(BeZero())
	}
	Expect(apierrors.IsNotFound(seed.Get(ctx, client.ObjectKey{Namespace: namespace, Name: "registry-cache-dashboards"}, &corev1.ConfigMap{}))).To(BeTrue())
}

// alertsOf returns the caches of the alerts of a name.
func alertsOf(rule *monitoringv1.PrometheusRule, name string) []string {
	var caches []string
	for _, group := range rule.Spec.Groups {
		for _, rule := range group.Rules {
			if rule.Alert == name {
				caches = append(caches, rule.Labels["upstream_host"])
			}
		}
	}
	return caches
}
