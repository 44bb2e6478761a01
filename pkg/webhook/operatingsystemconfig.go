// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"fmt"
	"slices"
	"strings"

	"github.com/go-logr/logr"
	"k8s.io/utils/ptr"

	extensionswebhook "github.com/gardener/gardener/extensions/pkg/webhook"
	extensionsv1alpha1 "github.com/gardener/gardener/pkg/apis/extensions/v1alpha1"

	"github.com/gardener/gardener-extension-registry-cache/pkg/hosts"
)

// configure makes osc configure containerd for the given registries, and for
// nothing else of ours.
func configure(log logr.Logger, osc *extensionsv1alpha1.OperatingSystemConfig, registries []hosts.Registry) error {
	registries, remaining := takeOver(log, osc, registries)
	if len(registries) == 0 {
		removeOurs(osc, nil)
		return nil
	}
	files, err := hosts.Files(registries)
	if err != nil {
		return fmt.Errorf("render hosts.toml fragments: %w", err)
	}
	setContainerdRegistries(osc, remaining)
	ensureFilesAndUnit(osc, files)
	return nil
}

// ensureFilesAndUnit puts files and the unit where they stand already, or at
// the end: an OperatingSystemConfig that has them does not change.
func ensureFilesAndUnit(osc *extensionsv1alpha1.OperatingSystemConfig, files []hosts.File) {
	paths := make([]string, 0, len(files))
	for _, file := range files {
		paths = append(paths, file.Path)
	}
	removeOurs(osc, paths)

	for _, file := range files {
		osc.Spec.Files = extensionswebhook.EnsureFileWithPath(osc.Spec.Files, extensionsv1alpha1.File{
			Path:        file.Path,
			Permissions: ptr.To(file.Mode),
			Content: extensionsv1alpha1.FileContent{
				Inline: &extensionsv1alpha1.FileContentInline{Data: string(file.Content)},
			},
		})
	}
	osc.Spec.Units = extensionswebhook.EnsureUnitWithName(osc.Spec.Units, extensionsv1alpha1.Unit{
		Name:      hosts.UnitName,
		Command:   ptr.To(extensionsv1alpha1.CommandStart),
		Enable:    ptr.To(true),
		Content:   ptr.To(hosts.Unit()),
		FilePaths: paths,
	})
}

// keep makes osc have of ours what old has, which is nothing if old is nil.
func keep(osc, old *extensionsv1alpha1.OperatingSystemConfig) {
	if old == nil || !hasUnit(old) {
		return
	}
	removeOurs(osc, nil)
	taken := make(map[string]bool)
	for _, file := range old.Spec.Files {
		if upstream, ok := ownerOf(file.Path); ok {
			osc.Spec.Files = append(osc.Spec.Files, file)
			taken[upstream] = true
		}
	}
	for _, unit := range old.Spec.Units {
		if unit.Name == hosts.UnitName {
			osc.Spec.Units = append(osc.Spec.Units, unit)
		}
	}
	setContainerdRegistries(osc, slices.DeleteFunc(slices.Clone(containerdRegistries(osc)), func(registry extensionsv1alpha1.RegistryConfig) bool {
		return taken[registry.Upstream]
	}))
}

// removeOurs removes our files, except those at the given paths. Without such
// paths it removes our unit too.
func removeOurs(osc *extensionsv1alpha1.OperatingSystemConfig, except []string) {
	osc.Spec.Files = slices.DeleteFunc(osc.Spec.Files, func(file extensionsv1alpha1.File) bool {
		_, ours := ownerOf(file.Path)
		return ours && !slices.Contains(except, file.Path)
	})
	if len(except) == 0 {
		osc.Spec.Units = slices.DeleteFunc(osc.Spec.Units, func(unit extensionsv1alpha1.Unit) bool {
			return unit.Name == hosts.UnitName
		})
	}
}

func hasUnit(osc *extensionsv1alpha1.OperatingSystemConfig) bool {
	return slices.ContainsFunc(osc.Spec.Units, func(unit extensionsv1alpha1.Unit) bool { return unit.Name == hosts.UnitName })
}

// ownerOf returns the folder below hosts.Directory in which a file lies, which
// is an upstream if the file is a fragment. It returns false if the file is not
// ours.
func ownerOf(path string) (string, bool) {
	relative, ours := strings.CutPrefix(path, hosts.Directory+"/")
	folder, _, _ := strings.Cut(relative, "/")
	return folder, ours
}

func hasTLS(url string) bool {
	return strings.HasPrefix(url, "https://")
}
