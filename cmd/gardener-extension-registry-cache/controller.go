// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"time"

	monitoringv1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	monitoringv1alpha1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1alpha1"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	logf "sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/manager"

	extensionscontroller "github.com/gardener/gardener/extensions/pkg/controller"
	controllercmd "github.com/gardener/gardener/extensions/pkg/controller/cmd"
	"github.com/gardener/gardener/extensions/pkg/controller/healthcheck"
	"github.com/gardener/gardener/extensions/pkg/controller/heartbeat"
	heartbeatcmd "github.com/gardener/gardener/extensions/pkg/controller/heartbeat/cmd"
	webhookcmd "github.com/gardener/gardener/extensions/pkg/webhook/cmd"
	extensionsv1alpha1 "github.com/gardener/gardener/pkg/apis/extensions/v1alpha1"
	resourcesv1alpha1 "github.com/gardener/gardener/pkg/apis/resources/v1alpha1"

	"github.com/gardener/gardener-extension-registry-cache/pkg/controller"
	"github.com/gardener/gardener-extension-registry-cache/pkg/imagevector"
	"github.com/gardener/gardener-extension-registry-cache/pkg/webhook"
)

const (
	// extensionName names the program, its leader election and its webhook
	// configuration in the Seed.
	extensionName = "gardener-extension-registry-cache"
	// shortName is the name without the prefix that Gardener's library adds by
	// itself.
	shortName = "registry-cache"
)

// controllerOptions are the flags that every Gardener extension has.
type controllerOptions struct {
	rest        *controllercmd.RESTOptions
	manager     *controllercmd.ManagerOptions
	general     *controllercmd.GeneralOptions
	reconciler  *controllercmd.ReconcilerOptions
	controller  *controllercmd.ControllerOptions
	healthCheck *healthCheckOptions
	controllers *controllercmd.SwitchOptions
	heartbeat   *heartbeatcmd.Options
	webhooks    *webhookcmd.AddToManagerOptions
	all         controllercmd.OptionAggregator
}

// healthCheckOptions are the flags of the controller of health checks.
type healthCheckOptions struct {
	controllercmd.ControllerOptions
	// syncPeriod is the time between two checks of an Extension.
	syncPeriod time.Duration
}

// AddFlags implements controllercmd.Flagger.
func (o *healthCheckOptions) AddFlags(flags *pflag.FlagSet) {
	o.ControllerOptions.AddFlags(flags)
	flags.DurationVar(&o.syncPeriod, "sync-period", o.syncPeriod, "The time between two checks of an Extension.")
}

// Complete implements controllercmd.Completer.
func (o *healthCheckOptions) Complete() error {
	if o.syncPeriod <= 0 {
		return fmt.Errorf("--healthcheck-sync-period must be greater than 0, but is %s", o.syncPeriod)
	}
	return o.ControllerOptions.Complete()
}

func newControllerCommand() *cobra.Command {
	return newSubcommand("controller", "Run the controller and the webhook of a Seed", newControllerOptions())
}

func newControllerOptions() *controllerOptions {
	o := &controllerOptions{
		rest:       &controllercmd.RESTOptions{},
		manager:    newManagerOptions(extensionName),
		general:    &controllercmd.GeneralOptions{},
		reconciler: &controllercmd.ReconcilerOptions{},
		controller: &controllercmd.ControllerOptions{MaxConcurrentReconciles: 5},
		healthCheck: &healthCheckOptions{
			// Each may wait for a Shoot's API server that does not answer, which must not keep
			// the checks of other Shoots waiting.
			ControllerOptions: controllercmd.ControllerOptions{MaxConcurrentReconciles: 20},
			syncPeriod:        30 * time.Second,
		},
		heartbeat: newHeartbeatOptions(extensionName),
	}
	o.controllers = controllercmd.NewSwitchOptions(
		controllercmd.Switch(controller.CacheControllerName, o.addCacheController),
		controllercmd.Switch(controller.MirrorControllerName, o.addMirrorController),
		controllercmd.Switch(healthcheck.ControllerName, o.addHealthCheckController),
		controllercmd.Switch(heartbeat.ControllerName, o.addHeartbeat),
	)
	o.webhooks = webhookcmd.NewAddToManagerOptions(shortName, "", nil, o.general, newWebhookServerOptions(),
		webhookcmd.NewSwitchOptions(
			webhookcmd.Switch(webhook.CacheName, webhook.NewCacheWebhook),
			webhookcmd.Switch(webhook.MirrorName, webhook.NewMirrorWebhook),
		),
	)
	o.all = controllercmd.NewOptionAggregator(
		o.rest, o.manager, o.general, o.reconciler, o.controller, o.controllers,
		controllercmd.PrefixOption("healthcheck-", o.healthCheck), controllercmd.PrefixOption("heartbeat-", o.heartbeat), o.webhooks,
	)
	return o
}

func (o *controllerOptions) addFlags(flags *pflag.FlagSet) {
	o.all.AddFlags(flags)
}

func (o *controllerOptions) complete() error {
	return complete(o.all, o.heartbeat)
}

func (o *controllerOptions) run(ctx context.Context) error {
	mgr, err := o.newManager()
	if err != nil {
		return err
	}
	if err := addHealthChecks(mgr); err != nil {
		return err
	}
	if _, err := o.webhooks.Completed().AddToManager(ctx, mgr, nil); err != nil {
		return fmt.Errorf("add webhooks: %w", err)
	}
	if err := o.controllers.Completed().AddToManager(ctx, mgr); err != nil {
		return fmt.Errorf("add controllers: %w", err)
	}
	if err := mgr.Start(ctx); err != nil {
		return fmt.Errorf("run manager: %w", err)
	}
	return nil
}

func (o *controllerOptions) newManager() (manager.Manager, error) {
	logf.SetLogger(o.manager.Completed().Logger)
	options := o.manager.Completed().Options()
	// The program ends after it. In an upgrade the next pod goes on at once, and does
	// not wait until the lease has run out.
	options.LeaderElectionReleaseOnCancel = true
	options.Scheme = runtime.NewScheme()
	if err := extensionscontroller.AddToScheme(options.Scheme); err != nil {
		return nil, fmt.Errorf("register types: %w", err)
	}
	for _, add := range []func(*runtime.Scheme) error{monitoringv1.AddToScheme, monitoringv1alpha1.AddToScheme} {
		if err := add(options.Scheme); err != nil {
			return nil, fmt.Errorf("register types of the Prometheus operator: %w", err)
		}
	}
	options.Cache.DefaultTransform = cache.TransformStripManagedFields()
	options.Client.Cache = &client.CacheOptions{DisableFor: []client.Object{
		// A Seed holds thousands of these, of which a reconcile reads a few; those of the
		// Prometheus operator it may not even know.
		&corev1.Secret{}, &corev1.ConfigMap{}, &resourcesv1alpha1.ManagedResource{}, &extensionsv1alpha1.Cluster{},
		&monitoringv1.PrometheusRule{}, &monitoringv1alpha1.ScrapeConfig{},
		// Of these the heartbeat and the registration of the webhook read one each. A
		// cache would hold those of the whole Seed, and need the right to list them.
		&coordinationv1.Lease{}, &admissionregistrationv1.MutatingWebhookConfiguration{},
	}}
	config := rest.CopyConfig(o.rest.Completed().Config)
	// The API server knows better than its client how much it can bear: it has
	// priorities and fairness, while a limit here would make a thousand Shoots that are
	// reconciled at once wait for each other.
	config.QPS = -1

	mgr, err := manager.New(config, options)
	if err != nil {
		return nil, fmt.Errorf("create manager: %w", err)
	}
	return mgr, nil
}

func (o *controllerOptions) addCacheController(ctx context.Context, mgr manager.Manager) error {
	images, err := imagevector.Read()
	if err != nil {
		return err
	}
	return controller.AddCachesToManager(ctx, mgr, images, o.extensionControllerOptions())
}

func (o *controllerOptions) addMirrorController(ctx context.Context, mgr manager.Manager) error {
	return controller.AddMirrorsToManager(ctx, mgr, o.extensionControllerOptions())
}

func (o *controllerOptions) addHealthCheckController(_ context.Context, mgr manager.Manager) error {
	options := o.extensionControllerOptions()
	options.Controller = o.healthCheck.Completed().Options()
	return controller.AddHealthChecksToManager(mgr, options, o.healthCheck.syncPeriod)
}

func (o *controllerOptions) extensionControllerOptions() controller.Options {
	return controller.Options{
		Controller:                o.controller.Completed().Options(),
		IgnoreOperationAnnotation: o.reconciler.Completed().IgnoreOperationAnnotation,
		ExtensionClasses:          o.general.Completed().ExtensionClasses,
	}
}

func (o *controllerOptions) addHeartbeat(_ context.Context, mgr manager.Manager) error {
	return addHeartbeat(mgr, o.heartbeat)
}
