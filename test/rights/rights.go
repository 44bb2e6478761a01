// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

// Package rights compares what a program may do, by RBAC, with what it asked an
// API server for, by that server's audit log: a right that is never used should
// not be granted, and a refusal is a right that is missing.
package rights

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"
	"k8s.io/apiserver/pkg/authentication/serviceaccount"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
)

// policy has requests of ServiceAccounts logged, without what they carry.
const policy = `apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: Metadata
  userGroups: [system:serviceaccounts]
- level: None
`

// Log is the audit log of an API server, about all ServiceAccounts.
type Log struct{ file string }

// NewLog returns the log of an API server that is to run with the arguments, by
// their names without dashes. Its files lie in the folder.
func NewLog(dir string) (log *Log, arguments map[string]string, err error) {
	policyFile := filepath.Join(dir, "audit-policy.yaml")
	if err := os.WriteFile(policyFile, []byte(policy), 0o600); err != nil {
		return nil, nil, fmt.Errorf("write audit policy: %w", err)
	}
	log = &Log{filepath.Join(dir, "audit.log")}
	return log, map[string]string{"audit-policy-file": policyFile, "audit-log-path": log.file}, nil
}

// ServiceAccount is a user that an API server takes for a ServiceAccount, though
// it comes with a certificate.
func ServiceAccount(namespace, name string) envtest.User {
	return envtest.User{
		Name:   serviceaccount.MakeUsername(namespace, name),
		Groups: serviceaccount.MakeGroupNames(namespace),
	}
}

// Request is what was asked for. Verb and resource are those of RBAC.
type Request struct {
	Verb, Group, Resource, Namespace, Name string
	Refused                                bool
}

func (r Request) String() string {
	return fmt.Sprintf("%s %s of group %q, %s/%s", r.Verb, r.Resource, r.Group, r.Namespace, r.Name)
}

// Requests returns what a user has asked for.
func (l *Log) Requests(user envtest.User) ([]Request, error) {
	file, err := os.Open(l.file)
	if err != nil {
		return nil, fmt.Errorf("open audit log: %w", err)
	}
	defer file.Close() //nolint:errcheck // nothing is written
	var requests []Request
	lines := bufio.NewScanner(file)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		event := auditv1.Event{}
		if err := json.Unmarshal(lines.Bytes(), &event); err != nil {
			return nil, fmt.Errorf("decode audit log: %w", err)
		}
		if event.User.Username != user.Name || event.ObjectRef == nil {
			continue
		}
		object := event.ObjectRef
		request := Request{
			Verb: event.Verb, Group: object.APIGroup, Resource: object.Resource, Namespace: object.Namespace, Name: object.Name,
			Refused: event.Annotations["authorization.k8s.io/decision"] == "forbid",
		}
		if object.Subresource != "" {
			request.Resource += "/" + object.Subresource
		}
		requests = append(requests, request)
	}
	return requests, lines.Err()
}

// Right is one thing that RBAC allows. An empty namespace or name stands for all.
type Right struct{ Verb, Group, Resource, Namespace, Name string }

func (r Right) String() string {
	text := r.Verb + " " + r.Resource
	if r.Group != "" {
		text += "." + r.Group
	}
	if r.Name != "" {
		text += " " + r.Name
	}
	if r.Namespace != "" {
		text += " in " + r.Namespace
	}
	return text
}

func (r Right) allows(request Request) bool {
	return r.Verb == request.Verb && r.Group == request.Group && r.Resource == request.Resource &&
		(r.Namespace == "" || r.Namespace == request.Namespace) && (r.Name == "" || r.Name == request.Name)
}

// Granted returns the rights of all Roles and ClusterRoles among objects.
func Granted(objects []*unstructured.Unstructured) ([]Right, error) {
	var rights []Right
	for _, object := range objects {
		if kind := object.GetKind(); kind != "Role" && kind != "ClusterRole" {
			continue
		}
		role := &rbacv1.Role{}
		if err := runtime.DefaultUnstructuredConverter.FromUnstructuredWithValidation(object.Object, role, true); err != nil {
			return nil, fmt.Errorf("decode %s %s: %w", object.GetKind(), object.GetName(), err)
		}
		for _, rule := range role.Rules {
			rights = append(rights, expand(rule, role.Namespace)...)
		}
	}
	return rights, nil
}

func expand(rule rbacv1.PolicyRule, namespace string) []Right {
	names := rule.ResourceNames
	if len(names) == 0 {
		names = []string{""}
	}
	var rights []Right
	for _, group := range rule.APIGroups {
		for _, resource := range rule.Resources {
			for _, name := range names {
				for _, verb := range rule.Verbs {
					rights = append(rights, Right{verb, group, resource, namespace, name})
				}
			}
		}
	}
	return rights
}

// Unused returns the rights that no request needed, as texts.
func Unused(rights []Right, requests []Request) []string {
	var unused []string
	for _, right := range rights {
		if !slices.ContainsFunc(requests, right.allows) {
			unused = append(unused, right.String())
		}
	}
	return unused
}

// Refused returns the requests that were not allowed.
func Refused(requests []Request) []Request {
	return slices.DeleteFunc(slices.Clone(requests), func(r Request) bool { return !r.Refused })
}
