// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

// Package scale_test measures what one controller costs that has many Shoots, and
// how that grows with their number. Of the figures only those are asserted that do
// not depend on the machine: requests and writes.
//
// SCALE says how many Extensions there are, "5,15" if it is not set;
// SCALE_RESULTS names a file that gets the figures.
package scale_test

import (
	"cmp"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"github.com/onsi/gomega/gexec"
	logf "sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"
)

// cachesPerShoot is the number of caches of each Extension.
const cachesPerShoot = 3

// extensionBinary is the program under test.
var extensionBinary string

func TestScale(t *testing.T) {
	RegisterFailHandler(Fail)
	RunSpecs(t, "Scale Suite")
}

var _ = BeforeSuite(func() {
	logf.SetLogger(zap.New(zap.WriteTo(GinkgoWriter), zap.UseDevMode(true)))
	var err error
	extensionBinary, err = gexec.Build("github.com/gardener/gardener-extension-registry-cache/cmd/gardener-extension-registry-cache")
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(gexec.CleanupBuildArtifacts)
})

var _ = Describe("Many Shoots", func() {
	It("cost the same each, and nothing while nothing changes", func(ctx SpecContext) {
		var all []figures
		for _, count := range counts() {
			all = append(all, measure(ctx, count))
		}

		table := render(all)
		GinkgoWriter.Println(table)
		if path := os.Getenv("SCALE_RESULTS"); path != "" {
			Expect(os.WriteFile(path, []byte(table), 0o600)).To(Succeed())
		}

		for _, f := range all {
			// Gardener's reconciler takes the annotation off, and writes that it begins and
			// that it has ended. The rest only reads.
			Expect(writes(f.again.seed)).To(Equal(requests{
				"patch extensions": f.count, "patch extensions/status": 2 * f.count,
			}), "%d Extensions, reconciled again", f.count)
			Expect(writes(f.again.shoot)).To(BeEmpty(), "%d Extensions, reconciled again", f.count)
			Expect(f.again.seed.per(f.count)).To(Equal(all[0].again.seed.per(all[0].count)), "%d Extensions, reconciled again", f.count)
			Expect(f.again.shoot.per(f.count)).To(Equal(all[0].again.shoot.per(all[0].count)), "%d Extensions, reconciled again", f.count)
			// Leader election and heartbeat go on, and do not ask on behalf of a Shoot.
			Expect(f.idle.seed).NotTo(BeEmpty(), "%d Extensions, idle", f.count)
			Expect(f.idle.seed.forExtensions()).To(BeEmpty(), "%d Extensions, idle", f.count)
			Expect(f.idle.shoot).To(BeEmpty(), "%d Extensions, idle", f.count)
			// Gardener's library updates the status with each check, with what is there already.
			Expect(f.checked.shoot).To(And(HaveKey("list statefulsets"), HaveKey("list pods")), "%d Extensions, checked", f.count)
			Expect(slices.Collect(maps.Keys(writes(f.checked.seed)))).To(Equal([]string{"update extensions/status"}), "%d Extensions, checked", f.count)
			Expect(writes(f.checked.shoot)).To(BeEmpty(), "%d Extensions, checked", f.count)
			// A half of what is used now would be too exact, ten times as much is a mistake.
			Expect(f.each(f.again.cpu)).To(BeNumerically("<", 10*max(all[0].each(all[0].again.cpu), 0.05)), "%d Extensions, reconciled again", f.count)
		}
	}, SpecTimeout(2*time.Hour))
})

// counts are the numbers of Extensions to measure with.
func counts() []int {
	GinkgoHelper()
	var numbers []int
	for word := range strings.SplitSeq(cmp.Or(os.Getenv("SCALE"), "5,15"), ",") {
		number, err := strconv.Atoi(word)
		Expect(err).NotTo(HaveOccurred(), "SCALE is a list of numbers")
		Expect(number).To(BeNumerically(">", 0), "SCALE is a list of numbers")
		numbers = append(numbers, number)
	}
	return numbers
}
