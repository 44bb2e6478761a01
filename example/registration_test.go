// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package example_test

import (
	"bytes"
	"strings"
	"testing"

	gardencorev1 "github.com/gardener/gardener/pkg/apis/core/v1"
	gardencorev1beta1 "github.com/gardener/gardener/pkg/apis/core/v1beta1"
	operatorv1alpha1 "github.com/gardener/gardener/pkg/apis/operator/v1alpha1"
	. "github.com/onsi/gomega"
	"helm.sh/helm/v4/pkg/chart/v2/loader"
	"k8s.io/utils/ptr"

	"github.com/gardener/gardener-extension-registry-cache/charts"
	mirrorv1alpha1 "github.com/gardener/gardener-extension-registry-cache/pkg/apis/mirror/v1alpha1"
	"github.com/gardener/gardener-extension-registry-cache/pkg/apis/registry/v1alpha3"
)

// Whether a garden takes them is tested in test/integration/admission.

func TestControllerRegistrationHasTheChart(t *testing.T) {
	g := NewWithT(t)
	documents := bytes.Split(read(g, "controller-registration.yaml"), []byte("\n---\n"))
	g.Expect(documents).To(HaveLen(2))
	deployment, registration := &gardencorev1.ControllerDeployment{}, &gardencorev1beta1.ControllerRegistration{}
	unmarshal(g, documents[0], deployment)
	unmarshal(g, documents[1], registration)

	archive, err := charts.Archive(charts.Controller)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(deployment.Helm.RawChart).To(Equal(archive), "make generate")
	g.Expect(registration.Spec.Deployment.DeploymentRefs).To(ConsistOf(HaveField("Name", deployment.Name)))
	g.Expect(typesOf(registration.Spec.Resources)).To(ConsistOf(v1alpha3.ExtensionType, mirrorv1alpha1.ExtensionType))
}

func TestOperatorExtensionHasTheCharts(t *testing.T) {
	g := NewWithT(t)
	extension := &operatorv1alpha1.Extension{}
	unmarshal(g, read(g, "operator-extension.yaml"), extension)

	g.Expect(typesOf(extension.Spec.Resources)).To(ConsistOf(v1alpha3.ExtensionType, mirrorv1alpha1.ExtensionType))
	deployment := extension.Spec.Deployment
	for chart, repository := range map[string]*gardencorev1.OCIRepository{
		charts.Controller:           deployment.ExtensionDeployment.Helm.OCIRepository,
		charts.AdmissionRuntime:     deployment.AdmissionDeployment.RuntimeCluster.Helm.OCIRepository,
		charts.AdmissionApplication: deployment.AdmissionDeployment.VirtualCluster.Helm.OCIRepository,
	} {
		archive, err := charts.Archive(chart)
		g.Expect(err).NotTo(HaveOccurred())
		loaded, err := loader.LoadArchive(bytes.NewReader(archive))
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(repository.Ref).To(HaveValue(HaveSuffix("/" + loaded.Name() + ":" + loaded.Metadata.Version)))
		image, _ := loaded.Values["image"].(map[string]any)
		if repositoryOfImage, ok := image["repository"].(string); ok {
			folder, _, _ := strings.Cut(*repository.Ref, "/charts/")
			g.Expect(repositoryOfImage).To(HavePrefix(folder+"/"), "images and charts are pushed to the same place")
		}
	}
}

// typesOf returns the types of Extensions which only Shoots use, those without workers
// among them.
func typesOf(resources []gardencorev1beta1.ControllerResource) []string {
	var types []string
	for _, resource := range resources {
		if resource.Kind == "Extension" && len(resource.ClusterCompatibility) == 1 && resource.ClusterCompatibility[0] == gardencorev1beta1.ClusterTypeShoot &&
			ptr.Deref(resource.WorkerlessSupported, false) {
			types = append(types, resource.Type)
		}
	}
	return types
}
