// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

// Package charts renders our charts as gardenlet and gardener-operator do, for
// tests: with the values that these pass, and others.
package charts

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/gardener/gardener/pkg/chartrenderer"
	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/apimachinery/pkg/version"

	"github.com/gardener/gardener-extension-registry-cache/charts"
)

// Values are those of a chart.
type Values = map[string]any

// Release is a chart with values.
type Release struct {
	Chart, Name, Namespace string
	Values                 Values
}

// Manifest returns the objects of a release as one YAML file.
func (r Release) Manifest() ([]byte, error) {
	archive, err := charts.Archive(r.Chart)
	if err != nil {
		return nil, err
	}
	rendered, err := chartrenderer.NewWithServerVersion(&version.Info{Major: "1", Minor: "36", GitVersion: "v1.36.3"}).
		RenderArchive(archive, r.Name, r.Namespace, r.Values)
	if err != nil {
		return nil, fmt.Errorf("render chart %s: %w", r.Chart, err)
	}
	return rendered.Manifest(), nil
}

// Objects returns the objects of a release.
func (r Release) Objects() ([]*unstructured.Unstructured, error) {
	manifest, err := r.Manifest()
	if err != nil {
		return nil, err
	}
	return Decode(manifest)
}

// Deployment returns the only Deployment of a release, or nil.
func (r Release) Deployment() (*appsv1.Deployment, error) {
	objects, err := r.Objects()
	if err != nil {
		return nil, err
	}
	for _, object := range objects {
		if object.GetKind() == "Deployment" {
			deployment := &appsv1.Deployment{}
			return deployment, runtime.DefaultUnstructuredConverter.FromUnstructuredWithValidation(object.Object, deployment, true)
		}
	}
	return nil, nil
}

// Decode returns the objects of a YAML file.
func Decode(manifest []byte) ([]*unstructured.Unstructured, error) {
	var objects []*unstructured.Unstructured
	documents := yaml.NewYAMLToJSONDecoder(bytes.NewReader(manifest))
	for {
		object := &unstructured.Unstructured{}
		err := documents.Decode(object)
		if errors.Is(err, io.EOF) {
			return objects, nil
		}
		if err != nil {
			return nil, fmt.Errorf("decode manifest: %w", err)
		}
		if len(object.Object) > 0 {
			objects = append(objects, object)
		}
	}
}
