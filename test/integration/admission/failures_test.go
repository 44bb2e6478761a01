// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package admission_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	gardencorev1beta1 "github.com/gardener/gardener/pkg/apis/core/v1beta1"
)

// inFlight is how many requests one API server has in flight by default: all of them
// must be answered.
const inFlight = 600

// credentials is the Secret that the Shoots here refer to.
const credentials = "failures-credentials"

var _ = Describe("Failures", func() {
	var withCredentials *gardencorev1beta1.Shoot

	BeforeEach(func(ctx SpecContext) {
		awaitRegistration(ctx)
		secret := &corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{Namespace: "garden-dev", Name: credentials}, Immutable: ptr.To(true),
			Data: map[string][]byte{"username": []byte("u"), "password": []byte("p")},
		}
		Expect(client.IgnoreAlreadyExists(garden.Create(ctx, secret))).To(Succeed())
		withCredentials = newShoot("failures", withCaches(`{"upstream": "docker.io", "secretReferenceName": "`+credentials+`"}`), withSecret(credentials))
	})

	It("refuses only Shoots with caches or mirrors while it is down", func(ctx SpecContext) {
		Expect(garden.Create(ctx, newShoot("while-down", withCaches(`{"upstream": "docker.io"}`)))).To(Succeed())
		Expect(admission.Stop()).To(Succeed())
		DeferCleanup(func(ctx SpecContext) { startAdmissionAnew(ctx) })

		Expect(garden.Create(ctx, newShoot("without-extensions"))).To(Succeed())
		Expect(garden.Create(ctx, newShoot("with-another", withExtension("other", `{"foo":"bar"}`)))).To(Succeed())
		// A disabled extension needs no admission.
		disabled := newShoot("disabled", withCaches(`{"upstream": "docker.io"}`))
		disabled.Spec.Extensions[0].Disabled = ptr.To(true)
		Expect(garden.Create(ctx, disabled)).To(Succeed())

		for extensionType, shoot := range map[string]*gardencorev1beta1.Shoot{
			"registry-cache":  newShoot("with-caches", withCaches(`{"upstream": "docker.io"}`)),
			"registry-mirror": newShoot("with-mirrors", withExtension("registry-mirror", `{}`)),
		} {
			started := time.Now()
			stderr := kubectlApply(ctx, toYAML(shoot))
			Expect(stderr).To(And(ContainSubstring("failed calling webhook"), ContainSubstring(extensionType+".admission-registry-cache.extensions.gardener.cloud"), ContainSubstring("connection refused")))
			Expect(time.Since(started)).To(BeNumerically("<", 8*time.Second))
		}
		// Of a Shoot that is there already, all else goes on: Gardener's status, marks and
		// finalizers, and its deletion.
		stored := getShoot(ctx, "while-down")
		change := func(path, value string) error {
			return garden.Patch(ctx, stored.DeepCopy(), client.RawPatch(types.JSONPatchType, []byte(`[{"op":"add","path":"`+path+`","value":`+value+`}]`)))
		}
		Expect(change("/spec/hibernation", `{"enabled":true}`)).To(MatchError(ContainSubstring("failed calling webhook")))
		Expect(change("/metadata/annotations", `{"confirmation.gardener.cloud/deletion":"true"}`)).To(Succeed())
		Expect(change("/metadata/finalizers", `["gardener"]`)).To(Succeed())
		Expect(garden.Delete(ctx, stored.DeepCopy())).To(Succeed())
		Expect(getShoot(ctx, "while-down").DeletionTimestamp).NotTo(BeNil())
		Expect(change("/metadata/finalizers", "[]")).To(Succeed())
		Expect(garden.Get(ctx, client.ObjectKeyFromObject(stored), &gardencorev1beta1.Shoot{})).To(Satisfy(apierrors.IsNotFound))

		Expect(garden.Create(ctx, newShoot("status-while-down"))).To(Succeed())
		stored = getShoot(ctx, "status-while-down")
		Expect(garden.Status().Patch(ctx, stored, client.RawPatch(types.MergePatchType, []byte(`{"status":{"hibernated":true}}`)))).To(Succeed())
	}, SpecTimeout(2*time.Minute))

	It("says which Secret it waits for when the API server is slow, and holds up nobody else", func(ctx SpecContext) {
		proxy.slowSecrets(time.Minute)
		DeferCleanup(func() { proxy.slowSecrets(0) })

		const requests = 5 // all of which are there before the patience with the first one ends
		before := len(proxy.seen(credentials))
		var (
			waiting  sync.WaitGroup
			answered atomic.Int32
		)
		for range requests {
			waiting.Go(func() {
				defer GinkgoRecover()
				err := garden.Create(ctx, withCredentials.DeepCopy(), client.DryRunAll)
				answered.Add(1)
				Expect(apierrors.IsInternalError(err)).To(BeTrue(), "%v", err)
				Expect(err).To(MatchError(ContainSubstring(
					`spec.extensions[0].providerConfig.caches[0].secretReferenceName: Internal error: the Secret "garden-dev/failures-credentials" could not be checked within 5s: try again`)))
			})
		}
		Eventually(func() []string { return proxy.seen(credentials) }).Should(HaveLen(before + requests))
		Expect(garden.Create(ctx, newShoot("meanwhile", withCaches(`{"upstream": "docker.io"}`)), client.DryRunAll)).To(Succeed())
		Expect(answered.Load()).To(BeZero(), "the others are still waited for")
		waiting.Wait()

		proxy.slowSecrets(2 * time.Second)
		Expect(garden.Create(ctx, withCredentials, client.DryRunAll)).To(Succeed())
	}, SpecTimeout(time.Minute))

	It("answers what it was asked before it ends", func(ctx SpecContext) {
		proxy.slowSecrets(2 * time.Second)
		DeferCleanup(func() { proxy.slowSecrets(0) })
		before := len(proxy.seen(credentials))
		answer := make(chan error, 1)
		go func() { answer <- garden.Create(ctx, withCredentials, client.DryRunAll) }()
		Eventually(func() []string { return proxy.seen(credentials) }).Should(HaveLen(before + 1))

		Expect(admission.Stop()).To(Succeed())
		DeferCleanup(func(ctx SpecContext) { startAdmissionAnew(ctx) })
		Eventually(answer).Should(Receive(BeNil()))
	})

	It("says whom to ask when it may not read a Secret", func(ctx SpecContext) {
		binding := &rbacv1.ClusterRoleBinding{}
		Expect(garden.Get(ctx, client.ObjectKey{Name: configurationName}, binding)).To(Succeed())
		Expect(garden.Delete(ctx, binding)).To(Succeed())
		DeferCleanup(func(ctx SpecContext) {
			binding.ResourceVersion = ""
			Expect(garden.Create(ctx, binding)).To(Succeed())
			Eventually(func() error { return garden.Create(ctx, withCredentials.DeepCopy(), client.DryRunAll) }).Should(Succeed())
		})

		Eventually(func(g Gomega) {
			err := garden.Create(ctx, withCredentials.DeepCopy(), client.DryRunAll)
			g.Expect(apierrors.IsInternalError(err)).To(BeTrue(), "%v", err)
			g.Expect(err).To(MatchError(And(
				ContainSubstring(`the Secret "garden-dev/failures-credentials" cannot be checked, for the extension's admission is not allowed to read it: ask the operators of Gardener`),
				Not(ContainSubstring("cannot get resource")))))
		}).Should(Succeed())
		// What needs no Secret is judged as ever.
		Expect(garden.Create(ctx, newShoot("no-secret", withCaches(`{"upstream": "docker.io"}`)), client.DryRunAll)).To(Succeed())
	})

	It("says that a Secret has gone", func(ctx SpecContext) {
		// Gardener refuses a new entry without a Secret, so that the entry is older than
		// the cache.
		secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "garden-dev", Name: "gone"}}
		Expect(garden.Create(ctx, secret)).To(Succeed())
		Expect(garden.Create(ctx, newShoot("secret-gone", withCaches(`{"upstream": "docker.io"}`), withSecret("gone")))).To(Succeed())
		Expect(garden.Delete(ctx, secret)).To(Succeed())

		stderr, err := user.run(ctx, "", "-n", "garden-dev", "patch", "shoot", "secret-gone", "--type=json", "-p",
			`[{"op": "add", "path": "/spec/extensions/0/providerConfig/caches/0/secretReferenceName", "value": "gone"}]`)
		Expect(err).To(HaveOccurred())
		Expect(stderr).To(Equal(`The Shoot "secret-gone" is invalid: spec.extensions[0].providerConfig.caches[0].secretReferenceName: Not found: "gone": ` +
			`the Secret "garden-dev/gone", to which the entry of this name in spec.resources of the Shoot refers, does not exist: create it, or correct resourceRef.name` + "\n"))
	})

	DescribeTable("refuses what is too much, at once and in short", func(ctx SpecContext, config, expected string) {
		started := time.Now()
		err := garden.Create(ctx, newShoot("too-much", withExtension("registry-cache", config)), client.DryRunAll)
		Expect(apierrors.IsInvalid(err)).To(BeTrue(), "%.1000v", err)
		Expect(err).To(MatchError(ContainSubstring(expected)))
		Expect(len(err.Error())).To(BeNumerically("<", 20_000))
		Expect(time.Since(started)).To(BeNumerically("<", 10*time.Second))
	},
		Entry("size", `{"apiVersion":"`+strings.Repeat("a", 1<<20)+`"}`, "the configuration has 1048593 bytes, at most 65536 are allowed"),
		Entry("depth", strings.Repeat(`{"a":[`, 2_000)+strings.Repeat(`]}`, 2_000), "the configuration is nested more than 16 levels deep"),
		Entry("mistakes", `{"apiVersion":"registry.extensions.gardener.cloud/v1alpha3","kind":"RegistryConfig","caches":[{}`+strings.Repeat(",{}", 20_000)+`]}`, "19901 more problems are not shown"),
	)

	DescribeTable("stays small and quick when many requests come at once", func(ctx SpecContext, requests int, secretField string) {
		// Anew, for the garbage of other specs is none of this one's memory.
		Expect(admission.Stop()).To(Succeed())
		startAdmissionAnew(ctx)
		var caches []string
		for i := range 20 {
			caches = append(caches, fmt.Sprintf(`{"upstream":"registry-%d.example.com","volume":{"size":"50Gi"}%s}`, i, secretField))
		}
		old := getStored(ctx, newShoot("many", withCaches(`{"upstream": "docker.io"}`), withSecret(credentials)))
		shoot := old.DeepCopy()
		shoot.Spec.Extensions = nil
		withCaches(strings.Join(caches, ","))(shoot)
		review := newReview(shoot, old)

		before, err := admission.memory("VmRSS")
		Expect(err).NotTo(HaveOccurred())
		started := time.Now()
		times, refused := post(ctx, requests, review)
		total := time.Since(started)
		peak, err := admission.memory("VmHWM")
		Expect(err).NotTo(HaveOccurred())
		AddReportEntry("figures", fmt.Sprintf("%d requests of %d KB at once, %d of them told to try again: %s in all, median %s, 99 percent within %s, slowest %s; memory %d MB before, %d MB at most",
			requests, len(review)/1000, refused, total.Round(time.Millisecond),
			times[len(times)/2].Round(time.Millisecond), times[len(times)*99/100].Round(time.Millisecond), times[len(times)-1].Round(time.Millisecond),
			before/1024, peak/1024))
		Expect(peak-before).To(BeNumerically("<", 40*1024+requests*120), "KiB")
		if requests == inFlight {
			Expect(refused).To(BeZero())
		}

		// And it is well afterwards.
		Expect(garden.Create(ctx, withCredentials, client.DryRunAll)).To(Succeed())
	},
		Entry("600", inFlight, "", SpecTimeout(time.Minute)),
		Entry("600 with a Secret each", inFlight, `,"secretReferenceName":"`+credentials+`"`, SpecTimeout(time.Minute)),
		Entry("5000", 5_000, "", SpecTimeout(3*time.Minute)),
		Entry("5000 with a Secret each", 5_000, `,"secretReferenceName":"`+credentials+`"`, SpecTimeout(3*time.Minute)),
	)

	It("lists and watches nothing, least of all Secrets and Shoots", func(ctx SpecContext) {
		Expect(garden.Create(ctx, withCredentials, client.DryRunAll)).To(Succeed())
		Expect(proxy.seen("/secrets/" + credentials)).NotTo(BeEmpty())
		Expect(proxy.seen("watch=", "/secrets?", "/shoots", "/namespaces?")).To(BeEmpty())
		for _, request := range proxy.seen("/") {
			Expect(request).To(Or(
				HavePrefix("GET /api/v1/namespaces/garden-dev/secrets/"),
				Equal("GET /api/v1/namespaces/extension-registry-cache"),
				HaveSuffix("/validatingwebhookconfigurations/gardener-extension-admission-registry-cache"),
				Equal("POST /apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations"),
				Equal("GET /api"), Equal("GET /apis"),
			))
		}
	})
})

// getStored creates a Shoot, unless it exists, and returns it as the garden stores
// it.
func getStored(ctx context.Context, shoot *gardencorev1beta1.Shoot) *gardencorev1beta1.Shoot {
	GinkgoHelper()
	Expect(client.IgnoreAlreadyExists(garden.Create(ctx, shoot))).To(Succeed())
	return getShoot(ctx, shoot.Name)
}

// newReview returns what an API server sends when a Shoot is updated.
func newReview(shoot, old *gardencorev1beta1.Shoot) []byte {
	GinkgoHelper()
	raw := func(object any) []byte {
		content, err := json.Marshal(object)
		Expect(err).NotTo(HaveOccurred())
		return content
	}
	return raw(&admissionv1.AdmissionReview{
		TypeMeta: metav1.TypeMeta{APIVersion: "admission.k8s.io/v1", Kind: "AdmissionReview"},
		Request: &admissionv1.AdmissionRequest{
			UID: "1", Operation: admissionv1.Update, Kind: metav1.GroupVersionKind{Group: "core.gardener.cloud", Version: "v1beta1", Kind: "Shoot"},
			Object: runtime.RawExtension{Raw: raw(shoot)}, OldObject: runtime.RawExtension{Raw: raw(old)},
		},
	})
}

// post sends a review many times at once, expects each to be allowed or told to
// try again, and returns how long each took, sorted, and how many were refused.
// So that connections are no limit, there are several, which are open before.
func post(ctx context.Context, count int, review []byte) ([]time.Duration, int) {
	GinkgoHelper()
	clients := make([]*http.Client, 20)
	for i := range clients {
		transport := &http.Transport{ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
		defer transport.CloseIdleConnections()
		clients[i] = &http.Client{Transport: transport}
		postOnce(ctx, clients[i], review)
	}
	var (
		group   sync.WaitGroup
		refused atomic.Int64
	)
	times := make([]time.Duration, count)
	for i := range count {
		group.Go(func() {
			defer GinkgoRecover()
			started := time.Now()
			answer := postOnce(ctx, clients[i%len(clients)], review)
			times[i] = time.Since(started)
			if strings.Contains(answer, "try again") {
				refused.Add(1)
			} else {
				Expect(answer).To(ContainSubstring(`"allowed":true`))
			}
		})
	}
	group.Wait()
	slices.Sort(times)
	return times, int(refused.Load())
}

func postOnce(ctx context.Context, c *http.Client, review []byte) string {
	GinkgoHelper()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, admission.webhookURL, bytes.NewReader(review))
	Expect(err).NotTo(HaveOccurred())
	request.Header.Set("Content-Type", "application/json")
	response, err := c.Do(request)
	Expect(err).NotTo(HaveOccurred())
	defer func() { _ = response.Body.Close() }()
	content, err := io.ReadAll(response.Body)
	Expect(err).NotTo(HaveOccurred())
	return string(content)
}
