// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package registrycache_test

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"github.com/onsi/gomega/gexec"
	"sigs.k8s.io/controller-runtime/pkg/client"

	productcharts "github.com/gardener/gardener-extension-registry-cache/charts"
	"github.com/gardener/gardener-extension-registry-cache/test/charts"
	"github.com/gardener/gardener-extension-registry-cache/test/rights"
)

// extensionUser is whom the extension is for the Seed: the ServiceAccount of its
// chart.
var extensionUser = rights.ServiceAccount(extensionNamespace, productcharts.Controller)

// unmet are the rights that are needed though no spec uses them, with the reason.
var unmet = map[string]string{
	"list extensions.extensions.gardener.cloud": "API servers before Kubernetes 1.34 cannot give a list by a watch",
	"list namespaces":                         "the same",
	"list clusters.extensions.gardener.cloud": "the same",
	"patch configmaps":                        "the dashboard changes with the version of the extension only",
}

// installChart creates all that the chart of the controller has, in a Seed without
// controllers, and returns the arguments of the program.
func installChart(ctx context.Context, seed client.Client) []string {
	GinkgoHelper()
	release := charts.Controller(nil)
	objects, err := release.Objects()
	Expect(err).NotTo(HaveOccurred())
	Expect(charts.Create(ctx, seed, objects)).To(Succeed())
	deployment, err := release.Deployment()
	Expect(err).NotTo(HaveOccurred())
	return deployment.Spec.Template.Spec.Containers[0].Args
}

var _ = Describe("Charts", func() {
	for name, release := range charts.Releases() {
		if release.Chart == productcharts.Controller {
			It("are accepted: "+name, func(ctx SpecContext) {
				Expect(charts.DryRun(ctx, seed, release)).To(Succeed())
			})
		}
	}
})

// All specs have been at work by then, and the control planes are still there. In a
// parallel run each process has seen some of the requests.
var _ = SynchronizedAfterSuite(func() {
	if environment == nil {
		return // it did not start, and that was told
	}
	requests, err := environment.SeedAudit.Requests(extensionUser)
	Expect(err).NotTo(HaveOccurred())
	Expect(requests).NotTo(BeEmpty())
	Expect(rights.Refused(requests)).To(BeEmpty(), "the chart gives all rights that are asked for")
	encoded, err := json.Marshal(requests)
	Expect(err).NotTo(HaveOccurred())
	Expect(os.WriteFile(filepath.Join(requestsFolder, strconv.Itoa(GinkgoParallelProcess())), encoded, 0o600)).To(Succeed())
}, func() {
	defer gexec.CleanupBuildArtifacts()
	defer func() { Expect(os.RemoveAll(requestsFolder)).To(Succeed()) }()
	config, _ := GinkgoConfiguration()
	if environment == nil || len(config.FocusStrings) > 0 || len(config.FocusFiles) > 0 {
		return // what did not run has used nothing
	}
	var requests []rights.Request
	for process := range config.ParallelTotal {
		encoded, err := os.ReadFile(filepath.Join(requestsFolder, strconv.Itoa(process+1)))
		Expect(err).NotTo(HaveOccurred())
		var some []rights.Request
		Expect(json.Unmarshal(encoded, &some)).To(Succeed())
		requests = append(requests, some...)
	}
	objects, err := charts.Controller(nil).Objects()
	Expect(err).NotTo(HaveOccurred())
	granted, err := rights.Granted(objects)
	Expect(err).NotTo(HaveOccurred())
	unused := rights.Unused(granted, requests)
	// A list is asked for after all if the connection of a watch breaks.
	Expect(unused).To(HaveEach(BeKeyOf(unmet)), "the chart gives no more rights than are used")
	for right := range unmet {
		if !strings.HasPrefix(right, "list ") {
			Expect(unused).To(ContainElement(right), "it is used")
		}
	}
})
