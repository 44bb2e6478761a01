// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"encoding/xml"
	"errors"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	. "github.com/onsi/gomega"

	"github.com/gardener/gardener-extension-registry-cache/test/process"
)

// report is the result of a run of the suite.
type report struct {
	checks []check
	// exitCode is not 0 if a check failed, and may be 0 if the suite did not run.
	exitCode int
	output   string
}

// check is one check of the suite. Many have the same name: one for each blob,
// for instance.
type check struct {
	Name   string `xml:"name,attr"`
	Status string `xml:"status,attr"`
	// Errors says why it did not pass.
	Errors string `xml:"system-out"`
	// Log has its requests, and the responses.
	Log string `xml:"system-err"`
}

// run runs the suite against a registry. The settings are those of its README.
func run(t *testing.T, registry *url.URL, settings ...string) report {
	t.Helper()
	g := NewWithT(t)
	if os.Getenv("TEST_ASSET_CONFORMANCE") == "" && os.Getenv("REQUIRE_CLUSTER") == "" {
		t.Skip("TEST_ASSET_CONFORMANCE is not set; 'make test' builds the suite and sets it, 'hack/test.sh env' prints it")
	}
	binary, err := process.FindBinary("conformance")
	g.Expect(err).NotTo(HaveOccurred())

	folder := t.TempDir()
	cmd := exec.CommandContext(t.Context(), binary)
	cmd.Dir = folder // where it looks for a configuration
	cmd.Env = append([]string{"OCI_REGISTRY=" + registry.Host, "OCI_TLS=disabled", "OCI_RESULTS_DIR=" + folder}, settings...)
	output, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		g.Expect(err).NotTo(HaveOccurred())
	}
	content, err := os.ReadFile(filepath.Join(folder, "junit.xml"))
	g.Expect(err).NotTo(HaveOccurred(), "the suite did not run: %s", output)
	var suites struct {
		Checks []check `xml:"testsuite>testcase"`
	}
	g.Expect(xml.Unmarshal(content, &suites)).To(Succeed())
	for i := range suites.Checks {
		suites.Checks[i].Name = strings.TrimPrefix(suites.Checks[i].Name, "OCI Conformance Test/")
	}
	return report{checks: suites.Checks, exitCode: cmd.ProcessState.ExitCode(), output: string(output)}
}

// pullChecks tell the checks of pulls from those of pushes and deletes, which
// have the other names.
var pullChecks = []struct {
	kind string
	name *regexp.Regexp
}{
	{"ping", regexp.MustCompile(`^ping$`)},
	{"tags of an empty repository", regexp.MustCompile(`^empty/tag list$`)},
	{"referrers of nothing", regexp.MustCompile(`^empty/referrers$`)},
	{"missing blob", regexp.MustCompile(`^sha\d+ blobs/get-missing$`)},
	{"missing manifest by digest", regexp.MustCompile(`^missing-manifest/by-digest$`)},
	{"missing manifest by tag", regexp.MustCompile(`^missing-manifest/by-tag$`)},
	{"invalid digest", regexp.MustCompile(`^invalid-digest-format/manifest-get$`)},
	{"blob HEAD", regexp.MustCompile(`/blob-head$`)},
	{"blob GET", regexp.MustCompile(`/blob-get$`)},
	{"blob range", regexp.MustCompile(`^sha\d+ blobs/range requests/range .+$`)},
	{"manifest HEAD by tag", regexp.MustCompile(`/head/manifest-head-by-tag$`)},
	{"manifest HEAD by digest", regexp.MustCompile(`/head/manifest-head-by-digest$`)},
	{"manifest GET by tag", regexp.MustCompile(`/pull/manifest-by-tag$`)},
	{"manifest GET by digest", regexp.MustCompile(`/pull/manifest-by-digest$`)},
	{"tags", regexp.MustCompile(`/tag-list$`)},
	{"referrers", regexp.MustCompile(`/referrers$`)},
}

// kind returns the kind of a check of pulls, or nothing.
func (c check) kind() string {
	for _, known := range pullChecks {
		if known.name.MatchString(c.Name) {
			return known.kind
		}
	}
	return ""
}

// passedPulls counts the checks of pulls that passed, by kind.
func (r report) passedPulls() map[string]int {
	passed := map[string]int{}
	for _, c := range r.checks {
		if kind := c.kind(); kind != "" && c.Status == "passed" {
			passed[kind]++
		}
	}
	return passed
}

// named returns the checks whose name matches.
func (r report) named(pattern string) []check {
	var found []check
	for _, c := range r.checks {
		if regexp.MustCompile(pattern).MatchString(c.Name) {
			found = append(found, c)
		}
	}
	return found
}
