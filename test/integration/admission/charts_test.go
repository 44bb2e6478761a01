// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package admission_test

import (
	"context"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	"github.com/gardener/gardener-extension-registry-cache/test/charts"
	"github.com/gardener/gardener-extension-registry-cache/test/rights"
)

// unmet are the rights that are needed though no spec uses them, with the reason.
var unmet = map[string]string{
	"delete secrets in garden": "of the certificates of the webhooks old ones are deleted once they have been renewed, which takes weeks",
}

// installCharts creates all that the charts have, in clusters without controllers.
func installCharts(ctx context.Context) {
	GinkgoHelper()
	Expect(runtimeCluster.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "garden"}})).To(Succeed())
	for _, installed := range []struct {
		release charts.Release
		cluster client.Client
	}{{runtimeChart, runtimeCluster}, {gardenChart, garden}} {
		objects, err := installed.release.Objects()
		Expect(err).NotTo(HaveOccurred())
		Expect(charts.Create(ctx, installed.cluster, objects)).To(Succeed())
	}
}

var _ = Describe("Charts", func() {
	for name, release := range charts.Releases() {
		if !strings.HasPrefix(name, "admission-") {
			continue
		}
		It("are accepted: "+name, func(ctx SpecContext) {
			cluster := runtimeCluster
			if strings.HasPrefix(name, "admission-application") {
				cluster = garden
			}
			Expect(charts.DryRun(ctx, cluster, release)).To(Succeed())
		})
	}

	It("are in the Extension for gardener-operator, which the runtime cluster accepts", func(ctx SpecContext) {
		apply(ctx, operator, filepath.Join(examples, "operator-extension.yaml"))
	})
})

// All specs have been at work by then, and the clusters are still there.
var _ = AfterSuite(func() {
	var unused []string
	for _, installed := range []struct {
		release charts.Release
		plane   *controlPlane
		user    envtest.User
	}{{runtimeChart, runtimePlane, runtimeUser}, {gardenChart, gardenPlane, gardenUser}} {
		requests, err := installed.plane.audit.Requests(installed.user)
		Expect(err).NotTo(HaveOccurred())
		Expect(requests).NotTo(BeEmpty())
		// One spec takes all rights away for a moment, and asks for its Secret. Without the
		// right to its webhook configuration the program would never have been asked.
		Expect(rights.Refused(requests)).To(Or(BeEmpty(),
			HaveEach(HaveField("Name", BeElementOf(credentials, "gardener-extension-admission-registry-cache")))), "the chart gives all rights that are asked for")
		objects, err := installed.release.Objects()
		Expect(err).NotTo(HaveOccurred())
		granted, err := rights.Granted(objects)
		Expect(err).NotTo(HaveOccurred())
		unused = append(unused, rights.Unused(granted, requests)...)
	}
	if config, _ := GinkgoConfiguration(); len(config.FocusStrings) > 0 || len(config.FocusFiles) > 0 {
		return // what did not run has used nothing
	}
	Expect(unused).To(ConsistOf(slices.Collect(maps.Keys(unmet))), "the charts give no more rights than are used")
})
