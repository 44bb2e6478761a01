// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package validation_test

import (
	"testing"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	"github.com/gardener/gardener-extension-registry-cache/pkg/apis/registry/validation"
)

const allFields = `{"type":"service_account","project_id":"p","private_key_id":"i","private_key":"k","client_email":"e","client_id":"c",
"auth_uri":"a","token_uri":"t","auth_provider_x509_cert_url":"x","client_x509_cert_url":"y","universe_domain":"u"}`

func data(pairs ...string) map[string][]byte {
	data := map[string][]byte{}
	for i := 0; i < len(pairs); i += 2 {
		data[pairs[i]] = []byte(pairs[i+1])
	}
	return data
}

func TestValidateSecretData(t *testing.T) {
	const allowed = "type, project_id, private_key_id, private_key, client_email, client_id, auth_uri, token_uri, " +
		"auth_provider_x509_cert_url, client_x509_cert_url, universe_domain"
	const notJSON = `has the user name _json_key, but its key "password" is not a JSON object: set the content of the service account's key file`

	for name, test := range map[string]struct {
		data     map[string][]byte
		problems []string
	}{
		"user and password":             {data("username", "u", "password", "p"), nil},
		"user of a robot":               {data("username", "robot$project+name", "password", "p"), nil},
		"password with whitespace":      {data("username", "u", "password", " p\n"), nil},
		"service account":               {data("username", "_json_key", "password", allFields), nil},
		"service account, fewer fields": {data("username", "_json_key", "password", `{"type":"service_account"}`), nil},
		"JSON of another user":          {data("username", "u", "password", `{"foo":1}`), nil},

		"nothing":               {nil, []string{`lacks the key "username": add it`, `lacks the key "password": add it`}},
		"no username":           {data("password", "p"), []string{`lacks the key "username": add it`}},
		"no password":           {data("username", "u"), []string{`lacks the key "password": add it`}},
		"empty username":        {data("username", "", "password", "p"), []string{`has an empty value of the key "username": set it`}},
		"empty password":        {data("username", "u", "password", ""), []string{`has an empty value of the key "password": set it`}},
		"empty key file":        {data("username", "_json_key", "password", ""), []string{`has an empty value of the key "password": set it`}},
		"other keys":            {data("username", "u", "password", "p", "b", "s3cret", "a", "s3cret"), []string{`has the key "a": remove it, only "username" and "password" are allowed`, `has the key "b": remove it, only "username" and "password" are allowed`}},
		"key in capitals":       {data("Username", "u", "password", "p"), []string{`lacks the key "username": add it`, `has the key "Username": remove it, only "username" and "password" are allowed`}},
		"line break":            {data("username", "s3cret\n", "password", "p"), []string{`has whitespace in the value of the key "username": remove it, and mind a line break at the end`}},
		"space":                 {data("username", "s3cret user", "password", "p"), []string{`has whitespace in the value of the key "username": remove it, and mind a line break at the end`}},
		"space of another sort": {data("username", "s3cret\u00a0user", "password", "p"), []string{`has whitespace in the value of the key "username": remove it, and mind a line break at the end`}},

		"key file no JSON":       {data("username", "_json_key", "password", "s3cret"), []string{notJSON}},
		"key file a list":        {data("username", "_json_key", "password", `["s3cret"]`), []string{notJSON}},
		"key file null":          {data("username", "_json_key", "password", "null"), []string{notJSON}},
		"key file and more":      {data("username", "_json_key", "password", allFields+"s3cret"), []string{notJSON}},
		"key file with another":  {data("username", "_json_key", "password", `{"s3cret":"s3cret","type":"a","credential_source":"s3cret"}`), []string{`has the user name _json_key, but its key "password" has 2 field(s) that are not allowed: remove all but ` + allowed}},
		"key file with a number": {data("username", "_json_key", "password", `{"client_id":1}`), []string{`has the user name _json_key, but its key "password" has a field "client_id" that is not a string`}},
		"key file with null":     {data("username", "_json_key", "password", `{"type":null}`), []string{`has the user name _json_key, but its key "password" has a field "type" that is not a string`}},
		"key file with all": {data("username", "_json_key", "password", `{"token_uri":{},"type":[],"s3cret":1}`), []string{
			`has the user name _json_key, but its key "password" has a field "type" that is not a string`,
			`has the user name _json_key, but its key "password" has a field "token_uri" that is not a string`,
			`has the user name _json_key, but its key "password" has 1 field(s) that are not allowed: remove all but ` + allowed,
		}},
		"all at once": {data("username", " ", "foo", ""), []string{
			`lacks the key "password": add it`, `has the key "foo": remove it, only "username" and "password" are allowed`,
			`has whitespace in the value of the key "username": remove it, and mind a line break at the end`,
		}},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			fldPath := providerConfig.Child("caches").Index(1).Child("secretReferenceName")

			errs := validation.ValidateSecretData(test.data, fldPath, "ref", "my-secret")
			var want field.ErrorList
			for _, problem := range test.problems {
				want = append(want, invalid("caches[1].secretReferenceName", "ref", `the referenced Secret "my-secret" `+problem))
			}
			g.Expect(errs).To(Equal(want))
			if len(errs) > 0 {
				g.Expect(errs.ToAggregate().Error()).NotTo(ContainSubstring("s3cret"))
			}

			secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "my-secret"}, Immutable: ptr.To(true), Data: test.data}
			g.Expect(validation.ValidateSecret(secret, fldPath, "ref")).To(Equal(want))
		})
	}
}

func TestValidateSecret(t *testing.T) {
	mutable := invalid("caches[0].secretReferenceName", "ref", `the referenced Secret "garden-dev/my-secret" must be immutable: set its field immutable to true`)
	noPassword := invalid("caches[0].secretReferenceName", "ref", `the referenced Secret "garden-dev/my-secret" lacks the key "password": add it`)

	for name, test := range map[string]struct {
		immutable *bool
		data      map[string][]byte
		want      field.ErrorList
	}{
		"immutable":               {ptr.To(true), data("username", "u", "password", "p"), nil},
		"mutable":                 {ptr.To(false), data("username", "u", "password", "p"), field.ErrorList{mutable}},
		"mutable by default":      {nil, data("username", "u", "password", "p"), field.ErrorList{mutable}},
		"mutable and no password": {nil, data("username", "u"), field.ErrorList{mutable, noPassword}},
	} {
		t.Run(name, func(t *testing.T) {
			secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "garden-dev", Name: "my-secret"}, Immutable: test.immutable, Data: test.data}
			fldPath := providerConfig.Child("caches").Index(0).Child("secretReferenceName")
			NewWithT(t).Expect(validation.ValidateSecret(secret, fldPath, "ref")).To(Equal(test.want))
		})
	}
}
