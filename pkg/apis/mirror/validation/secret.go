// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package validation

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/gardener/gardener-extension-registry-cache/pkg/apis/secretref"
)

// CABundleKey is the only key of a Secret that a caBundleSecretReferenceName
// leads to.
const CABundleKey = "bundle.crt"

// boundary is a line that starts or ends a PEM block.
var boundary = regexp.MustCompile(`-----(BEGIN|END)`)

// ValidateSecret checks the Secret, in the project namespace of the Garden,
// that the Shoot's spec.resources names reference. fldPath is the field whose
// value is reference. Errors quote nothing of the Secret but what a certificate
// says.
func ValidateSecret(secret *corev1.Secret, fldPath *field.Path, reference string) field.ErrorList {
	return secretref.ValidateSecret(secret, fldPath, reference, ValidateSecretData)
}

// ValidateSecretData checks the content of a Secret as ValidateSecret does, but
// not that it is immutable. The controller applies it to gardenlet's copy in
// the Seed, which follows an original that was deleted and created anew: nodes
// that work must not fail for it. secretName is named in errors.
func ValidateSecretData(data map[string][]byte, fldPath *field.Path, reference, secretName string) field.ErrorList {
	var errs field.ErrorList
	invalid := func(format string, args ...any) {
		errs = append(errs, secretref.Invalid(fldPath, reference, secretName, fmt.Sprintf(format, args...)))
	}
	if bundle, ok := data[CABundleKey]; !ok {
		invalid("lacks the key %q: add it", CABundleKey)
	} else {
		for _, problem := range caBundleProblems(bundle) {
			invalid("has the key %q %s", CABundleKey, problem)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(data)) {
		if key != CABundleKey {
			invalid("has the key %q: remove it, only %q is allowed", key, CABundleKey)
		}
	}
	return errs
}

// caBundleProblems returns what makes a bundle unfit for containerd, or less
// than its author thinks: containerd ignores what it does not take for a
// certificate, and fails at the mirror later. Text between the blocks is
// allowed, as in most bundles that one can download, but no remains of blocks.
func caBundleProblems(bundle []byte) []string {
	var problems []string
	blocks := 0
	rest := bundle
	for {
		block, after := pem.Decode(rest)
		between := rest
		if block != nil {
			consumed := rest[:len(rest)-len(after)]
			between = consumed[:bytes.LastIndex(consumed, []byte("-----BEGIN "))]
		}
		if boundary.Match(between) {
			place := "at its start"
			if blocks > 0 {
				place = fmt.Sprintf("after block %d", blocks)
			}
			problems = append(problems, fmt.Sprintf("with a damaged PEM block %s: mind its first and last line, and that nothing stands before them", place))
		}
		if block == nil {
			break
		}
		blocks++
		if problem := caBlockProblem(block); problem != "" {
			problems = append(problems, fmt.Sprintf("whose block %d %s", blocks, problem))
		}
		rest = after
	}
	if blocks == 0 && len(problems) == 0 {
		return []string{"without a certificate: set one or more PEM blocks CERTIFICATE"}
	}
	return problems
}

func caBlockProblem(block *pem.Block) string {
	switch {
	case strings.HasSuffix(block.Type, "PRIVATE KEY"):
		return "is a private key: remove it, for every node gets the bundle"
	// containerd and curl differ in what they make of other types and headers.
	case block.Type != "CERTIFICATE" || len(block.Headers) > 0:
		return "is not of type CERTIFICATE without headers: remove or convert it"
	}
	if _, err := x509.ParseCertificate(block.Bytes); err != nil {
		return fmt.Sprintf("cannot be parsed as a certificate: %v", err)
	}
	return ""
}
