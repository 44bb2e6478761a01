// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package upstream

import (
	"net/netip"
	"net/url"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

const (
	maxPort = 65535
	// maxLength is how long the name of a directory can be, which an upstream becomes
	// on the nodes.
	maxLength = 255
	// reserved is the name of a file there, beside these directories.
	reserved = "registry-hosts.sh"
)

// Validate checks that value is an upstream: a host name, or an IPv4 address,
// with a port if it has one, as it stands in image names. Errors are of type
// Required, Invalid or TooLong, and each says what to change.
func Validate(value string, fldPath *field.Path) field.ErrorList {
	if value == "" {
		return field.ErrorList{field.Required(fldPath, "must be the host of a registry as it stands in image names, for example docker.io or registry.example.com:5000")}
	}
	if len(value) > maxLength {
		return field.ErrorList{field.TooLong(fldPath, Redact(value), maxLength)}
	}
	if value == reserved {
		return field.ErrorList{field.Invalid(fldPath, value, "is reserved: nodes have a file of this name, and cannot pull from such a registry through the extension")}
	}
	if strings.Contains(value, "://") {
		return field.ErrorList{field.Invalid(fldPath, Redact(value), "must not have a scheme: remove :// and what stands before it")}
	}
	if strings.Contains(value, "/") {
		return field.ErrorList{field.Invalid(fldPath, Redact(value), "must not have a path: remove / and what follows it")}
	}

	var errs field.ErrorList
	host, port, hasPort := strings.Cut(value, ":")
	for _, problem := range validation.IsDNS1123Subdomain(host) {
		errs = append(errs, field.Invalid(fldPath, Redact(value), "the host is not valid: "+problem))
	}
	// Zeros before a port would make another upstream of the same registry.
	if hasPort && (!isPort(port) || port[0] == '0') {
		errs = append(errs, field.Invalid(fldPath, Redact(value), portProblem))
	}
	return errs
}

// ValidateURL checks that value is the URL of a host and nothing below it:
// `http://` or `https://`, a DNS-1123 subdomain or an IP address (IPv6 in
// brackets), and a port if it has one. A lone `/` may follow. Errors are of
// type Required or Invalid, and each says what to change; what looks like
// credentials is left out of them.
func ValidateURL(value string, fldPath *field.Path) field.ErrorList {
	if value == "" {
		return field.ErrorList{field.Required(fldPath, "must be a URL, for example https://registry.example.com:5000")}
	}
	invalid := func(problem string) *field.Error {
		return field.Invalid(fldPath, Redact(value), problem)
	}
	if !strings.HasPrefix(value, "http://") && !strings.HasPrefix(value, "https://") {
		return field.ErrorList{invalid("must start with http:// or https://")}
	}
	parsed, err := url.Parse(value)
	if err != nil {
		// The parser's error repeats the URL, and with it a password.
		return field.ErrorList{invalid("is not a valid URL: must be a scheme, a host and optionally a port, for example https://registry.example.com:5000")}
	}

	var errs field.ErrorList
	if parsed.User != nil {
		errs = append(errs, invalid("must not have user info: remove what stands before the host, up to and including @"))
	}
	if parsed.Path != "" && parsed.Path != "/" {
		errs = append(errs, invalid("must not have a path: remove what follows the host and port"))
	}
	if parsed.ForceQuery || parsed.RawQuery != "" {
		errs = append(errs, invalid("must not have a query: remove ? and what follows it"))
	}
	// The parser does not tell a bare # at the end from none.
	if strings.Contains(value, "#") {
		errs = append(errs, invalid("must not have a fragment: remove # and what follows it"))
	}
	for _, problem := range hostProblems(parsed) {
		errs = append(errs, invalid(problem))
	}
	return errs
}

const portProblem = "the port must be a number from 1 to 65535"

// hostProblems returns what is wrong with the host and port of a URL.
func hostProblems(parsed *url.URL) []string {
	var problems []string
	host := parsed.Hostname()
	if strings.HasPrefix(parsed.Host, "[") {
		if address, err := netip.ParseAddr(host); err != nil || !address.Is6() || address.Zone() != "" {
			problems = append(problems, "the host in brackets must be an IPv6 address without a zone")
		}
	} else {
		for _, problem := range validation.IsDNS1123Subdomain(host) {
			problems = append(problems, "the host is not valid: "+problem)
		}
	}
	// A colon without a port parses, but not every reader of the URL takes it.
	if port := parsed.Port(); (port != "" || strings.HasSuffix(parsed.Host, ":")) && !isPort(port) {
		problems = append(problems, portProblem)
	}
	return problems
}

// isPort rejects signs, which strconv.Atoi takes.
func isPort(value string) bool {
	if strings.Trim(value, "0123456789") != "" {
		return false
	}
	port, err := strconv.Atoi(value)
	return err == nil && port >= 1 && port <= maxPort
}

// Redact returns a URL, or what somebody took for one, without what may be a
// secret: all before an @ may be a password, all after a question mark or # a token.
func Redact(value string) string {
	if i := strings.LastIndex(value, "@"); i >= 0 {
		value = "***" + value[i:]
	}
	if i := strings.IndexAny(value, "?#"); i >= 0 && i < len(value)-1 {
		value = value[:i+1] + "***"
	}
	return value
}
