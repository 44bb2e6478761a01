// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

// Package monitoring_test hands what package monitoring says to Prometheus itself:
// promtool checks the rules and has each alert fire, and a Prometheus that scrapes
// caches under load has to have an answer for each panel of the dashboard.
package monitoring_test

import (
	"flag"
	"io"
	"regexp"
	"testing"

	. "github.com/onsi/gomega"
	"github.com/sirupsen/logrus"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/gardener/gardener-extension-registry-cache/pkg/apis/registry/v1alpha3"
	"github.com/gardener/gardener-extension-registry-cache/pkg/monitoring"
)

func TestMain(m *testing.M) {
	logrus.SetOutput(io.Discard) // what the upstreams log
	m.Run()
}

var update = flag.Bool("update", false, "draw the picture of the dashboard anew")

// legendLabel is where a legend has the value of a label.
var legendLabel = regexp.MustCompile(`{{(\w+)}}`)

// objects are those of a Shoot with two caches.
func objects(t *testing.T) []client.Object {
	t.Helper()
	g := NewWithT(t)
	config, err := v1alpha3.Decode([]byte(`
apiVersion: registry.extensions.gardener.cloud/v1alpha3
kind: RegistryConfig
caches:
- upstream: docker.io
- upstream: registry.example.com:5000
  serviceNameSuffix: example
`))
	g.Expect(err).NotTo(HaveOccurred())
	all, err := monitoring.Objects("shoot--foo--bar", config.Caches)
	g.Expect(err).NotTo(HaveOccurred())
	return all
}
