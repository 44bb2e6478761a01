// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

// Package boundaries checks which packages of this project may import which. A
// failure here asks for a decision about the design, not for another entry in
// the table.
package boundaries

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"path"
	"slices"
	"strings"
	"testing"

	. "github.com/onsi/gomega"
)

const (
	module       = "github.com/gardener/gardener-extension-registry-cache/"
	distribution = "github.com/distribution/distribution/"
)

// rooms are our packages, each together with those below it, and what they may
// import of ours beside themselves. Dependencies point from the binaries down
// to pkg/upstream.
var rooms = map[string][]string{
	"pkg/upstream":                          {},
	"pkg/imagevector":                       {},
	"pkg/apis":                              {"pkg/upstream"},
	"pkg/resources":                         {"pkg/apis", "pkg/upstream"},
	"pkg/hosts":                             {"pkg/apis", "pkg/upstream"},
	"pkg/monitoring":                        {"pkg/apis", "pkg/upstream", "pkg/resources"},
	"pkg/controller":                        {"pkg/apis", "pkg/upstream", "pkg/resources", "pkg/monitoring", "pkg/imagevector"},
	"pkg/webhook":                           {"pkg/apis", "pkg/upstream", "pkg/hosts"},
	"pkg/admission/judge":                   {"pkg/apis"},
	"pkg/admission":                         {"pkg/apis", "pkg/upstream", "pkg/admission/judge"},
	"pkg/pullthrough":                       {"pkg/apis", "pkg/upstream"},
	"pkg/cacheserver":                       {"pkg/apis", "pkg/upstream", "pkg/pullthrough"},
	"pkg/plugin":                            {"pkg/apis", "pkg/upstream", "pkg/admission/judge"},
	"cmd/kubectl-registry_cache":            {"pkg/plugin"},
	"cmd/registry-cache":                    {"pkg/apis", "pkg/cacheserver"},
	"cmd/gardener-extension-registry-cache": {"pkg/apis", "pkg/imagevector", "pkg/controller", "pkg/webhook", "pkg/admission"},
}

// withDistribution are the rooms that may depend on distribution, directly or
// not, for it would make the controller's binary large.
var withDistribution = []string{"pkg/pullthrough", "pkg/cacheserver", "cmd/registry-cache"}

// purposeless are package names that say nothing about what is inside.
var purposeless = []string{"util", "utils", "common", "helper", "helpers", "constant", "constants", "misc"}

// listed is a package as go list describes it, without its tests.
type listed struct {
	ImportPath string
	Imports    []string
	Deps       []string
}

func TestEveryPackageHasARoom(t *testing.T) {
	g := NewWithT(t)
	for _, p := range packages(t, "./pkg/...", "./cmd/...") {
		g.Expect(rooms).To(HaveKey(room(p.ImportPath)), "%s: say in the table what it may import", p.ImportPath)
	}
}

func TestImportsPointOneWay(t *testing.T) {
	all := packages(t, "./pkg/...", "./cmd/...")
	for name, allowed := range rooms {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			for _, p := range all {
				if room(p.ImportPath) != name {
					continue
				}
				for _, imported := range p.Imports {
					if strings.HasPrefix(imported, module) {
						g.Expect(append(slices.Clone(allowed), name)).To(ContainElement(room(imported)), "%s imports %s", p.ImportPath, imported)
					}
				}
			}
		})
	}
}

func TestOnlyTheCacheServerDependsOnDistribution(t *testing.T) {
	g := NewWithT(t)
	found := false
	for _, p := range packages(t, "./pkg/...", "./cmd/...") {
		if slices.ContainsFunc(p.Deps, func(dep string) bool { return strings.HasPrefix(dep, distribution) }) {
			found = true
			g.Expect(withDistribution).To(ContainElement(room(p.ImportPath)), "%s depends on distribution", p.ImportPath)
		}
	}
	g.Expect(found).To(BeTrue(), "no package depends on %s: is that still its name?", distribution)
}

func TestNoPackageWithoutAPurpose(t *testing.T) {
	g := NewWithT(t)
	for _, p := range packages(t, "./...") {
		g.Expect(purposeless).NotTo(ContainElement(path.Base(p.ImportPath)), p.ImportPath)
	}
}

// room returns the longest room that a package of ours is in, or the package's
// path when it is in none.
func room(importPath string) string {
	importPath = strings.TrimPrefix(importPath, module)
	found := ""
	for name := range rooms {
		if (importPath == name || strings.HasPrefix(importPath, name+"/")) && len(name) > len(found) {
			found = name
		}
	}
	if found == "" {
		return importPath
	}
	return found
}

func packages(t *testing.T, patterns ...string) []listed {
	t.Helper()
	g := NewWithT(t)
	cmd := exec.CommandContext(t.Context(), "go", append([]string{"list", "-json=ImportPath,Imports,Deps"}, patterns...)...)
	cmd.Dir = "../.."
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	g.Expect(cmd.Run()).To(Succeed(), stderr.String)

	var all []listed
	for decoder := json.NewDecoder(&stdout); ; {
		var p listed
		err := decoder.Decode(&p)
		if errors.Is(err, io.EOF) {
			break
		}
		g.Expect(err).NotTo(HaveOccurred())
		all = append(all, p)
	}
	g.Expect(all).NotTo(BeEmpty())
	return all
}
