// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package validation

import (
	"net/url"
	"regexp"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/gardener/gardener-extension-registry-cache/pkg/upstream"
)

// maxURLLength is far above what anybody needs. Without a limit one URL could
// be too long for the configuration of curl, with which nodes probe all hosts
// at once.
const maxURLLength = 2048

// undecodable are characters that must not come out of a path's percent
// encoding: containerd decodes the path and takes the result for part of a
// URL, where they mean something else or are not allowed.
var undecodable = regexp.MustCompile(`[%?#[:cntrl:]]`)

// validateURL checks the URL of a mirror: what upstream.ValidateURL says about
// URLs, but a path may follow, and the host may have capitals and underscores:
// containerd and curl can cope with them.
func validateURL(value string, fldPath *field.Path) field.ErrorList {
	if len(value) > maxURLLength {
		return field.ErrorList{field.TooLong(fldPath, value, maxURLLength)}
	}
	origin, urlPath, queryAndFragment := cutURL(value)
	errs := upstream.ValidateURL(strings.ToLower(strings.ReplaceAll(origin, "_", "0"))+queryAndFragment, fldPath)
	for _, problem := range pathProblems(urlPath) {
		errs = append(errs, field.Invalid(fldPath, "", problem))
	}
	for _, err := range errs {
		if err.Type == field.ErrorTypeInvalid {
			err.BadValue = upstream.Redact(value)
		}
	}
	return errs
}

// cutURL cuts a URL before and after its path.
func cutURL(value string) (origin, urlPath, queryAndFragment string) {
	start := strings.Index(value, "://")
	if start < 0 {
		return value, "", ""
	}
	start += len("://")
	rest := value[start:]
	if i := strings.IndexAny(rest, "?#"); i >= 0 {
		rest, queryAndFragment = rest[:i], rest[i:]
	}
	if i := strings.Index(rest, "/"); i >= 0 {
		rest, urlPath = rest[:i], rest[i:]
	}
	return value[:start] + rest, urlPath, queryAndFragment
}

func pathProblems(urlPath string) []string {
	decoded, err := url.PathUnescape(urlPath)
	if err != nil {
		return []string{"must not have a % in its path that is not followed by two hexadecimal digits"}
	}
	var problems []string
	if undecodable.MatchString(decoded) {
		problems = append(problems, "must not have control characters, nor the percent-encoded characters %, ? and #, in its path: containerd cannot request it")
	}
	for segment := range strings.SplitSeq(decoded, "/") {
		if segment == "." || segment == ".." {
			return append(problems, "must not have . or .. as a segment of its path: write the path that is meant")
		}
	}
	return problems
}
