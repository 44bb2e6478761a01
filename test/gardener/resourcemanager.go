// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package gardener

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	resourcemanagerconfigv1alpha1 "github.com/gardener/gardener/pkg/apis/config/resourcemanager/v1alpha1"
	resourcesv1alpha1 "github.com/gardener/gardener/pkg/apis/resources/v1alpha1"
	"github.com/gardener/gardener/pkg/controllerutils"
	"github.com/gardener/gardener/pkg/resourcemanager/webhook/highavailabilityconfig"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/cert"
	componentbaseconfigv1alpha1 "k8s.io/component-base/config/v1alpha1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/gardener/gardener-extension-registry-cache/test/process"
)

// syncPeriod is how often all is looked at anew where no event tells of a
// change: the shortest period that gardener-resource-manager accepts.
const syncPeriod = 15 * time.Second

// ResourceManager is a gardener-resource-manager.
type ResourceManager struct {
	*process.Process
	// webhooks is the URL of its webhooks, authorities are the certificates, in PEM, by
	// which to know it.
	webhooks    string
	authorities []byte
}

// NewResourceManager returns the process that brings ManagedResources from the
// Seed to the Shoot, whose kubeconfigs it is given. Its files get a folder below
// dir. What tune changes of its configuration is for tests that a Shoot's
// gardener-resource-manager is not made for.
func NewResourceManager(
	binary, dir, logs string, seed, shoot []byte, tune ...func(*resourcemanagerconfigv1alpha1.ResourceManagerConfiguration),
) (*ResourceManager, error) {
	const name = "gardener-resource-manager"
	dir = filepath.Join(dir, name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("create folder of %s: %w", name, err)
	}
	ports, err := process.FreePorts(3)
	if err != nil {
		return nil, err
	}
	configuration := resourceManagerConfiguration(dir, ports[0], ports[1], ports[2])
	for _, change := range tune {
		change(configuration)
	}
	config, err := yaml.Marshal(configuration)
	if err != nil {
		return nil, fmt.Errorf("marshal configuration of %s: %w", name, err)
	}
	certificate, key, err := cert.GenerateSelfSignedCertKey("localhost", nil, nil)
	if err != nil {
		return nil, fmt.Errorf("generate certificate of %s: %w", name, err)
	}
	for file, content := range map[string][]byte{"config.yaml": config, "tls.crt": certificate, "tls.key": key, "seed": seed, "shoot": shoot} {
		if err := os.WriteFile(filepath.Join(dir, file), content, 0o600); err != nil {
			return nil, fmt.Errorf("write %s of %s: %w", file, name, err)
		}
	}
	manager, err := process.New(process.Options{
		Name:     name,
		Binary:   binary,
		Args:     []string{"--config", filepath.Join(dir, "config.yaml")},
		LogDir:   logs,
		ReadyURL: fmt.Sprintf("http://127.0.0.1:%d/readyz", ports[1]),
	})
	if err != nil {
		return nil, err
	}
	return &ResourceManager{Process: manager, webhooks: fmt.Sprintf("https://localhost:%d", ports[0]), authorities: certificate}, nil
}

// ConfigureHighAvailability has the Shoot's API server ask the ResourceManager, which
// runs, how many replicas a highly available Deployment or StatefulSet in kube-system
// gets, and how they are spread over nodes, as gardenlet does.
func (m *ResourceManager) ConfigureHighAvailability(ctx context.Context, shoot client.Client) error {
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: metav1.NamespaceSystem}}
	if _, err := controllerutils.GetAndCreateOrMergePatch(ctx, shoot, namespace, func() error {
		metav1.SetMetaDataLabel(&namespace.ObjectMeta, resourcesv1alpha1.HighAvailabilityConfigConsider, "true")
		return nil
	}); err != nil {
		return fmt.Errorf("label namespace %s of the Shoot: %w", namespace.Name, err)
	}
	webhooks := &admissionregistrationv1.MutatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: "gardener-resource-manager-shoot"},
		// As gardenlet's, of pkg/component/gardener/resourcemanager, whose imports are many.
		Webhooks: []admissionregistrationv1.MutatingWebhook{{
			Name: "high-availability-config.resources.gardener.cloud",
			Rules: []admissionregistrationv1.RuleWithOperations{{
				Operations: []admissionregistrationv1.OperationType{admissionregistrationv1.Create, admissionregistrationv1.Update},
				Rule: admissionregistrationv1.Rule{
					APIGroups: []string{appsv1.GroupName}, APIVersions: []string{"v1"}, Resources: []string{"deployments", "statefulsets"},
				},
			}},
			NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{resourcesv1alpha1.HighAvailabilityConfigConsider: "true"}},
			ObjectSelector: &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{
				{Key: resourcesv1alpha1.HighAvailabilityConfigSkip, Operator: metav1.LabelSelectorOpDoesNotExist},
			}},
			ClientConfig: admissionregistrationv1.WebhookClientConfig{
				URL: ptr.To(m.webhooks + highavailabilityconfig.WebhookPath), CABundle: m.authorities,
			},
			AdmissionReviewVersions: []string{"v1"},
			FailurePolicy:           ptr.To(admissionregistrationv1.Fail),
			MatchPolicy:             ptr.To(admissionregistrationv1.Equivalent),
			SideEffects:             ptr.To(admissionregistrationv1.SideEffectClassNone),
			TimeoutSeconds:          ptr.To(int32(10)),
		}},
	}
	if err := shoot.Create(ctx, webhooks); err != nil {
		return fmt.Errorf("create MutatingWebhookConfiguration %s of the Shoot: %w", webhooks.Name, err)
	}
	return nil
}

// resourceManagerConfiguration is what Gardener configures for the
// gardener-resource-manager of a Shoot, as far as it concerns ManagedResources:
// no class is set, so that it takes those without one.
func resourceManagerConfiguration(dir string, webhooks, health, metrics int) *resourcemanagerconfigv1alpha1.ResourceManagerConfiguration {
	no, often := false, &metav1.Duration{Duration: syncPeriod}
	server := func(port int) resourcemanagerconfigv1alpha1.Server {
		return resourcemanagerconfigv1alpha1.Server{BindAddress: "127.0.0.1", Port: port}
	}
	healthServer, metricsServer := server(health), server(metrics)
	connection := func(kubeconfig string) resourcemanagerconfigv1alpha1.ClientConnection {
		return resourcemanagerconfigv1alpha1.ClientConnection{ClientConnectionConfiguration: componentbaseconfigv1alpha1.ClientConnectionConfiguration{
			Kubeconfig: filepath.Join(dir, kubeconfig),
		}}
	}
	target := connection("shoot")
	return &resourcemanagerconfigv1alpha1.ResourceManagerConfiguration{
		TypeMeta: metav1.TypeMeta{
			APIVersion: resourcemanagerconfigv1alpha1.SchemeGroupVersion.String(),
			Kind:       "ResourceManagerConfiguration",
		},
		SourceClientConnection: connection("seed"),
		TargetClientConnection: &target,
		LeaderElection:         componentbaseconfigv1alpha1.LeaderElectionConfiguration{LeaderElect: &no},
		Server: resourcemanagerconfigv1alpha1.ServerConfiguration{
			Webhooks:     resourcemanagerconfigv1alpha1.HTTPSServer{Server: server(webhooks), TLS: resourcemanagerconfigv1alpha1.TLSServer{ServerCertDir: dir}},
			HealthProbes: &healthServer,
			Metrics:      &metricsServer,
		},
		LogLevel:  "info",
		LogFormat: "text",
		Webhooks: resourcemanagerconfigv1alpha1.ResourceManagerWebhookConfiguration{
			HighAvailabilityConfig: resourcemanagerconfigv1alpha1.HighAvailabilityConfigWebhookConfig{Enabled: true},
		},
		Controllers: resourcemanagerconfigv1alpha1.ResourceManagerControllerConfiguration{
			GarbageCollector: resourcemanagerconfigv1alpha1.GarbageCollectorControllerConfig{Enabled: true},
			Health:           resourcemanagerconfigv1alpha1.HealthControllerConfig{SyncPeriod: often},
			ManagedResource:  resourcemanagerconfigv1alpha1.ManagedResourceControllerConfig{SyncPeriod: often},
		},
	}
}
