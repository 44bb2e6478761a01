// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package admission_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"unicode/utf8"

	. "github.com/onsi/gomega"
	admissionv1 "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	ctrladmission "sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	gardencorev1beta1 "github.com/gardener/gardener/pkg/apis/core/v1beta1"

	"github.com/gardener/gardener-extension-registry-cache/pkg/admission"
)

// request is what an API server sends. Its version of Shoots may be a later one.
func request(g *WithT, shoot, old *gardencorev1beta1.Shoot) ctrladmission.Request {
	raw := func(shoot *gardencorev1beta1.Shoot) runtime.RawExtension {
		shoot.APIVersion, shoot.Kind = "core.gardener.cloud/v1", "Shoot"
		return runtime.RawExtension{Raw: toJSON(g, shoot)}
	}
	request := ctrladmission.Request{AdmissionRequest: admissionv1.AdmissionRequest{Operation: admissionv1.Create, Object: raw(shoot)}}
	if old != nil {
		request.Operation, request.OldObject = admissionv1.Update, raw(old)
	}
	return request
}

func TestAnswers(t *testing.T) {
	right := newShoot(with("registry-cache", caches+"- upstream: docker.io"))
	wrong := newShoot(with("registry-cache", caches+"- {upstream: a.io/b}\n- {upstream: c.io/d}"))
	forbidden := newShoot(with("registry-cache", caches+"- {upstream: docker.io, secretReferenceName: one}"), resource("one", "forbidden"))
	mixed := newShoot(with("registry-cache", caches+"- {upstream: a.io/b, secretReferenceName: one}"), resource("one", "forbidden"))

	for name, test := range map[string]struct {
		shoot, old *gardencorev1beta1.Shoot
		code       int32
		reason     metav1.StatusReason
		causes     []string
		message    string
	}{
		"right":                {shoot: right, code: http.StatusOK},
		"wrong before and now": {shoot: wrong, old: wrong, code: http.StatusOK},
		"wrong": {
			shoot: wrong, old: right, code: http.StatusUnprocessableEntity, reason: metav1.StatusReasonInvalid,
			causes:  []string{"spec.extensions[0].providerConfig.caches[0].upstream", "spec.extensions[0].providerConfig.caches[1].upstream"},
			message: `Shoot.core.gardener.cloud "one" is invalid: [spec.extensions[0].providerConfig.caches[0].upstream: Invalid value: "a.io/b": must not`,
		},
		"wrong, and a Secret that cannot be read": {
			shoot: mixed, code: http.StatusUnprocessableEntity, reason: metav1.StatusReasonInvalid,
			causes:  []string{"spec.extensions[0].providerConfig.caches[0].upstream", "spec.extensions[0].providerConfig.caches[0].secretReferenceName"},
			message: `Shoot.core.gardener.cloud "one" is invalid: [`,
		},
		"a Secret that cannot be read": {
			shoot: forbidden, code: http.StatusInternalServerError, reason: metav1.StatusReasonInternalError,
			message: `spec.extensions[0].providerConfig.caches[0].secretReferenceName: Internal error: the Secret "garden-dev/forbidden" cannot be checked`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			response := admission.NewValidator(&secrets{}).Handle(t.Context(), request(g, test.shoot, test.old))

			g.Expect(response.Allowed).To(Equal(test.code == http.StatusOK))
			g.Expect(response.Result.Code).To(Equal(test.code))
			g.Expect(response.Result.Reason).To(Equal(test.reason))
			g.Expect(response.Result.Message).To(HavePrefix(test.message))
			var causes []string
			if details := response.Result.Details; details != nil {
				g.Expect(details.Kind).To(Equal("Shoot"))
				g.Expect(details.Name).To(Equal("one"))
				for _, cause := range details.Causes {
					causes = append(causes, cause.Field)
				}
			}
			g.Expect(causes).To(Equal(test.causes))
		})
	}
}

func TestBadRequests(t *testing.T) {
	right := runtime.RawExtension{Raw: []byte(`{"metadata":{"name":"one"}}`)}
	for name, test := range map[string]struct {
		request admissionv1.AdmissionRequest
		want    string
	}{
		"empty":         {admissionv1.AdmissionRequest{Operation: admissionv1.Create}, "decode Shoot: "},
		"no Shoot":      {admissionv1.AdmissionRequest{Operation: admissionv1.Create, Object: runtime.RawExtension{Raw: []byte(`[]`)}}, "decode Shoot: "},
		"no old object": {admissionv1.AdmissionRequest{Operation: admissionv1.Update, Object: right}, "decode old Shoot: "},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			response := admission.NewValidator(&secrets{}).Handle(t.Context(), ctrladmission.Request{AdmissionRequest: test.request})
			g.Expect(response.Allowed).To(BeFalse())
			g.Expect(response.Result.Code).To(Equal(int32(http.StatusBadRequest)))
			g.Expect(response.Result.Message).To(HavePrefix(test.want))
		})
	}
}

func TestAnswersAreBounded(t *testing.T) {
	long := strings.Repeat("ä", 10_000)
	var duplicates strings.Builder
	for i := range 120 {
		fmt.Fprintf(&duplicates, `"%d":1,"%d":1,`, i, i)
	}
	for name, test := range map[string]struct {
		config string
		causes int
		last   string
	}{
		"problems": {
			`{"apiVersion":"registry.extensions.gardener.cloud/v1alpha3","kind":"RegistryConfig","caches":[` + strings.Repeat(`{},`, 20_000) + `{}]}`, 101,
			`Invalid value: 19901 more problems are not shown: correct these first`,
		},
		"values":         {fmt.Sprintf(`{"apiVersion":"registry.extensions.gardener.cloud/v1alpha3","kind":"RegistryConfig","caches":[{"upstream":%q,"remoteURL":%q}]}`, long, long), 2, ""},
		"unknown fields": {fmt.Sprintf(`{"apiVersion":"registry.extensions.gardener.cloud/v1alpha3","kind":"RegistryConfig","caches":[],%q:1}`, long), 2, ""},
		"duplicate fields": {
			`{"apiVersion":"registry.extensions.gardener.cloud/v1alpha3","kind":"RegistryConfig","caches":[],"` + strings.Repeat("x", 60_000) + `":{` + duplicates.String() + `"0":1}}`, 101, "",
		},
		"capability": {fmt.Sprintf(`{"apiVersion":"registry.extensions.gardener.cloud/v1alpha3","kind":"RegistryConfig","caches":[{"upstream":"a.io","serviceNameSuffix":%q}]}`, long), 2, ""},
		"version":    {fmt.Sprintf(`{"apiVersion":%q}`, long), 1, ""},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			response := admission.NewValidator(&secrets{}).Handle(t.Context(), request(g, newShoot(withRaw("registry-cache", test.config)), nil))

			g.Expect(response.Allowed).To(BeFalse())
			g.Expect(response.Result.Details.Causes).To(HaveLen(test.causes))
			for _, cause := range response.Result.Details.Causes {
				g.Expect(len(cause.Message)).To(BeNumerically("<", 1500))
				g.Expect(utf8.ValidString(cause.Message)).To(BeTrue())
			}
			if test.last != "" {
				g.Expect(response.Result.Details.Causes[test.causes-1].Message).To(Equal(test.last))
			}
			g.Expect(len(toJSON(g, response))).To(BeNumerically("<", 100_000))
		})
	}
}

func BenchmarkHandle(b *testing.B) {
	g := NewWithT(b)
	validator := admission.NewValidator(&secrets{})
	for name, request := range map[string]ctrladmission.Request{
		"create":                   request(g, newLargeShoot(50), nil),
		"create with all fields":   request(g, newFullShoot(50), nil),
		"update of something else": request(g, newFullShoot(50), newFullShoot(50)),
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if response := validator.Handle(b.Context(), request); !response.Allowed {
					b.Fatal(response.Result.Message)
				}
			}
		})
	}
}

func FuzzHandle(f *testing.F) {
	f.Add(`{"apiVersion":"registry.extensions.gardener.cloud/v1alpha3","kind":"RegistryConfig","caches":[{"upstream":"docker.io"}]}`, `{}`, true)
	f.Add(`{"apiVersion":"mirror.extensions.gardener.cloud/v1alpha1","kind":"MirrorConfig","mirrors":[{"upstream":"docker.io","hosts":[{"host":"https://a"}]}]}`, `null`, false)
	f.Fuzz(func(t *testing.T, config, oldConfig string, caches bool) {
		if !json.Valid([]byte(config)) || !json.Valid([]byte(oldConfig)) {
			t.Skip("an API server sends valid JSON")
		}
		g := NewWithT(t)
		extensionType := "registry-mirror"
		if caches {
			extensionType = "registry-cache"
		}
		shoot, old := newShoot(withRaw(extensionType, config)), newShoot(withRaw(extensionType, oldConfig))
		validator := admission.NewValidator(&secrets{})

		// Must not panic, and what is stored must not be refused.
		_ = validator.Handle(t.Context(), request(g, shoot, old))
		var indented bytes.Buffer
		g.Expect(json.Indent(&indented, []byte(config), " ", "\t")).To(Succeed())
		same := newShoot(withRaw(extensionType, indented.String()))
		g.Expect(validator.Handle(t.Context(), request(g, same, shoot)).Allowed).To(BeTrue())
	})
}
