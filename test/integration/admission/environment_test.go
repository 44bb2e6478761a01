// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package admission_test

import (
	"context"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"k8s.io/client-go/rest"
	clientcmdv1 "k8s.io/client-go/tools/clientcmd/api/v1"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
	"sigs.k8s.io/yaml"

	"github.com/gardener/gardener-extension-registry-cache/test/charts"
	"github.com/gardener/gardener-extension-registry-cache/test/gardener"
	"github.com/gardener/gardener-extension-registry-cache/test/process"
	"github.com/gardener/gardener-extension-registry-cache/test/rights"
)

// gardenUser and runtimeUser are whom our admission is for each cluster: the
// ServiceAccounts of gardener-operator and of the chart.
var (
	gardenUser  = rights.ServiceAccount("kube-system", "extension-admission-registry-cache")
	runtimeUser = rights.ServiceAccount("garden", "gardener-extension-admission-registry-cache")
)

// runtimeChart and gardenChart are installed as gardener-operator does it, with
// the heartbeat.
var (
	runtimeChart = charts.AdmissionRuntime(withHeartbeat(charts.OperatorRuntimeValues()))
	gardenChart  = charts.AdmissionApplication(charts.OperatorApplicationValues())
)

func withHeartbeat(values charts.Values) charts.Values {
	values["heartbeat"] = charts.Values{"enabled": true}
	return values
}

// controlPlane is a kube-apiserver with its etcd.
type controlPlane struct {
	*envtest.Environment
	name  string
	log   *os.File
	audit *rights.Log
}

// newControlPlane returns a control plane that is not started yet and gets a folder
// below dir.
func newControlPlane(name, dir string, arguments map[string]string) (*controlPlane, error) {
	log, err := process.CreateLog(dir, name)
	if err != nil {
		return nil, err
	}
	dir = filepath.Join(dir, name)
	etcd, server := &envtest.Etcd{DataDir: filepath.Join(dir, "etcd")}, &envtest.APIServer{CertDir: filepath.Join(dir, "certs")}
	for _, folder := range []string{etcd.DataDir, server.CertDir} {
		if err := os.MkdirAll(folder, 0o700); err != nil {
			return nil, fmt.Errorf("create folder of the %s cluster: %w", name, err)
		}
	}
	audit, auditArguments, err := rights.NewLog(dir)
	if err != nil {
		return nil, err
	}
	maps.Copy(auditArguments, arguments)
	for argument, value := range auditArguments {
		server.Configure().Set(argument, value)
	}
	for binary, path := range map[string]*string{"etcd": &etcd.Path, "kube-apiserver": &server.Path} {
		if *path, err = process.FindBinary(binary); err != nil {
			return nil, err
		}
		if *path, err = endingWithTheTest(*path, dir); err != nil {
			return nil, err
		}
	}
	etcd.Err, server.Err = log, log
	environment := &envtest.Environment{ControlPlane: envtest.ControlPlane{APIServer: server, Etcd: etcd}, ControlPlaneStartTimeout: time.Minute}
	return &controlPlane{environment, name, log, audit}, nil
}

func (p *controlPlane) start() error {
	if _, err := p.Start(); err != nil {
		return fmt.Errorf("start control plane of the %s cluster: %w\n%s", p.name, err, process.Tail(p.log.Name()))
	}
	return nil
}

func (p *controlPlane) stop() error {
	defer func() { _ = p.log.Close() }()
	return p.Stop()
}

// endingWithTheTest returns a script in dir that becomes a binary, which ends when
// the test does, whatever that dies of.
func endingWithTheTest(binary, dir string) (string, error) {
	script := filepath.Join(dir, filepath.Base(binary)+".sh")
	content := fmt.Sprintf("#!/bin/sh\nexec setpriv --pdeathsig KILL -- '%s' \"$@\"\n", binary)
	if err := os.WriteFile(script, []byte(content), 0o700); err != nil {
		return "", fmt.Errorf("write start script of %s: %w", binary, err)
	}
	return script, nil
}

// gardenProxy is between our admission and the garden's API server, as whose user
// it speaks. It knows what was asked for, and can be slow.
type gardenProxy struct {
	*httptest.Server
	mu       sync.Mutex
	requests []string
	delay    time.Duration
}

func newGardenProxy(config *rest.Config) (*gardenProxy, error) {
	transport, err := rest.TransportFor(config)
	if err != nil {
		return nil, fmt.Errorf("connect to the garden: %w", err)
	}
	target, err := url.Parse(config.Host)
	if err != nil {
		return nil, fmt.Errorf("parse the garden's address: %w", err)
	}
	forward := &httputil.ReverseProxy{Transport: transport, Rewrite: func(request *httputil.ProxyRequest) { request.SetURL(target) }}
	proxy := &gardenProxy{}
	proxy.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		proxy.mu.Lock()
		proxy.requests = append(proxy.requests, r.Method+" "+r.URL.RequestURI())
		delay := proxy.delay
		proxy.mu.Unlock()
		if strings.Contains(r.URL.Path, "/secrets/") {
			select {
			case <-time.After(delay):
			case <-r.Context().Done():
				return
			}
		}
		forward.ServeHTTP(w, r)
	}))
	return proxy, nil
}

// slowSecrets makes each Secret take that long.
func (p *gardenProxy) slowSecrets(delay time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.delay = delay
}

// seen returns the requests whose text contains one of the given.
func (p *gardenProxy) seen(texts ...string) []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var found []string
	for _, request := range p.requests {
		for _, text := range texts {
			if strings.Contains(request, text) {
				found = append(found, request)
				break
			}
		}
	}
	return found
}

// kubeconfig returns one for a server that asks for no credentials.
func (p *gardenProxy) kubeconfig() ([]byte, error) {
	return yaml.Marshal(clientcmdv1.Config{
		APIVersion: "v1", Kind: "Config", CurrentContext: "garden",
		Clusters: []clientcmdv1.NamedCluster{{Name: "garden", Cluster: clientcmdv1.Cluster{Server: p.URL}}},
		Contexts: []clientcmdv1.NamedContext{{Name: "garden", Context: clientcmdv1.Context{Cluster: "garden"}}},
	})
}

// kubectl runs the real kubectl as an administrator of a cluster.
type kubectl struct {
	binary, kubeconfig, cache string
}

func newKubectl(name, dir string, kubeconfig []byte) (*kubectl, error) {
	binary, err := process.FindBinary("kubectl")
	if err != nil {
		return nil, err
	}
	k := &kubectl{binary: binary, kubeconfig: filepath.Join(dir, name+".kubeconfig"), cache: filepath.Join(dir, name+"-cache")}
	if err := os.WriteFile(k.kubeconfig, kubeconfig, 0o600); err != nil {
		return nil, fmt.Errorf("write kubeconfig: %w", err)
	}
	return k, nil
}

// run returns what kubectl says when something is wrong.
func (k *kubectl) run(ctx context.Context, stdin string, arguments ...string) (stderr string, err error) {
	cmd := exec.CommandContext(ctx, k.binary, append([]string{"--kubeconfig", k.kubeconfig, "--cache-dir", k.cache}, arguments...)...)
	var problem strings.Builder
	cmd.Stdin, cmd.Stderr = strings.NewReader(stdin), &problem
	err = cmd.Run()
	return problem.String(), err
}

// admissionProcess is our admission, which can be ended and started anew.
type admissionProcess struct {
	*process.Process
	webhookURL string
}

// startAdmission runs the binary as its Deployment in the runtime cluster does, with
// the arguments of the chart. Its files get a folder below dir.
func startAdmission(ctx context.Context, binary, dir, gardenKubeconfig, runtimeKubeconfig string, webhookPort int) (*admissionProcess, error) {
	ports, err := process.FreePorts(1)
	if err != nil {
		return nil, err
	}
	health := net.JoinHostPort("127.0.0.1", strconv.Itoa(ports[0]))
	deployment, err := runtimeChart.Deployment()
	if err != nil {
		return nil, err
	}
	// Of an argument that is given twice the second one counts.
	arguments := append(deployment.Spec.Template.Spec.Containers[0].Args,
		gardener.AdmissionArguments(gardenKubeconfig, runtimeKubeconfig, "garden", webhookPort, filepath.Join(dir, "webhook"), health)[1:]...)
	p, err := process.New(process.Options{
		Name: "admission", Binary: binary, LogDir: dir, ReadyURL: "http://" + health + "/readyz", Args: arguments,
	})
	if err != nil {
		return nil, err
	}
	return &admissionProcess{p, fmt.Sprintf("https://127.0.0.1:%d/webhooks/registry-cache", webhookPort)}, p.Start(ctx)
}

// memory returns a figure of the process' memory in KiB, by its name in /proc.
func (a *admissionProcess) memory(name string) (int, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", a.PID()))
	if err != nil {
		return 0, fmt.Errorf("read memory of admission: %w", err)
	}
	for line := range strings.Lines(string(status)) {
		if fields := strings.Fields(line); len(fields) > 1 && fields[0] == name+":" {
			return strconv.Atoi(fields[1])
		}
	}
	return 0, fmt.Errorf("no %s of admission", name)
}
