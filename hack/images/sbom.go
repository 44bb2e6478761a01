// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"cmp"
	"debug/buildinfo"
	"fmt"
	"runtime/debug"
	"strings"

	cyclonedx "github.com/CycloneDX/cyclonedx-go"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// sbomType is the media type of a CycloneDX document in JSON, and the type of the
// artifact that holds it in a registry.
const sbomType = "application/vnd.cyclonedx+json"

// billOfMaterials returns what a program consists of as a CycloneDX document: the
// modules that Go has noted in the binary, and the Go that built it. It has neither a
// time nor a serial number, so that it is the same each time.
func billOfMaterials(binary []byte, program, version string) ([]byte, error) {
	info, err := buildinfo.Read(bytes.NewReader(binary))
	if err != nil {
		return nil, fmt.Errorf("read what %s was built from: %w", program, err)
	}
	components := []cyclonedx.Component{{
		BOMRef: "pkg:golang/std@" + strings.TrimPrefix(info.GoVersion, "go"), Type: cyclonedx.ComponentTypeLibrary,
		Name: "std", Version: strings.TrimPrefix(info.GoVersion, "go"), PackageURL: "pkg:golang/std@" + strings.TrimPrefix(info.GoVersion, "go"),
	}}
	for _, module := range info.Deps {
		components = append(components, component(module))
	}
	references := make([]string, 0, len(components))
	for _, component := range components {
		references = append(references, component.BOMRef)
	}

	const root = "pkg:golang/github.com/gardener/gardener-extension-registry-cache"
	bom := cyclonedx.NewBOM()
	bom.Metadata = &cyclonedx.Metadata{Component: &cyclonedx.Component{
		BOMRef: root, Type: cyclonedx.ComponentTypeApplication, Name: program, Version: version, PackageURL: root + "@" + version + "#cmd/" + program,
		Licenses:           &cyclonedx.Licenses{{License: &cyclonedx.License{ID: licenses}}},
		ExternalReferences: &[]cyclonedx.ExternalReference{{Type: cyclonedx.ERTypeVCS, URL: source}},
	}}
	bom.Components = &components
	bom.Dependencies = &[]cyclonedx.Dependency{{Ref: root, Dependencies: &references}}

	var document bytes.Buffer
	if err := cyclonedx.NewBOMEncoder(&document, cyclonedx.BOMFileFormatJSON).SetPretty(true).Encode(bom); err != nil {
		return nil, fmt.Errorf("write bill of materials of %s: %w", program, err)
	}
	return document.Bytes(), nil
}

// component describes a module. Of one that is replaced that is what was built in.
func component(module *debug.Module) cyclonedx.Component {
	module = cmp.Or(module.Replace, module)
	reference := "pkg:golang/" + module.Path + "@" + module.Version
	return cyclonedx.Component{
		BOMRef: reference, Type: cyclonedx.ComponentTypeLibrary, Name: module.Path, Version: module.Version, PackageURL: reference,
	}
}

// sbomArtifact returns the artifact that a registry lists as a referrer of an image,
// where scanners look for its bill of materials. See "Listing Referrers" in the OCI
// distribution specification.
func sbomArtifact(document []byte, subject v1.Image, annotations map[string]string) (v1.Image, error) {
	descriptor, err := partial.Descriptor(subject)
	if err != nil {
		return nil, fmt.Errorf("describe the image of the bill of materials: %w", err)
	}
	artifact, err := mutate.AppendLayers(mutate.MediaType(empty.Image, types.OCIManifestSchema1), static.NewLayer(document, sbomType))
	if err != nil {
		return nil, fmt.Errorf("add bill of materials: %w", err)
	}
	artifact = mutate.ConfigMediaType(artifact, sbomType)
	artifact = mutate.Annotations(artifact, annotations).(v1.Image)
	return mutate.Subject(artifact, *descriptor).(v1.Image), nil
}
