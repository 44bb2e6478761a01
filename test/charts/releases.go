// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package charts

import "github.com/gardener/gardener-extension-registry-cache/charts"

// ExtensionNamespace is where gardenlet installs the controller when its
// ControllerRegistration is called registry-cache.
const ExtensionNamespace = "extension-registry-cache"

// Releases are our charts with all kinds of values, by the names of their golden
// files.
func Releases() map[string]Release {
	return map[string]Release{
		"controller":             Controller(nil),
		"controller-gardenlet":   Controller(Values{"gardener": seedValues(Values{"version": "v1.150.0"})}),
		"controller-all":         Controller(allControllerValues()),
		"controller-self-hosted": Controller(Values{"usablePorts": []any{30001, 30002, 30003}, "gardener": Values{"version": "v1.150.0", "selfHostedShootCluster": true}}),

		"admission-runtime":              AdmissionRuntime(nil),
		"admission-runtime-operator":     AdmissionRuntime(OperatorRuntimeValues()),
		"admission-runtime-all":          AdmissionRuntime(allAdmissionValues()),
		"admission-application":          AdmissionApplication(nil),
		"admission-application-operator": AdmissionApplication(OperatorApplicationValues()),
	}
}

// Controller is the chart of the controller as gardenlet installs it.
func Controller(values Values) Release {
	return Release{Chart: charts.Controller, Name: "registry-cache", Namespace: ExtensionNamespace, Values: values}
}

// AdmissionRuntime is the chart of the admission as gardener-operator installs it
// in the runtime cluster.
func AdmissionRuntime(values Values) Release {
	return Release{Chart: charts.AdmissionRuntime, Name: "registry-cache", Namespace: "garden", Values: values}
}

// AdmissionApplication is the chart of the admission as gardener-operator installs
// it in the garden cluster.
func AdmissionApplication(values Values) Release {
	return Release{Chart: charts.AdmissionApplication, Name: "registry-cache", Namespace: ExtensionNamespace, Values: values}
}

// OperatorApplicationValues are what gardener-operator passes for the garden
// cluster.
func OperatorApplicationValues() Values {
	return Values{"gardener": Values{"virtualCluster": Values{
		"enabled": true, "serviceAccount": Values{"name": "extension-admission-registry-cache", "namespace": "kube-system"},
	}}}
}

// OperatorRuntimeValues are what gardener-operator passes for the runtime cluster.
func OperatorRuntimeValues() Values {
	return Values{"gardener": Values{
		"runtimeCluster": Values{"priorityClassName": "gardener-garden-system-400"},
		"virtualCluster": Values{"enabled": true, "namespace": ExtensionNamespace},
	}}
}

// seedValues are part of what gardenlet passes.
func seedValues(values Values) Values {
	values["garden"] = Values{"clusterIdentity": "garden", "genericKubeconfigSecretName": "generic-garden-kubeconfig-1"}
	values["gardenlet"] = Values{"featureGates": Values{}}
	values["seed"] = Values{"name": "local", "clusterIdentity": "seed", "provider": "local", "region": "local", "labels": Values{}, "taints": []any{}, "spec": Values{}}
	return values
}

// allControllerValues sets each value to another than its default.
func allControllerValues() Values {
	return Values{
		"image":               Values{"repository": "registry.example.com/extension", "tag": "v1.2.3@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef", "pullPolicy": "Always"},
		"replicaCount":        2,
		"resources":           Values{"requests": Values{"cpu": "100m", "memory": "128Mi"}, "limits": Values{"memory": "1Gi"}},
		"vpa":                 Values{"enabled": false, "updateMode": "Off", "minAllowed": Values{"memory": "128Mi"}},
		"priorityClassName":   "",
		"podLabels":           Values{"example.com/to-proxy": "allowed"},
		"preStopSleepSeconds": 5,
		"logLevel":            "debug",
		"logFormat":           "text",
		"controllers": Values{
			"concurrentSyncs": 20, "ignoreOperationAnnotation": true,
			"healthcheck": Values{"concurrentSyncs": 10, "syncPeriod": "1m30s"}, "heartbeat": Values{"renewIntervalSeconds": 60},
		},
		"disableControllers": []any{"registry-mirror", "heartbeat"},
		"disableWebhooks":    []any{"registry-mirror"},
		"imageVectorOverwrite": Values{"images": []any{
			Values{"name": "registry-cache", "repository": "registry.example.com/registry-cache", "tag": "v1.2.3"},
		}},
		"metrics":       Values{"enableScraping": false},
		"webhookConfig": Values{"servicePort": 8443},
		"usablePorts":   []any{18080, 18443, 18081},
		"gardener":      Values{"version": "v1.150.0", "selfHostedShootCluster": true},
	}
}

// allAdmissionValues sets each value to another than its default.
func allAdmissionValues() Values {
	return Values{
		"image":                Values{"repository": "registry.example.com/extension", "tag": "v1.2.3", "pullPolicy": "Always"},
		"replicaCount":         3,
		"resources":            Values{"requests": Values{"cpu": "100m", "memory": "128Mi"}, "limits": Values{"memory": "1Gi"}},
		"goMemLimit":           "900MiB",
		"vpa":                  Values{"updateMode": "Off", "minAllowed": Values{"memory": "128Mi"}, "maxAllowed": Values{"memory": "1Gi"}},
		"podLabels":            Values{"example.com/to-garden": "allowed"},
		"preStopSleepSeconds":  5,
		"logLevel":             "debug",
		"logFormat":            "text",
		"disableWebhooks":      []any{"registry-mirror"},
		"heartbeat":            Values{"enabled": true, "renewIntervalSeconds": 60},
		"metrics":              Values{"enableScraping": true},
		"webhookConfig":        Values{"servicePort": 8443},
		"service":              Values{"topologyAwareRouting": Values{"enabled": true}},
		"ports":                Values{"metrics": 18080, "webhook": 18443, "health": 18081},
		"kubeconfigSecretName": "garden-kubeconfig",
		"gardener": Values{
			"runtimeCluster": Values{"priorityClassName": "high"},
			"virtualCluster": Values{"enabled": true, "namespace": "garden"},
		},
	}
}
