// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package admission

import (
	"context"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// conditions keep API servers from asking about what is never refused. So Shoots
// can be deleted, and Gardener can write its annotations and finalizers, while
// nobody answers.
var conditions = []admissionregistrationv1.MatchCondition{
	{Name: "not-in-deletion", Expression: "!has(object.metadata.deletionTimestamp)"},
	{Name: "specification-changes", Expression: "request.operation != 'UPDATE' || object.spec != oldObject.spec"},
}

// NewRegistrationClient returns a client that adds the conditions, which Gardener's
// library cannot express, to the webhooks that it registers.
func NewRegistrationClient(c client.Client) client.Client {
	return registrationClient{c}
}

type registrationClient struct{ client.Client }

// Create is that of client.Client.
func (c registrationClient) Create(ctx context.Context, object client.Object, options ...client.CreateOption) error {
	addConditions(object)
	return c.Client.Create(ctx, object, options...)
}

// Update is that of client.Client.
func (c registrationClient) Update(ctx context.Context, object client.Object, options ...client.UpdateOption) error {
	addConditions(object)
	return c.Client.Update(ctx, object, options...)
}

// Patch is that of client.Client. The patch is made from the object.
func (c registrationClient) Patch(ctx context.Context, object client.Object, patch client.Patch, options ...client.PatchOption) error {
	addConditions(object)
	return c.Client.Patch(ctx, object, patch, options...)
}

func addConditions(object client.Object) {
	if configuration, ok := object.(*admissionregistrationv1.ValidatingWebhookConfiguration); ok {
		for i := range configuration.Webhooks {
			configuration.Webhooks[i].MatchConditions = conditions
		}
	}
}
