// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package gardener

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"time"

	gardencorev1beta1 "github.com/gardener/gardener/pkg/apis/core/v1beta1"
	v1beta1constants "github.com/gardener/gardener/pkg/apis/core/v1beta1/constants"
	operationsv1alpha1 "github.com/gardener/gardener/pkg/apis/operations/v1alpha1"
	securityv1alpha1 "github.com/gardener/gardener/pkg/apis/security/v1alpha1"
	seedmanagementv1alpha1 "github.com/gardener/gardener/pkg/apis/seedmanagement/v1alpha1"
	"github.com/gardener/gardener/pkg/utils/secrets"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/gardener/gardener-extension-registry-cache/test/process"
)

// apiServerName names the process and its Service.
const apiServerName = "gardener-apiserver"

// AggregationArguments are what a kube-apiserver needs to pass requests on to
// gardener-apiserver. Their files get a folder below dir.
func AggregationArguments(dir string) (map[string]string, error) {
	ca, err := (&secrets.CertificateSecretConfig{CommonName: "front-proxy-ca", CertType: secrets.CACert}).GenerateCertificate()
	if err != nil {
		return nil, fmt.Errorf("generate CA of the front proxy: %w", err)
	}
	proxy, err := (&secrets.CertificateSecretConfig{CommonName: "front-proxy", CertType: secrets.ClientCert, SigningCA: ca}).GenerateCertificate()
	if err != nil {
		return nil, fmt.Errorf("generate certificate of the front proxy: %w", err)
	}
	dir = filepath.Join(dir, "front-proxy")
	if err := writeFiles(dir, map[string][]byte{"ca.crt": ca.CertificatePEM, "tls.crt": proxy.CertificatePEM, "tls.key": proxy.PrivateKeyPEM}); err != nil {
		return nil, err
	}
	return map[string]string{
		"requestheader-client-ca-file":       filepath.Join(dir, "ca.crt"),
		"requestheader-allowed-names":        "front-proxy",
		"requestheader-username-headers":     "X-Remote-User",
		"requestheader-group-headers":        "X-Remote-Group",
		"requestheader-extra-headers-prefix": "X-Remote-Extra-",
		"proxy-client-cert-file":             filepath.Join(dir, "tls.crt"),
		"proxy-client-key-file":              filepath.Join(dir, "tls.key"),
	}, nil
}

// APIServer is a gardener-apiserver beside a kube-apiserver: together they are
// the API of a garden.
type APIServer struct {
	*process.Process
	port int
}

// NewAPIServer returns a gardener-apiserver that is not started yet. The
// kubeconfig is of the kube-apiserver, etcd is the URL of the etcd of both. Its
// files get a folder below dir.
func NewAPIServer(binary, dir, logs string, kubeconfig []byte, etcd string) (*APIServer, error) {
	certificate, err := (&secrets.CertificateSecretConfig{CommonName: "localhost", DNSNames: []string{"localhost"}, CertType: secrets.ServerCert}).GenerateCertificate()
	if err != nil {
		return nil, fmt.Errorf("generate certificate of %s: %w", apiServerName, err)
	}
	dir = filepath.Join(dir, apiServerName)
	if err := writeFiles(dir, map[string][]byte{"kubeconfig": kubeconfig, "tls.crt": certificate.CertificatePEM, "tls.key": certificate.PrivateKeyPEM}); err != nil {
		return nil, err
	}
	ports, err := process.FreePorts(1)
	if err != nil {
		return nil, err
	}
	kubeconfigFile := filepath.Join(dir, "kubeconfig")
	server, err := process.New(process.Options{
		Name:   apiServerName,
		Binary: binary,
		Args: []string{
			"--bind-address=127.0.0.1", fmt.Sprintf("--secure-port=%d", ports[0]),
			"--etcd-servers=" + etcd,
			"--kubeconfig=" + kubeconfigFile, "--authentication-kubeconfig=" + kubeconfigFile, "--authorization-kubeconfig=" + kubeconfigFile,
			"--cluster-identity=test-garden",
			"--tls-cert-file=" + filepath.Join(dir, "tls.crt"), "--tls-private-key-file=" + filepath.Join(dir, "tls.key"),
			"--log-level=info", "--log-format=text",
		},
		LogDir:   logs,
		ReadyURL: fmt.Sprintf("https://127.0.0.1:%d/readyz", ports[0]),
	})
	return &APIServer{server, ports[0]}, err
}

// Register makes the kube-apiserver serve the APIs of a garden, and waits until it
// does.
func (s *APIServer) Register(ctx context.Context, c client.Client) error {
	objects := []client.Object{
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: v1beta1constants.GardenNamespace}},
		// A name, for addresses of endpoints may not be of the loopback network.
		&corev1.Service{
			ObjectMeta: metav1.ObjectMeta{Namespace: v1beta1constants.GardenNamespace, Name: apiServerName},
			Spec:       corev1.ServiceSpec{Type: corev1.ServiceTypeExternalName, ExternalName: "localhost"},
		},
	}
	var services []*unstructured.Unstructured
	for _, version := range []schema.GroupVersion{
		{Group: gardencorev1beta1.GroupName, Version: "v1"},
		gardencorev1beta1.SchemeGroupVersion,
		securityv1alpha1.SchemeGroupVersion, seedmanagementv1alpha1.SchemeGroupVersion, operationsv1alpha1.SchemeGroupVersion,
	} {
		services = append(services, s.apiService(version))
		objects = append(objects, services[len(services)-1])
	}
	for _, object := range objects {
		if err := c.Create(ctx, object); err != nil {
			return fmt.Errorf("create %T %s: %w", object, client.ObjectKeyFromObject(object), err)
		}
	}
	for _, service := range services {
		if err := awaitAvailable(ctx, c, service); err != nil {
			return fmt.Errorf("wait for API %s, last seen %v: %w", service.GetName(), service.Object["status"], err)
		}
	}
	return nil
}

// apiService is unstructured because that saves the requirement of its module.
func (s *APIServer) apiService(version schema.GroupVersion) *unstructured.Unstructured {
	service := &unstructured.Unstructured{Object: map[string]any{"spec": map[string]any{
		"group": version.Group, "version": version.Version,
		"groupPriorityMinimum": int64(9999), "versionPriority": int64(20),
		"service":               map[string]any{"namespace": v1beta1constants.GardenNamespace, "name": apiServerName, "port": int64(s.port)},
		"insecureSkipTLSVerify": true,
	}}}
	service.SetAPIVersion("apiregistration.k8s.io/v1")
	service.SetKind("APIService")
	service.SetName(version.Version + "." + version.Group)
	return service
}

func awaitAvailable(ctx context.Context, c client.Client, service *unstructured.Unstructured) error {
	return wait.PollUntilContextTimeout(ctx, pollInterval, time.Minute, true, func(ctx context.Context) (bool, error) {
		if err := c.Get(ctx, client.ObjectKeyFromObject(service), service); err != nil {
			return false, err
		}
		conditions, _, err := unstructured.NestedSlice(service.Object, "status", "conditions")
		return slices.ContainsFunc(conditions, func(condition any) bool {
			fields, _ := condition.(map[string]any)
			return fields["type"] == "Available" && fields["status"] == "True"
		}), err
	})
}

// AdmissionArguments are the arguments of the extension's admission component
// when it runs as its Deployment in the runtime cluster has it, except that the
// API servers reach the webhook by its address. certDir is a folder for the
// webhook's certificate.
func AdmissionArguments(gardenKubeconfig, runtimeKubeconfig, namespace string, webhookPort int, certDir, healthAddress string) []string {
	return []string{
		"admission",
		"--kubeconfig=" + gardenKubeconfig,
		"--runtime-kubeconfig=" + runtimeKubeconfig,
		"--leader-election-namespace=" + namespace,
		"--heartbeat-namespace=" + namespace,
		"--webhook-config-namespace=" + namespace,
		"--webhook-config-mode=url",
		"--webhook-config-url=" + net.JoinHostPort("127.0.0.1", fmt.Sprint(webhookPort)),
		"--webhook-config-server-host=127.0.0.1",
		fmt.Sprintf("--webhook-config-server-port=%d", webhookPort),
		"--webhook-config-cert-dir=" + certDir,
		"--metrics-bind-address=127.0.0.1:0",
		"--health-bind-address=" + healthAddress,
		"--log-level=info", "--log-format=text",
	}
}

func writeFiles(dir string, files map[string][]byte) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("create folder: %w", err)
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			return fmt.Errorf("write file: %w", err)
		}
	}
	return nil
}
