// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/cluster"
	logf "sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/manager"

	controllercmd "github.com/gardener/gardener/extensions/pkg/controller/cmd"
	"github.com/gardener/gardener/extensions/pkg/controller/heartbeat"
	heartbeatcmd "github.com/gardener/gardener/extensions/pkg/controller/heartbeat/cmd"
	webhookcmd "github.com/gardener/gardener/extensions/pkg/webhook/cmd"
	"github.com/gardener/gardener/pkg/apis/core"

	"github.com/gardener/gardener-extension-registry-cache/pkg/admission"
)

// admissionName names the admission component, its Service, its certificates and
// its webhook configuration in the garden cluster; Gardener's library puts
// gardener-extension- before it.
const admissionName = "admission-" + shortName

// admissionOptions are the flags of the admission component. It works with two
// clusters: the garden cluster has the Shoots, their Secrets and the webhook
// configuration; the runtime cluster, in which the component runs, has its
// certificates and Leases.
type admissionOptions struct {
	garden            *controllercmd.RESTOptions
	runtimeKubeconfig string
	manager           *controllercmd.ManagerOptions
	controllers       *controllercmd.SwitchOptions
	heartbeat         *heartbeatcmd.Options
	webhooks          *webhookcmd.AddToManagerOptions
	all               controllercmd.OptionAggregator
}

func newAdmissionCommand() *cobra.Command {
	return newSubcommand("admission", "Run the webhooks of the garden cluster, which validate Shoots", newAdmissionOptions())
}

func newAdmissionOptions() *admissionOptions {
	o := &admissionOptions{
		garden:    &controllercmd.RESTOptions{},
		manager:   newManagerOptions(admissionName),
		heartbeat: newHeartbeatOptions(admissionName),
	}
	o.controllers = controllercmd.NewSwitchOptions(controllercmd.Switch(heartbeat.ControllerName, o.addHeartbeat))
	o.webhooks = webhookcmd.NewAddToManagerOptions(admissionName, "", nil, nil, newWebhookServerOptions(),
		webhookcmd.NewSwitchOptions(
			webhookcmd.Switch(admission.CacheName, admission.NewCacheWebhook),
			webhookcmd.Switch(admission.MirrorName, admission.NewMirrorWebhook),
		),
	)
	o.all = controllercmd.NewOptionAggregator(o.garden, o.manager, o.controllers, controllercmd.PrefixOption("heartbeat-", o.heartbeat), o.webhooks)
	return o
}

func (o *admissionOptions) addFlags(flags *pflag.FlagSet) {
	o.all.AddFlags(flags)
	flags.Lookup(controllercmd.KubeconfigFlag).Usage = "Path of the kubeconfig of the garden cluster. Defaults to GARDEN_KUBECONFIG, which gardener-operator sets."
	flags.StringVar(&o.runtimeKubeconfig, "runtime-kubeconfig", "", "Path of the kubeconfig of the runtime cluster. Only required if out-of-cluster.")
}

func (o *admissionOptions) complete() error {
	if o.garden.Kubeconfig == "" {
		o.garden.Kubeconfig = os.Getenv("GARDEN_KUBECONFIG")
	}
	return complete(o.all, o.heartbeat)
}

func (o *admissionOptions) run(ctx context.Context) error {
	logf.SetLogger(o.manager.Completed().Logger)
	runtimeConfig, err := o.runtimeConfig()
	if err != nil {
		return err
	}
	runtimeCluster, err := cluster.New(runtimeConfig, func(options *cluster.Options) { options.NewClient = newClientWithoutCache })
	if err != nil {
		return fmt.Errorf("connect to the runtime cluster: %w", err)
	}
	mgr, err := o.newManager(runtimeConfig)
	if err != nil {
		return err
	}
	if err := addHealthChecks(mgr); err != nil {
		return err
	}
	if _, err := o.webhooks.Completed().AddToManager(ctx, mgr, runtimeCluster); err != nil {
		return fmt.Errorf("add webhooks: %w", err)
	}
	if err := o.controllers.Completed().AddToManager(ctx, runtimeManager{mgr, runtimeCluster}); err != nil {
		return fmt.Errorf("add controllers: %w", err)
	}
	if err := mgr.Start(ctx); err != nil {
		return fmt.Errorf("run manager: %w", err)
	}
	return nil
}

func (o *admissionOptions) runtimeConfig() (*rest.Config, error) {
	if o.runtimeKubeconfig == "" {
		config, err := rest.InClusterConfig()
		if err != nil {
			return nil, fmt.Errorf("find the runtime cluster, without --runtime-kubeconfig: %w", err)
		}
		return config, nil
	}
	config, err := clientcmd.BuildConfigFromFlags("", o.runtimeKubeconfig)
	if err != nil {
		return nil, fmt.Errorf("read --runtime-kubeconfig: %w", err)
	}
	return config, nil
}

// newManager returns the manager of the garden cluster.
func (o *admissionOptions) newManager(runtimeConfig *rest.Config) (manager.Manager, error) {
	options := o.manager.Completed().Options()
	options.LeaderElectionConfig = runtimeConfig
	// A leader that cannot renew its Lease ends, and its webhooks with it, which
	// need no leader. It must not for being busy; what it leads can wait.
	options.LeaseDuration, options.RenewDeadline, options.RetryPeriod = ptr.To(2*time.Minute), ptr.To(90*time.Second), ptr.To(5*time.Second)
	options.LeaderElectionReleaseOnCancel = true
	options.NewClient = newGardenClient
	options.Scheme = runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, core.AddToScheme} {
		if err := add(options.Scheme); err != nil {
			return nil, fmt.Errorf("register types: %w", err)
		}
	}
	config := o.garden.Completed().Config
	// Requests for Secrets must not queue up here until their Shoots are refused:
	// what is too much is for the API server to say.
	config.QPS = -1

	mgr, err := manager.New(config, options)
	if err != nil {
		return nil, fmt.Errorf("create manager: %w", err)
	}
	return mgr, nil
}

func (o *admissionOptions) addHeartbeat(_ context.Context, mgr manager.Manager) error {
	return addHeartbeat(mgr, o.heartbeat)
}

// newGardenClient returns the client by which the webhooks are registered.
func newGardenClient(config *rest.Config, options client.Options) (client.Client, error) {
	c, err := newClientWithoutCache(config, options)
	if err != nil {
		return nil, err
	}
	return admission.NewRegistrationClient(c), nil
}

// newClientWithoutCache returns a client that asks for what it needs when it
// needs it. That is little: a cache would hold the Secrets and namespaces of a
// whole garden for it.
func newClientWithoutCache(config *rest.Config, options client.Options) (client.Client, error) {
	options.Cache = nil
	return client.New(config, options)
}

// runtimeManager is the manager with the client of the runtime cluster, for
// controllers that work there.
type runtimeManager struct {
	manager.Manager
	cluster cluster.Cluster
}

// GetClient returns the client of the runtime cluster.
func (m runtimeManager) GetClient() client.Client { return m.cluster.GetClient() }
