// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"fmt"
	"slices"

	"github.com/go-logr/logr"

	extensionsv1alpha1 "github.com/gardener/gardener/pkg/apis/extensions/v1alpha1"
	operatingsystemconfigutils "github.com/gardener/gardener/pkg/component/extensions/operatingsystemconfig/utils"

	"github.com/gardener/gardener-extension-registry-cache/pkg/hosts"
)

// takeOver appends to each registry the hosts that osc has for the same
// upstream: containerd knows only one hosts.toml for it. It returns the
// registries that we configure, and the entries that remain in osc.
//
// An entry that we cannot express is left as it is, and its upstream has no
// cache on this node: what another extension wants must not be lost to ours.
func takeOver(log logr.Logger, osc *extensionsv1alpha1.OperatingSystemConfig, registries []hosts.Registry) ([]hosts.Registry, []extensionsv1alpha1.RegistryConfig) {
	var (
		entries = containerdRegistries(osc)
		ours    = make([]hosts.Registry, 0, len(registries))
		taken   = make(map[string]bool)
	)
	for _, registry := range registries {
		combined, err := combine(osc, registry, entries)
		if err != nil {
			log.Error(err, "The cache and the mirrors of an upstream are not used", "upstream", registry.Upstream)
			continue
		}
		taken[registry.Upstream] = true
		ours = append(ours, combined)
	}

	remaining := slices.DeleteFunc(slices.Clone(entries), func(entry extensionsv1alpha1.RegistryConfig) bool { return taken[entry.Upstream] })
	return ours, remaining
}

// combine returns the registry with the hosts of those entries that are for the
// same upstream. It returns an error if the result is nothing that a node can do.
func combine(osc *extensionsv1alpha1.OperatingSystemConfig, registry hosts.Registry, entries []extensionsv1alpha1.RegistryConfig) (hosts.Registry, error) {
	for _, entry := range entries {
		if entry.Upstream != registry.Upstream {
			continue
		}
		foreign, err := foreignHosts(osc, entry, registry.Hosts)
		if err != nil {
			return hosts.Registry{}, fmt.Errorf("take over the entry in criConfig.containerd.registries: %w", err)
		}
		registry.Hosts = append(slices.Clone(registry.Hosts), foreign...)
	}
	if _, err := hosts.Files([]hosts.Registry{registry}); err != nil {
		return hosts.Registry{}, fmt.Errorf("render hosts.toml: %w", err)
	}
	return registry, nil
}

// foreignHosts returns the hosts of an entry except those that are known.
func foreignHosts(osc *extensionsv1alpha1.OperatingSystemConfig, entry extensionsv1alpha1.RegistryConfig, known []hosts.Host) ([]hosts.Host, error) {
	var foreign []hosts.Host
	for _, entryHost := range entry.Hosts {
		if slices.ContainsFunc(known, func(host hosts.Host) bool { return host.URL == entryHost.URL }) {
			continue
		}
		caBundle, err := inlineFiles(osc, entryHost.CACerts)
		if err != nil {
			return nil, fmt.Errorf("certificate authorities of host %s: %w", entryHost.URL, err)
		}
		foreign = append(foreign, hosts.Host{
			Kind:         hosts.Mirror,
			URL:          entryHost.URL,
			Capabilities: capabilities(entryHost),
			CABundle:     caBundle,
			OverridePath: entryHost.OverridePath,
		})
	}
	return foreign, nil
}

// capabilities returns what a host is used for; without an entry the default of
// the OperatingSystemConfig's API applies.
func capabilities(host extensionsv1alpha1.RegistryHost) []string {
	if len(host.Capabilities) == 0 {
		return []string{string(extensionsv1alpha1.PullCapability), string(extensionsv1alpha1.ResolveCapability)}
	}
	names := make([]string, 0, len(host.Capabilities))
	for _, capability := range host.Capabilities {
		names = append(names, string(capability))
	}
	return names
}

// inlineFiles returns the content of the files at the given paths, one after the
// other. osc has to hold each of them in clear.
func inlineFiles(osc *extensionsv1alpha1.OperatingSystemConfig, paths []string) ([]byte, error) {
	var content []byte
	for _, path := range paths {
		i := slices.IndexFunc(osc.Spec.Files, func(file extensionsv1alpha1.File) bool { return file.Path == path })
		if i < 0 || osc.Spec.Files[i].Content.Inline == nil {
			return nil, fmt.Errorf("the OperatingSystemConfig does not hold the content of %s", path)
		}
		data, err := operatingsystemconfigutils.NewFileContentInlineCodec().Decode(osc.Spec.Files[i].Content.Inline)
		if err != nil {
			return nil, fmt.Errorf("decode %s: %w", path, err)
		}
		content = append(append(content, data...), '\n')
	}
	return content, nil
}

func containerdRegistries(osc *extensionsv1alpha1.OperatingSystemConfig) []extensionsv1alpha1.RegistryConfig {
	if osc.Spec.CRIConfig == nil || osc.Spec.CRIConfig.Containerd == nil {
		return nil
	}
	return osc.Spec.CRIConfig.Containerd.Registries
}

// setContainerdRegistries sets the entries if they change: an absent list stays
// absent.
func setContainerdRegistries(osc *extensionsv1alpha1.OperatingSystemConfig, registries []extensionsv1alpha1.RegistryConfig) {
	if len(registries) != len(containerdRegistries(osc)) {
		osc.Spec.CRIConfig.Containerd.Registries = registries
	}
}
