// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

// Package validation holds the rules of the files that our binaries read, as
// far as types and defaults cannot express them. It opens no file that a
// configuration names: its reader does.
package validation

import (
	"net"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/gardener/gardener-extension-registry-cache/pkg/apis/config/v1alpha1"
	"github.com/gardener/gardener-extension-registry-cache/pkg/upstream"
)

// ValidateCacheConfiguration checks a defaulted CacheConfiguration, and returns
// all problems at once.
func ValidateCacheConfiguration(config *v1alpha1.CacheConfiguration) field.ErrorList {
	errs := upstream.Validate(config.Upstream, field.NewPath("upstream"))
	errs = append(errs, upstream.ValidateURL(config.RemoteURL, field.NewPath("remoteURL"))...)
	if config.CredentialsDir != "" {
		errs = append(errs, validateAbsolute(config.CredentialsDir, field.NewPath("credentialsDir"))...)
	}
	errs = append(errs, validateAbsolute(config.Storage.RootDirectory, field.NewPath("storage", "rootDirectory"))...)
	errs = append(errs, validateGarbageCollection(&config.GarbageCollection, field.NewPath("garbageCollection"))...)

	errs = append(errs, validateAddress(config.Server.Address, field.NewPath("server", "address"))...)
	if tls := config.Server.TLS; tls != nil {
		errs = append(errs, validateTLS(tls, field.NewPath("server", "tls"))...)
	}
	if delay := config.Server.ShutdownDelay.Duration; delay < 0 {
		errs = append(errs, field.Invalid(field.NewPath("server", "shutdownDelay"), delay.String(), "must not be negative"))
	}
	errs = append(errs, validateAddress(config.Debug.Address, field.NewPath("debug", "address"))...)
	if port := config.Debug.InventoryPort; port != nil && (*port < 0 || *port > 65535) {
		errs = append(errs, field.Invalid(field.NewPath("debug", "inventoryPort"), *port, "must be a number from 0 to 65535"))
	}
	if report := config.Report; report != nil {
		errs = append(errs, validateReport(report, field.NewPath("report"))...)
	}
	return append(errs, validateLog(&config.Log, field.NewPath("log"))...)
}

func validateReport(report *v1alpha1.Report, fldPath *field.Path) field.ErrorList {
	errs := validateAbsolute(report.CredentialsDir, fldPath.Child("credentialsDir"))
	for _, problem := range validation.IsDNS1123Label(report.Namespace) {
		errs = append(errs, field.Invalid(fldPath.Child("namespace"), report.Namespace, problem))
	}
	for _, problem := range validation.IsDNS1123Subdomain(report.Name) {
		errs = append(errs, field.Invalid(fldPath.Child("name"), report.Name, problem))
	}
	if report.Server != "" {
		errs = append(errs, upstream.ValidateURL(report.Server, fldPath.Child("server"))...)
		if len(errs) == 0 && !strings.HasPrefix(report.Server, "https://") {
			errs = append(errs, field.Invalid(fldPath.Child("server"), report.Server, "must be an https URL: the token must not be read on its way"))
		}
	}
	return errs
}

func validateGarbageCollection(gc *v1alpha1.GarbageCollection, fldPath *field.Path) field.ErrorList {
	var errs field.ErrorList
	if gc.TTL.Duration < 0 {
		errs = append(errs, field.Invalid(fldPath.Child("ttl"), gc.TTL.Duration.String(), "must not be negative; 0s disables the deletion by age"))
	}

	percent := func(value int32, path *field.Path) bool {
		if value >= 1 && value <= 100 {
			return true
		}
		errs = append(errs, field.Invalid(path, value, "must be a percentage from 1 to 100"))
		return false
	}
	highValid := percent(*gc.HighWatermark, fldPath.Child("highWatermark"))
	lowValid := percent(*gc.LowWatermark, fldPath.Child("lowWatermark"))
	if highValid && lowValid && *gc.LowWatermark >= *gc.HighWatermark {
		errs = append(errs, field.Invalid(fldPath.Child("lowWatermark"), *gc.LowWatermark, "must be lower than highWatermark"))
	}
	return errs
}

func validateTLS(tls *v1alpha1.TLS, fldPath *field.Path) field.ErrorList {
	var errs field.ErrorList
	if tls.CertFile == "" {
		errs = append(errs, field.Required(fldPath.Child("certFile"), "must be the path of a certificate; remove tls to serve plain HTTP"))
	}
	if tls.KeyFile == "" {
		errs = append(errs, field.Required(fldPath.Child("keyFile"), "must be the path of the certificate's key; remove tls to serve plain HTTP"))
	}
	return errs
}

func validateLog(log *v1alpha1.Log, fldPath *field.Path) field.ErrorList {
	var errs field.ErrorList
	levels := []v1alpha1.LogLevel{v1alpha1.LogLevelDebug, v1alpha1.LogLevelInfo, v1alpha1.LogLevelWarn, v1alpha1.LogLevelError}
	if !slices.Contains(levels, log.Level) {
		errs = append(errs, field.NotSupported(fldPath.Child("level"), log.Level, levels))
	}
	formats := []v1alpha1.LogFormat{v1alpha1.LogFormatJSON, v1alpha1.LogFormatText}
	if !slices.Contains(formats, log.Format) {
		errs = append(errs, field.NotSupported(fldPath.Child("format"), log.Format, formats))
	}
	return errs
}

// validateAddress takes an empty host, which is any address of the machine, and
// port 0, which is any free port.
func validateAddress(value string, fldPath *field.Path) field.ErrorList {
	host, port, err := net.SplitHostPort(value)
	if err != nil {
		return field.ErrorList{field.Invalid(fldPath, value, "must be host:port or :port, with an IPv6 address in brackets")}
	}
	var errs field.ErrorList
	if host != "" && net.ParseIP(host) == nil && len(validation.IsDNS1123Subdomain(host)) > 0 {
		errs = append(errs, field.Invalid(fldPath, value, "the host must be empty, an IP address or a host name"))
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		errs = append(errs, field.Invalid(fldPath, value, "the port must be a number from 0 to 65535"))
	}
	return errs
}

func validateAbsolute(path string, fldPath *field.Path) field.ErrorList {
	if !filepath.IsAbs(path) {
		return field.ErrorList{field.Invalid(fldPath, path, "must be an absolute path")}
	}
	return nil
}
