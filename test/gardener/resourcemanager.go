// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package gardener

import (
	"fmt"
	"os"
	"path/filepath"
	"time"

	resourcemanagerconfigv1alpha1 "github.com/gardener/gardener/pkg/apis/config/resourcemanager/v1alpha1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/cert"
	componentbaseconfigv1alpha1 "k8s.io/component-base/config/v1alpha1"
	"sigs.k8s.io/yaml"

	"github.com/gardener/gardener-extension-registry-cache/test/process"
)

// syncPeriod is how often all is looked at anew where no event tells of a
// change: the shortest period that gardener-resource-manager accepts.
const syncPeriod = 15 * time.Second

// NewResourceManager returns the process that brings ManagedResources from the
// Seed to the Shoot, whose kubeconfigs it is given. Its files get a folder below
// dir. What tune changes of its configuration is for tests that a Shoot's
// gardener-resource-manager is not made for.
func NewResourceManager(
	binary, dir, logs string, seed, shoot []byte, tune ...func(*resourcemanagerconfigv1alpha1.ResourceManagerConfiguration),
) (*process.Process, error) {
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
	return process.New(process.Options{
		Name:     name,
		Binary:   binary,
		Args:     []string{"--config", filepath.Join(dir, "config.yaml")},
		LogDir:   logs,
		ReadyURL: fmt.Sprintf("http://127.0.0.1:%d/readyz", ports[1]),
	})
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
		Controllers: resourcemanagerconfigv1alpha1.ResourceManagerControllerConfiguration{
			GarbageCollector: resourcemanagerconfigv1alpha1.GarbageCollectorControllerConfig{Enabled: true},
			Health:           resourcemanagerconfigv1alpha1.HealthControllerConfig{SyncPeriod: often},
			ManagedResource:  resourcemanagerconfigv1alpha1.ManagedResourceControllerConfig{SyncPeriod: often},
		},
	}
}
