// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package main

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// plugin is what krew calls a plugin manifest, see
// https://krew.sigs.k8s.io/docs/developer-guide/plugin-manifest.
type plugin struct {
	APIVersion string   `json:"apiVersion"`
	Kind       string   `json:"kind"`
	Metadata   metadata `json:"metadata"`
	Spec       spec     `json:"spec"`
}

type metadata struct {
	Name string `json:"name"`
}

type spec struct {
	Version          string     `json:"version"`
	Homepage         string     `json:"homepage"`
	ShortDescription string     `json:"shortDescription"`
	Description      string     `json:"description"`
	Platforms        []platform `json:"platforms"`
}

type platform struct {
	Selector metav1.LabelSelector `json:"selector"`
	URI      string               `json:"uri"`
	SHA256   string               `json:"sha256"`
	// Bin is the program in the archive, which krew links as kubectl finds it.
	Bin string `json:"bin"`
}

func newManifest(version string) *plugin {
	return &plugin{
		APIVersion: "krew.googlecontainertools.github.com/v1alpha2", Kind: "Plugin", Metadata: metadata{Name: pluginName},
		Spec: spec{
			Version: version, Homepage: source,
			ShortDescription: "See the registry caches of a Gardener Shoot",
			Description: `Shows how the registry caches of a Gardener Shoot are, what they do, and what they
have; explains where nodes get an image from; and validates Shoot manifests offline,
as the extension's admission does. It changes nothing.
`,
		},
	}
}

// platform returns the archive as the manifest has it, to be downloaded from a folder.
func (a *archive) platform(folder string) platform {
	return platform{
		Selector: metav1.LabelSelector{MatchLabels: map[string]string{"os": a.os, "arch": a.arch}},
		URI:      folder + "/" + a.name, SHA256: a.sum(), Bin: a.binary,
	}
}
