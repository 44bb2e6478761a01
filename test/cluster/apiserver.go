// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/gardener/gardener/pkg/utils/secrets"
	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	"github.com/gardener/gardener-extension-registry-cache/test/gardener"
	"github.com/gardener/gardener-extension-registry-cache/test/process"
)

const etcdURL = "http://127.0.0.1:2379"

// APIServer is a running kube-apiserver. Several share one etcd, each with keys
// of its own.
type APIServer struct {
	// Config, Kubeconfig and KubeconfigFile are each an administrator's access.
	Config         *rest.Config
	Kubeconfig     []byte
	KubeconfigFile string

	name string
	// crds are the kinds of clusters whose CRDs of Gardener it gets.
	crds []string
	// aggregation is what it is told about the API servers behind it, if there are any.
	aggregation           []string
	port                  int
	services              string
	dir                   string
	ca                    *secrets.Certificate
	caFile                string
	serviceAccountKeyFile string
}

// newAPIServer returns an API server that is not started yet, with the CRDs of
// Gardener of the given kinds of clusters.
func newAPIServer(name string, port int, services string, crds ...string) *APIServer {
	return &APIServer{name: name, port: port, services: services, crds: crds}
}

// URL is the API server's URL, also from the node.
func (s *APIServer) URL() string {
	return "https://" + net.JoinHostPort(hostAddress, strconv.Itoa(s.port))
}

// CA is the certificate authority of the API server's certificate and of its clients'.
func (s *APIServer) CA() *secrets.Certificate { return s.ca }

func (c *Cluster) startAPIServer(ctx context.Context, server *APIServer) error {
	server.dir = filepath.Join(c.Dir, server.name)
	if err := os.MkdirAll(server.dir, 0o750); err != nil {
		return fmt.Errorf("create folder of the %s: %w", server.name, err)
	}
	if err := server.writeCredentials(); err != nil {
		return fmt.Errorf("credentials of the %s: %w", server.name, err)
	}
	if err := c.startProcess(ctx, process.Options{
		Name: server.name + "-kube-apiserver", Binary: c.binaries["kube-apiserver"],
		ReadyURL: server.URL() + "/readyz", Args: server.arguments(),
	}); err != nil {
		return err
	}
	var crds []string
	for _, kind := range server.crds {
		files, err := gardener.DefinitionFiles(ctx, kind)
		if err != nil {
			return err
		}
		crds = append(crds, files...)
	}
	if len(crds) == 0 {
		return nil
	}
	if _, err := envtest.InstallCRDs(server.Config, envtest.CRDInstallOptions{Paths: crds, ErrorIfPathMissing: true, MaxTime: time.Minute}); err != nil {
		return fmt.Errorf("install CRDs into the %s: %w", server.name, err)
	}
	return nil
}

func (s *APIServer) arguments() []string {
	return append([]string{
		"--etcd-servers=" + etcdURL, "--etcd-prefix=/" + s.name,
		"--bind-address=" + hostAddress, "--advertise-address=" + hostAddress, "--secure-port=" + strconv.Itoa(s.port),
		"--tls-cert-file=" + s.file("server.crt"), "--tls-private-key-file=" + s.file("server.key"), "--client-ca-file=" + s.caFile,
		"--service-cluster-ip-range=" + s.services,
		"--service-account-key-file=" + s.file("service-account.pub"), "--service-account-signing-key-file=" + s.serviceAccountKeyFile,
		"--service-account-issuer=https://kubernetes.default.svc",
		"--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction",
		// As those of Gardener, for pods that debug a node.
		"--allow-privileged=true",
		"--kubelet-client-certificate=" + s.file("admin.crt"), "--kubelet-client-key=" + s.file("admin.key"),
		// The name server does not know the nodes' names.
		"--kubelet-preferred-address-types=InternalIP",
	}, s.aggregation...)
}

func (s *APIServer) file(name string) string { return filepath.Join(s.dir, name) }

// writeCredentials makes a certificate authority, and all certificates that the
// API server and its administrator need.
func (s *APIServer) writeCredentials() error {
	ca, err := (&secrets.CertificateSecretConfig{Name: "ca", CommonName: s.name + "-ca", CertType: secrets.CACert}).GenerateCertificate()
	if err != nil {
		return fmt.Errorf("generate certificate authority: %w", err)
	}
	s.ca, s.caFile, s.serviceAccountKeyFile = ca, s.file("ca.crt"), s.file("service-account.key")

	// In parallel, for a key takes a while.
	var server, admin, serviceAccount *secrets.Certificate
	group := errgroup.Group{}
	group.Go(func() (err error) {
		server, err = (&secrets.CertificateSecretConfig{
			Name: "server", CommonName: "kube-apiserver", CertType: secrets.ServerCert, SigningCA: ca,
			DNSNames:    []string{"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"},
			IPAddresses: []net.IP{net.ParseIP("127.0.0.1"), net.ParseIP(hostAddress), firstAddress(s.services)},
		}).GenerateCertificate()
		return err
	})
	group.Go(func() (err error) {
		admin, err = s.clientCertificate("admin", "system:masters")
		return err
	})
	group.Go(func() (err error) {
		serviceAccount, err = (&secrets.CertificateSecretConfig{Name: "service-account", CommonName: "service-account", CertType: secrets.CACert}).GenerateCertificate()
		return err
	})
	if err := group.Wait(); err != nil {
		return fmt.Errorf("generate certificate: %w", err)
	}
	publicKey, err := x509.MarshalPKIXPublicKey(serviceAccount.PrivateKey.Public())
	if err != nil {
		return fmt.Errorf("marshal public key: %w", err)
	}
	if s.Kubeconfig, err = s.kubeconfig(admin); err != nil {
		return err
	}
	if s.Config, err = clientcmd.RESTConfigFromKubeConfig(s.Kubeconfig); err != nil {
		return fmt.Errorf("read kubeconfig: %w", err)
	}
	s.Config.QPS, s.Config.Burst = 100, 200
	s.KubeconfigFile = s.file("kubeconfig")
	return writeFiles(map[string][]byte{
		s.caFile:            ca.CertificatePEM,
		s.KubeconfigFile:    s.Kubeconfig,
		s.file("admin.crt"): admin.CertificatePEM, s.file("admin.key"): admin.PrivateKeyPEM,
		s.file("server.crt"): server.CertificatePEM, s.file("server.key"): server.PrivateKeyPEM,
		s.serviceAccountKeyFile:       serviceAccount.PrivateKeyPEM,
		s.file("service-account.pub"): pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: publicKey}),
	})
}

// clientCertificate returns a certificate of a user in a group.
func (s *APIServer) clientCertificate(user, group string) (*secrets.Certificate, error) {
	return (&secrets.CertificateSecretConfig{
		Name: user, CommonName: user, Organization: []string{group}, CertType: secrets.ClientCert, SigningCA: s.ca,
	}).GenerateCertificate()
}

// kubeconfig returns the kubeconfig of the owner of a client certificate.
func (s *APIServer) kubeconfig(certificate *secrets.Certificate) ([]byte, error) {
	const name = "default"
	content, err := clientcmd.Write(clientcmdapi.Config{
		Clusters:       map[string]*clientcmdapi.Cluster{name: {Server: s.URL(), CertificateAuthorityData: s.ca.CertificatePEM}},
		AuthInfos:      map[string]*clientcmdapi.AuthInfo{name: {ClientCertificateData: certificate.CertificatePEM, ClientKeyData: certificate.PrivateKeyPEM}},
		Contexts:       map[string]*clientcmdapi.Context{name: {Cluster: name, AuthInfo: name}},
		CurrentContext: name,
	})
	if err != nil {
		return nil, fmt.Errorf("marshal kubeconfig: %w", err)
	}
	return content, nil
}

// firstAddress returns the first address of a network, which the Service of the
// API server gets.
func firstAddress(network string) net.IP {
	ip, _, err := net.ParseCIDR(network)
	if err != nil {
		panic(err) // a constant of this package
	}
	ip = ip.To4()
	ip[3]++
	return ip
}

// writeFiles writes files whose folders exist, for root only.
func writeFiles(contents map[string][]byte) error {
	var errs []error
	for path, content := range contents {
		errs = append(errs, os.WriteFile(path, content, 0o600))
	}
	return errors.Join(errs...)
}
