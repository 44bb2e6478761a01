// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"
	"time"

	"github.com/Masterminds/semver/v3"
	nodeagentconfigv1alpha1 "github.com/gardener/gardener/pkg/apis/config/nodeagent/v1alpha1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	componentbaseconfigv1alpha1 "k8s.io/component-base/config/v1alpha1"
	kubeproxyconfigv1alpha1 "k8s.io/kube-proxy/config/v1alpha1"
	kubeletconfigv1beta1 "k8s.io/kubelet/config/v1beta1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/yaml"
)

// PauseImage is the image of the containers that hold a pod's namespaces. A
// registry has to have it before the first pod.
const PauseImage = "registry.k8s.io/pause:3.10"

const (
	kubeletConfigFile   = "/var/lib/kubelet.yaml"
	kubeletKubeconfig   = "/var/lib/kubelet.kubeconfig"
	kubeProxyConfigFile = "/var/lib/kube-proxy.yaml"
	adminKubeconfig     = "/var/lib/admin.kubeconfig"
	clusterCA           = "/var/lib/cluster-ca.crt"
	// trustedRoots is where programs in Go look for certificate authorities.
	trustedRoots = "/etc/ssl/certs/ca-certificates.crt"
)

// nodeUnits are those of nodeTemplates that are started at boot.
var nodeUnits = []string{"containerd.service", "kubelet.service", "kube-proxy.service", "gardener-node-agent.service"}

// nodeTemplates are files of the node that are the same on every machine.
//
//go:embed node
var nodeTemplates embed.FS

// nodeFiles returns the files that make the node one of the Shoot's, by their
// paths on it.
func (c *Cluster) nodeFiles(ctx context.Context) (map[string][]byte, error) {
	contents := map[string][]byte{
		"/etc/hostname":    []byte(NodeName + "\n"),
		"/etc/fstab":       nil,
		"/etc/machine-id":  nil, // systemd makes one
		"/etc/resolv.conf": []byte("nameserver " + hostAddress + "\n"),
		clusterCA:          c.Shoot.ca.CertificatePEM,
		adminKubeconfig:    c.Shoot.Kubeconfig,

		nodeagentconfigv1alpha1.MachineNameFilePath: []byte(NodeName),
	}
	err := fs.WalkDir(nodeTemplates, "node", func(name string, entry fs.DirEntry, err error) error {
		if err == nil && !entry.IsDir() {
			contents[strings.TrimPrefix(name, "node")], err = nodeTemplates.ReadFile(name)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read files of the node: %w", err)
	}
	kubelet, err := c.Shoot.clientCertificate("system:node:"+NodeName, "system:nodes")
	if err != nil {
		return nil, fmt.Errorf("generate certificate of the kubelet: %w", err)
	}
	if contents[kubeletKubeconfig], err = c.Shoot.kubeconfig(kubelet); err != nil {
		return nil, err
	}
	roots, err := os.ReadFile(trustedRoots)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("read trusted certificate authorities: %w", err)
	}
	contents[trustedRoots] = append(roots, c.Internet.CA...)

	nodeAgentFile, nodeAgent, err := c.nodeAgentConfiguration(ctx)
	if err != nil {
		return nil, err
	}
	for file, object := range map[string]any{
		kubeletConfigFile:   kubeletConfiguration(),
		kubeProxyConfigFile: kubeProxyConfiguration(),
		nodeAgentFile:       nodeAgent,
	} {
		if contents[file], err = yaml.Marshal(object); err != nil {
			return nil, fmt.Errorf("marshal %s: %w", file, err)
		}
	}
	return contents, nil
}

func kubeletConfiguration() *kubeletconfigv1beta1.KubeletConfiguration {
	return &kubeletconfigv1beta1.KubeletConfiguration{
		TypeMeta:                 metav1.TypeMeta{APIVersion: kubeletconfigv1beta1.SchemeGroupVersion.String(), Kind: "KubeletConfiguration"},
		ContainerRuntimeEndpoint: "unix:///run/containerd/containerd.sock",
		Authentication: kubeletconfigv1beta1.KubeletAuthentication{
			X509:      kubeletconfigv1beta1.KubeletX509Authentication{ClientCAFile: clusterCA},
			Webhook:   kubeletconfigv1beta1.KubeletWebhookAuthentication{Enabled: ptr.To(false)},
			Anonymous: kubeletconfigv1beta1.KubeletAnonymousAuthentication{Enabled: ptr.To(false)},
		},
		Authorization: kubeletconfigv1beta1.KubeletAuthorization{Mode: kubeletconfigv1beta1.KubeletAuthorizationModeAlwaysAllow},
		// Without a DNS server of the cluster, pods ask the node's.
		ResolverConfig: ptr.To("/etc/resolv.conf"),
		CgroupDriver:   "cgroupfs",
		FailCgroupV1:   ptr.To(false),
		FailSwapOn:     ptr.To(false),
		// Without the capability CAP_SYS_RESOURCE it cannot be lowered.
		OOMScoreAdj: ptr.To[int32](0),
		// How full the machine is must not matter.
		EvictionHard:                map[string]string{"memory.available": "50Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
		ImageGCHighThresholdPercent: ptr.To[int32](100),
		// Tests look at what is recorded of each pull.
		EventRecordQPS: ptr.To[int32](0),
		// Pods see a change of a Secret the next time that the kubelet looks at them,
		// which on other nodes is up to one and a half minutes later.
		SyncFrequency: metav1.Duration{Duration: 5 * time.Second},
		// A node that reports often is known to be Ready soon.
		NodeStatusUpdateFrequency: metav1.Duration{Duration: 2 * time.Second},
	}
}

func kubeProxyConfiguration() *kubeproxyconfigv1alpha1.KubeProxyConfiguration {
	return &kubeproxyconfigv1alpha1.KubeProxyConfiguration{
		TypeMeta:         metav1.TypeMeta{APIVersion: kubeproxyconfigv1alpha1.SchemeGroupVersion.String(), Kind: "KubeProxyConfiguration"},
		Mode:             "nftables",
		ClientConnection: componentbaseconfigv1alpha1.ClientConnectionConfiguration{Kubeconfig: adminKubeconfig},
		ClusterCIDR:      podNetwork,
		HostnameOverride: NodeName,
		BindAddress:      "0.0.0.0",
		OOMScoreAdj:      ptr.To[int32](0),
		// Limits of the whole machine stay as they are.
		Conntrack: kubeproxyconfigv1alpha1.KubeProxyConntrackConfiguration{
			MaxPerCore: ptr.To[int32](0), Min: ptr.To[int32](0),
			TCPEstablishedTimeout: &metav1.Duration{}, TCPCloseWaitTimeout: &metav1.Duration{},
		},
	}
}

// nodeAgentConfiguration also returns the file's path, which has a version.
func (c *Cluster) nodeAgentConfiguration(ctx context.Context) (string, *nodeagentconfigv1alpha1.NodeAgentConfiguration, error) {
	nodeAgentVersion, err := versionOf(ctx, c.binaries["gardener-node-agent"])
	if err != nil {
		return "", nil, err
	}
	kubeletVersion, err := versionOf(ctx, c.binaries["kubelet"])
	if err != nil {
		return "", nil, err
	}
	kubernetesVersion, err := semver.NewVersion(kubeletVersion)
	if err != nil {
		return "", nil, fmt.Errorf("parse the kubelet's version %q: %w", kubeletVersion, err)
	}
	return path.Join(nodeagentconfigv1alpha1.BaseDir, "config-"+nodeAgentVersion+".yaml"), &nodeagentconfigv1alpha1.NodeAgentConfiguration{
		TypeMeta:         metav1.TypeMeta{APIVersion: nodeagentconfigv1alpha1.SchemeGroupVersion.String(), Kind: "NodeAgentConfiguration"},
		ClientConnection: componentbaseconfigv1alpha1.ClientConnectionConfiguration{Kubeconfig: adminKubeconfig, QPS: 100, Burst: 130},
		LogLevel:         "info",
		LogFormat:        "text",
		Server: nodeagentconfigv1alpha1.ServerConfiguration{
			HealthProbes: &nodeagentconfigv1alpha1.Server{Port: 2751},
			Metrics:      &nodeagentconfigv1alpha1.Server{Port: 2752},
		},
		APIServer: nodeagentconfigv1alpha1.APIServer{Server: c.Shoot.URL(), CAFile: clusterCA},
		Controllers: nodeagentconfigv1alpha1.ControllerConfiguration{
			OperatingSystemConfig: nodeagentconfigv1alpha1.OperatingSystemConfigControllerConfig{
				SecretName:        OperatingSystemConfigSecret,
				KubernetesVersion: kubernetesVersion,
				SyncPeriod:        &metav1.Duration{Duration: time.Minute},
			},
			Token: nodeagentconfigv1alpha1.TokenControllerConfig{SyncPeriod: &metav1.Duration{Duration: time.Hour}},
		},
	}, nil
}

// versionOf returns the version that a binary of Kubernetes or Gardener prints.
func versionOf(ctx context.Context, binary string) (string, error) {
	output, err := run(ctx, binary, "--version")
	if err != nil {
		return "", fmt.Errorf("find out a version: %w", err)
	}
	words := strings.Fields(output)
	if len(words) == 0 {
		return "", fmt.Errorf("%s prints no version", binary)
	}
	return words[len(words)-1], nil
}
