// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package rights_test

import (
	"os"
	"testing"

	. "github.com/onsi/gomega"

	"github.com/gardener/gardener-extension-registry-cache/test/charts"
	"github.com/gardener/gardener-extension-registry-cache/test/rights"
)

const role = `
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: a}
rules:
- {apiGroups: [""], resources: [secrets], verbs: [get, list]}
- {apiGroups: [example.com], resources: [things/status], resourceNames: [one, two], verbs: [patch]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: a, namespace: here}
rules:
- {apiGroups: [coordination.k8s.io], resources: [leases], verbs: [create]}
`

const log = `
{"verb":"get","user":{"username":"system:serviceaccount:here:a"},"objectRef":{"resource":"secrets","namespace":"n","name":"s"},"annotations":{"authorization.k8s.io/decision":"allow"}}
{"verb":"list","user":{"username":"system:serviceaccount:here:b"},"objectRef":{"resource":"secrets"},"annotations":{"authorization.k8s.io/decision":"allow"}}
{"verb":"patch","user":{"username":"system:serviceaccount:here:a"},"objectRef":{"apiGroup":"example.com","resource":"things","subresource":"status","name":"two"},"annotations":{"authorization.k8s.io/decision":"allow"}}
{"verb":"create","user":{"username":"system:serviceaccount:here:a"},"objectRef":{"apiGroup":"coordination.k8s.io","resource":"leases","namespace":"there"},"annotations":{"authorization.k8s.io/decision":"forbid"}}
{"verb":"get","user":{"username":"system:serviceaccount:here:a"},"requestURI":"/api"}
`

func TestComparison(t *testing.T) {
	g := NewWithT(t)
	auditLog, arguments, err := rights.NewLog(t.TempDir())
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(os.WriteFile(arguments["audit-log-path"], []byte(log[1:]), 0o600)).To(Succeed())
	objects, err := charts.Decode([]byte(role))
	g.Expect(err).NotTo(HaveOccurred())

	requests, err := auditLog.Requests(rights.ServiceAccount("here", "a"))
	g.Expect(err).NotTo(HaveOccurred())
	granted, err := rights.Granted(objects)
	g.Expect(err).NotTo(HaveOccurred())

	g.Expect(requests).To(HaveLen(3))
	g.Expect(rights.Refused(requests)).To(HaveExactElements(HaveField("Namespace", "there")))
	g.Expect(rights.Unused(granted, requests)).To(HaveExactElements(
		"list secrets", "patch things/status.example.com one", "create leases.coordination.k8s.io in here"))
}
