// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/klog/v2"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/sig-storage-lib-external-provisioner/v13/controller"
)

const (
	provisionerName = "cluster.test/folder"
	// volumesDir is where the volumes are on the node.
	volumesDir = "/var/lib/volumes"
)

// provisioner makes a volume of each claim when it comes: a folder on the node. A
// volume's size is not enforced.
type provisioner struct {
	node *Node
}

// startProvisioner creates the default StorageClass and makes its volumes.
func (c *Cluster) startProvisioner(ctx context.Context, shoot client.Client) error {
	class := &storagev1.StorageClass{
		ObjectMeta: metav1.ObjectMeta{
			Name:        "default",
			Annotations: map[string]string{"storageclass.kubernetes.io/is-default-class": "true"},
		},
		Provisioner: provisionerName,
	}
	if err := shoot.Create(ctx, class); err != nil {
		return fmt.Errorf("create StorageClass: %w", err)
	}
	clientset, err := kubernetes.NewForConfig(c.Shoot.Config)
	if err != nil {
		return fmt.Errorf("create client of the provisioner: %w", err)
	}
	// It lives as long as the cluster, not as long as its start.
	running := klog.NewContext(context.WithoutCancel(ctx), logr.Discard())
	go controller.NewProvisionController(running, clientset, provisionerName, &provisioner{node: c.Node},
		controller.LeaderElection(false)).Run(running)
	c.progress("volumes are made on demand")
	return nil
}

// Provision implements controller.Provisioner.
func (p *provisioner) Provision(_ context.Context, options controller.ProvisionOptions) (*corev1.PersistentVolume, controller.ProvisioningState, error) {
	path := filepath.Join(volumesDir, options.PVName)
	if err := os.MkdirAll(p.node.volume(options.PVName), 0o750); err != nil {
		return nil, controller.ProvisioningFinished, fmt.Errorf("create folder of the volume: %w", err)
	}
	claim := options.PVC.Spec
	return &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: options.PVName},
		Spec: corev1.PersistentVolumeSpec{
			PersistentVolumeReclaimPolicy: ptr.Deref(options.StorageClass.ReclaimPolicy, corev1.PersistentVolumeReclaimDelete),
			AccessModes:                   claim.AccessModes,
			Capacity:                      corev1.ResourceList{corev1.ResourceStorage: claim.Resources.Requests[corev1.ResourceStorage]},
			// Not a hostPath, whose owner a kubelet does not set.
			PersistentVolumeSource: corev1.PersistentVolumeSource{Local: &corev1.LocalVolumeSource{Path: path}},
			NodeAffinity: &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{
				MatchExpressions: []corev1.NodeSelectorRequirement{{Key: corev1.LabelHostname, Operator: corev1.NodeSelectorOpIn, Values: []string{NodeName}}},
			}}}},
		},
	}, controller.ProvisioningFinished, nil
}

// Delete implements controller.Provisioner.
func (p *provisioner) Delete(_ context.Context, volume *corev1.PersistentVolume) error {
	if err := os.RemoveAll(p.node.volume(volume.Name)); err != nil {
		return fmt.Errorf("remove folder of the volume: %w", err)
	}
	return nil
}
