// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package example_test

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/yaml"

	gardencorev1beta1 "github.com/gardener/gardener/pkg/apis/core/v1beta1"

	"github.com/gardener/gardener-extension-registry-cache/pkg/admission"
)

// printed is where in a bad example its messages begin.
const printed = "# kubectl apply prints:\n#\n"

// What kubectl itself prints is tested in test/integration/admission.

func TestGoodShootIsAccepted(t *testing.T) {
	NewWithT(t).Expect(problemsOf(t, "good.yaml", nil)).To(BeEmpty())
}

func TestBadShootsAreRefusedWithWhatTheySay(t *testing.T) {
	g := NewWithT(t)
	files, err := filepath.Glob("admission/bad-*.yaml")
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(files).NotTo(BeEmpty())
	usage := string(read(g, "../docs/usage/admission.md"))

	for _, file := range files {
		name := filepath.Base(file)
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			var old *gardencorev1beta1.Shoot
			if name == "bad-update.yaml" {
				_, old = readAdmissionExample(g, "good.yaml")
			}
			problems := problemsOf(t, name, old)
			_, shoot := readAdmissionExample(g, name)
			lines := []string{fmt.Sprintf("The Shoot %q is invalid:", shoot.Name)}
			for _, problem := range problems {
				lines = append(lines, "* "+problem)
			}
			_, after, _ := strings.Cut(string(read(g, file)), printed)
			comment := "#   " + strings.Join(lines, "\n#   ") + "\napiVersion:"
			g.Expect(after).To(HavePrefix(comment))
			g.Expect(usage).To(ContainSubstring(strings.Join(lines, "\n")), "docs/usage/admission.md has the same")
		})
	}
}

// problemsOf returns what is wrong with the Shoot of a file, in a garden that has
// the Secrets of that file.
func problemsOf(t *testing.T, name string, old *gardencorev1beta1.Shoot) []string {
	g := NewWithT(t)
	secrets, shoot := readAdmissionExample(g, name)
	scheme := runtime.NewScheme()
	g.Expect(corev1.AddToScheme(scheme)).To(Succeed())
	garden := fake.NewClientBuilder().WithScheme(scheme)
	for _, secret := range secrets {
		garden = garden.WithObjects(secret)
	}
	var problems []string
	for _, problem := range admission.NewValidator(garden.Build()).Validate(t.Context(), shoot, old) {
		problems = append(problems, problem.Error())
	}
	return problems
}

// readAdmissionExample returns the Secrets and the Shoot of a file.
func readAdmissionExample(g *WithT, name string) ([]*corev1.Secret, *gardencorev1beta1.Shoot) {
	documents := strings.Split(string(read(g, filepath.Join("admission", name))), "\n---\n")
	var secrets []*corev1.Secret
	for _, document := range documents[:len(documents)-1] {
		secret := &corev1.Secret{}
		unmarshal(g, []byte(document), secret)
		secret.Data = make(map[string][]byte, len(secret.StringData))
		for key, value := range secret.StringData {
			secret.Data[key] = []byte(value)
		}
		secrets = append(secrets, secret)
	}
	shoot := &gardencorev1beta1.Shoot{}
	g.Expect(yaml.UnmarshalStrict([]byte(documents[len(documents)-1]), shoot)).To(Succeed())
	g.Expect(shoot.Kind).To(Equal("Shoot"))
	return secrets, shoot
}
