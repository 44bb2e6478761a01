// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package webhook

import (
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
// An entry whose certificate authorities are not in osc cannot be probed, so it
// is left as it is and the upstream has no cache on this node.
func takeOver(log logr.Logger, osc *extensionsv1alpha1.OperatingSystemConfig, registries []hosts.Registry) ([]hosts.Registry, []extensionsv1alpha1.RegistryConfig) {
	var (
		entries = containerdRegistries(osc)
		ours    = make([]hosts.Registry, 0, len(registries))
		taken   = make(map[string]bool)
	)
	for _, registry := range registries {
		var complete = true
		for _, entry := range entries {
			if entry.Upstream != registry.Upstream {
				continue
			}
			foreign, ok := foreignHosts(osc, entry, registry.Hosts)
			complete = complete && ok
			registry.Hosts = append(slices.Clone(registry.Hosts), foreign...)
		}
		if !complete {
			log.Info("Upstream is configured by another extension with certificates that are not in the OperatingSystemConfig, its cache is not used",
				"upstream", registry.Upstream)
			continue
		}
		taken[registry.Upstream] = true
		ours = append(ours, registry)
	}

	remaining := slices.DeleteFunc(slices.Clone(entries), func(entry extensionsv1alpha1.RegistryConfig) bool { return taken[entry.Upstream] })
	return ours, remaining
}

// foreignHosts returns the hosts of an entry except those that are known. It
// returns false if it cannot tell the certificate authorities of one.
func foreignHosts(osc *extensionsv1alpha1.OperatingSystemConfig, entry extensionsv1alpha1.RegistryConfig, known []hosts.Host) ([]hosts.Host, bool) {
	var foreign []hosts.Host
	for _, entryHost := range entry.Hosts {
		if slices.ContainsFunc(known, func(host hosts.Host) bool { return host.URL == entryHost.URL }) {
			continue
		}
		caBundle, ok := inlineFiles(osc, entryHost.CACerts)
		if !ok {
			return nil, false
		}
		foreign = append(foreign, hosts.Host{
			Kind:         hosts.Mirror,
			URL:          entryHost.URL,
			Capabilities: capabilities(entryHost),
			CABundle:     caBundle,
			OverridePath: entryHost.OverridePath,
		})
	}
	return foreign, true
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
// other. It returns false if osc does not hold one of them in clear.
func inlineFiles(osc *extensionsv1alpha1.OperatingSystemConfig, paths []string) ([]byte, bool) {
	var content []byte
	for _, path := range paths {
		i := slices.IndexFunc(osc.Spec.Files, func(file extensionsv1alpha1.File) bool { return file.Path == path })
		if i < 0 || osc.Spec.Files[i].Content.Inline == nil {
			return nil, false
		}
		data, err := operatingsystemconfigutils.NewFileContentInlineCodec().Decode(osc.Spec.Files[i].Content.Inline)
		if err != nil {
			return nil, false
		}
		content = append(content, data...)
		content = append(content, '\n')
	}
	return content, true
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
