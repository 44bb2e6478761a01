// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package validation

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/gardener/gardener-extension-registry-cache/pkg/apis/secretref"
)

// The keys of a Secret that a secretReferenceName leads to.
const (
	// UsernameKey is the key of the user name.
	UsernameKey = "username"
	// PasswordKey is the key of the password.
	PasswordKey = "password"
)

// jsonKeyUsername is the user name with which registries of Google Cloud take
// the JSON key file of a service account as the password.
const jsonKeyUsername = "_json_key"

// serviceAccountKeys are the fields of such a key file. Others are rejected: a
// file of another type of credentials could make its reader run commands or
// open files and URLs of its author's choice.
func serviceAccountKeys() []string {
	return []string{
		"type", "project_id", "private_key_id", "private_key", "client_email", "client_id", "auth_uri",
		"token_uri", "auth_provider_x509_cert_url", "client_x509_cert_url", "universe_domain",
	}
}

// ValidateSecret checks the Secret, in the project namespace of the Garden,
// that the Shoot's spec.resources names reference. fldPath is the field whose
// value is reference. Errors never tell what the Secret holds.
func ValidateSecret(secret *corev1.Secret, fldPath *field.Path, reference string) field.ErrorList {
	return secretref.ValidateSecret(secret, fldPath, reference, ValidateSecretData)
}

// ValidateSecretData checks the content of a Secret as ValidateSecret does, but
// not that it is immutable. The controller applies it to gardenlet's copy in
// the Seed (PrepareReferencedResourcesForSeedCopy in gardener's
// pkg/utils/gardener). That copy carries `immutable` as the original has it, but
// follows an original that was deleted and created anew: admission does not see
// that, and caches that work must not fail for it. secretName is named in
// errors; what the Secret holds never is.
func ValidateSecretData(data map[string][]byte, fldPath *field.Path, reference, secretName string) field.ErrorList {
	var errs field.ErrorList
	invalid := func(format string, args ...any) {
		errs = append(errs, secretref.Invalid(fldPath, reference, secretName, fmt.Sprintf(format, args...)))
	}

	for _, key := range []string{UsernameKey, PasswordKey} {
		if value, ok := data[key]; !ok {
			invalid("lacks the key %q: add it", key)
		} else if len(value) == 0 || key == PasswordKey && len(bytes.TrimSpace(value)) == 0 {
			invalid("has an empty value of the key %q: set it", key)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(data)) {
		if key != UsernameKey && key != PasswordKey {
			invalid("has the key %q: remove it, only %q and %q are allowed", key, UsernameKey, PasswordKey)
		}
	}

	username := string(data[UsernameKey])
	if strings.ContainsFunc(username, unicode.IsSpace) {
		invalid("has whitespace in the value of the key %q: remove it, and mind a line break at the end", UsernameKey)
	}
	if username == jsonKeyUsername && len(data[PasswordKey]) > 0 {
		for _, problem := range serviceAccountProblems(data[PasswordKey]) {
			invalid("has the user name %s, but its key %q %s", jsonKeyUsername, PasswordKey, problem)
		}
	}
	return errs
}

// serviceAccountProblems returns what makes raw no key file of a service
// account. It names known keys only: any other text is content of a Secret.
func serviceAccountProblems(raw []byte) []string {
	var account map[string]any
	if err := json.Unmarshal(raw, &account); err != nil || account == nil {
		return []string{"is not a JSON object: set the content of the service account's key file"}
	}

	var problems []string
	known := serviceAccountKeys()
	unknown := 0
	for key := range account {
		if !slices.Contains(known, key) {
			unknown++
		}
	}
	for _, key := range known {
		if value, ok := account[key]; ok {
			if _, isString := value.(string); !isString {
				problems = append(problems, fmt.Sprintf("has a field %q that is not a string", key))
			}
		}
	}
	if unknown > 0 {
		problems = append(problems, fmt.Sprintf("has %d field(s) that are not allowed: remove all but %s", unknown, strings.Join(known, ", ")))
	}
	return problems
}
