// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package resources

import (
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"strconv"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"

	v1beta1constants "github.com/gardener/gardener/pkg/apis/core/v1beta1/constants"
	resourcesv1alpha1 "github.com/gardener/gardener/pkg/apis/resources/v1alpha1"

	"github.com/gardener/gardener-extension-registry-cache/pkg/upstream"
)

const (
	containerName         = "registry-cache"
	cacheVolumeName       = "cache-volume"
	configVolumeName      = "config"
	credentialsVolumeName = "credentials"
	tlsVolumeName         = "tls"
	reportVolumeName      = "report"

	priorityClassName = "system-cluster-critical"

	// nonRootID is the user and group of the cache server, and the group of the
	// files on its volume.
	nonRootID = 65532

	// terminationGracePeriodSeconds leaves the server its shutdownDelay, then the 20
	// seconds in which it ends running transfers, and some more for the rest.
	terminationGracePeriodSeconds = 35

	// shutdownDelay is how long a pod that is to end goes on serving. With high
	// availability the nodes' kube-proxies learn in this time to ask the other pod, and no
	// pull is refused and goes past the caches. A pod that is alone is asked until its
	// readiness probe has failed twice, after 6 seconds; in the 2 that are left kube-proxies
	// learn to refuse connections at once, before there is nobody who could.
	shutdownDelay = 8 * time.Second

	annotationConfigChecksum = "checksum/config"
)

func (c Cache) statefulSet(configSecret *corev1.Secret) *appsv1.StatefulSet {
	statefulSet := &appsv1.StatefulSet{
		ObjectMeta: c.objectMeta(c.name()),
		Spec: appsv1.StatefulSetSpec{
			Replicas: ptr.To[int32](1),
			// By the default a pod that never becomes ready, for instance for an image
			// that cannot be pulled, is not replaced after its template was corrected.
			PodManagementPolicy:  appsv1.ParallelPodManagement,
			RevisionHistoryLimit: ptr.To[int32](2),
			Selector:             &metav1.LabelSelector{MatchLabels: labels(c.Config.Upstream)},
			Template:             c.podTemplate(configSecret),
			VolumeClaimTemplates: []corev1.PersistentVolumeClaim{c.volumeClaimTemplate()},
		},
	}
	// The policy cannot be changed: where it is another, of the existing extension,
	// gardener-resource-manager replaces the StatefulSet, and its pods and claims belong
	// to the new one. It does not do so for claim templates, which it leaves as they are.
	statefulSet.Annotations = map[string]string{
		resourcesv1alpha1.DeleteOnInvalidUpdate:              "true",
		resourcesv1alpha1.DeletionPropagationOnInvalidUpdate: string(metav1.DeletePropagationOrphan),
	}
	if c.highlyAvailable() {
		// Gardener's resource manager sets the replicas of what has this label,
		// and spreads their pods over nodes and zones.
		statefulSet.Labels[resourcesv1alpha1.HighAvailabilityConfigType] = resourcesv1alpha1.HighAvailabilityConfigTypeServer
	}
	return statefulSet
}

func (c Cache) podTemplate(configSecret *corev1.Secret) corev1.PodTemplateSpec {
	podLabels := labels(c.Config.Upstream)
	maps.Copy(podLabels, map[string]string{
		labelAppName:                                        AppName,
		v1beta1constants.LabelNetworkPolicyToDNS:            v1beta1constants.LabelNetworkPolicyAllowed,
		v1beta1constants.LabelNetworkPolicyToPublicNetworks: v1beta1constants.LabelNetworkPolicyAllowed,
		v1beta1constants.LabelNetworkPolicyShootToAPIServer: v1beta1constants.LabelNetworkPolicyAllowed,
	})
	return corev1.PodTemplateSpec{
		ObjectMeta: metav1.ObjectMeta{
			Labels:      podLabels,
			Annotations: map[string]string{annotationConfigChecksum: checksum(configSecret.Data[configKey])},
		},
		Spec: corev1.PodSpec{
			ServiceAccountName:            c.name(),
			AutomountServiceAccountToken:  ptr.To(false), // it is in a volume of its own
			EnableServiceLinks:            ptr.To(false),
			PriorityClassName:             priorityClassName,
			TerminationGracePeriodSeconds: ptr.To[int64](terminationGracePeriodSeconds),
			SecurityContext: &corev1.PodSecurityContext{
				RunAsNonRoot: ptr.To(true),
				RunAsUser:    ptr.To[int64](nonRootID),
				RunAsGroup:   ptr.To[int64](nonRootID),
				FSGroup:      ptr.To[int64](nonRootID),
				// A walk over a large cache at each start would keep it from serving.
				FSGroupChangePolicy: ptr.To(corev1.FSGroupChangeOnRootMismatch),
				SeccompProfile:      &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
			},
			Containers: []corev1.Container{c.container()},
			Volumes:    c.volumes(configSecret.Name),
		},
	}
}

func (c Cache) container() corev1.Container {
	return corev1.Container{
		Name:            containerName,
		Image:           c.Image,
		ImagePullPolicy: corev1.PullIfNotPresent,
		Args:            []string{"--config=" + configDir + "/" + configKey},
		Env:             c.environment(),
		Ports: []corev1.ContainerPort{
			{Name: serverPortName, ContainerPort: serverPort, Protocol: corev1.ProtocolTCP},
			{Name: debugPortName, ContainerPort: debugPort, Protocol: corev1.ProtocolTCP},
		},
		Resources: corev1.ResourceRequirements{
			Requests: corev1.ResourceList{
				corev1.ResourceCPU:    resource.MustParse("20m"),
				corev1.ResourceMemory: resource.MustParse("50Mi"),
			},
		},
		LivenessProbe:  probe(6, 20),
		ReadinessProbe: probe(2, 3),
		SecurityContext: &corev1.SecurityContext{
			AllowPrivilegeEscalation: ptr.To(false),
			ReadOnlyRootFilesystem:   ptr.To(true),
			Capabilities:             &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
		},
		VolumeMounts: c.volumeMounts(),
	}
}

// environment names the proxies, as Go's net/http expects them.
func (c Cache) environment() []corev1.EnvVar {
	var env []corev1.EnvVar
	if proxy := c.Config.Proxy; proxy != nil {
		if proxy.HTTPProxy != nil {
			env = append(env, corev1.EnvVar{Name: "HTTP_PROXY", Value: *proxy.HTTPProxy})
		}
		if proxy.HTTPSProxy != nil {
			env = append(env, corev1.EnvVar{Name: "HTTPS_PROXY", Value: *proxy.HTTPSProxy})
		}
	}
	return env
}

func (c Cache) volumeMounts() []corev1.VolumeMount {
	mounts := []corev1.VolumeMount{
		{Name: cacheVolumeName, MountPath: storageDir},
		{Name: configVolumeName, MountPath: configDir, ReadOnly: true},
		{Name: reportVolumeName, MountPath: reportDir, ReadOnly: true},
	}
	if c.Credentials != nil {
		mounts = append(mounts, corev1.VolumeMount{Name: credentialsVolumeName, MountPath: credentialsDir, ReadOnly: true})
	}
	if c.Certificate != nil {
		mounts = append(mounts, corev1.VolumeMount{Name: tlsVolumeName, MountPath: tlsDir, ReadOnly: true})
	}
	return mounts
}

func (c Cache) volumes(configSecretName string) []corev1.Volume {
	volumes := []corev1.Volume{secretVolume(configVolumeName, configSecretName), reportVolume()}
	if c.Credentials != nil {
		volumes = append(volumes, secretVolume(credentialsVolumeName, c.credentialsSecret().Name))
	}
	if c.Certificate != nil {
		volumes = append(volumes, secretVolume(tlsVolumeName, c.tlsSecret().Name))
	}
	return volumes
}

func (c Cache) volumeClaimTemplate() corev1.PersistentVolumeClaim {
	return corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Name: cacheVolumeName, Labels: labels(c.Config.Upstream)},
		Spec: corev1.PersistentVolumeClaimSpec{
			AccessModes:      []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			StorageClassName: c.Config.Volume.StorageClassName,
			Resources: corev1.VolumeResourceRequirements{
				Requests: corev1.ResourceList{corev1.ResourceStorage: *c.Config.Volume.Size},
			},
		},
	}
}

// ClaimName returns the name of the PersistentVolumeClaim of one of the pods of a
// cache.
func ClaimName(upstreamHost string, ordinal int32) string {
	return cacheVolumeName + "-" + upstream.ResourceName(upstreamHost) + "-" + strconv.Itoa(int(ordinal))
}

// IsClaimOf says whether a PersistentVolumeClaim in Namespace is that of one of the
// pods of a cache, by its name.
func IsClaimOf(upstreamHost, claimName string) bool {
	ordinal, found := strings.CutPrefix(claimName, cacheVolumeName+"-"+upstream.ResourceName(upstreamHost)+"-")
	if !found {
		return false
	}
	_, err := strconv.ParseUint(ordinal, 10, 31)
	return err == nil
}

// PodOfClaim returns the name of the pod to which a claim of that name belongs.
func PodOfClaim(claimName string) string {
	return strings.TrimPrefix(claimName, cacheVolumeName+"-")
}

func secretVolume(name, secretName string) corev1.Volume {
	return corev1.Volume{
		Name: name,
		VolumeSource: corev1.VolumeSource{
			Secret: &corev1.SecretVolumeSource{SecretName: secretName, DefaultMode: ptr.To[int32](0o440)},
		},
	}
}

func probe(failureThreshold, periodSeconds int32) *corev1.Probe {
	return &corev1.Probe{
		ProbeHandler: corev1.ProbeHandler{
			HTTPGet: &corev1.HTTPGetAction{Path: "/debug/health", Port: intstr.FromString(debugPortName)},
		},
		FailureThreshold: failureThreshold,
		PeriodSeconds:    periodSeconds,
		TimeoutSeconds:   5,
	}
}

func checksum(data []byte) string {
	hash := sha256.Sum256(data)
	return hex.EncodeToString(hash[:])
}
