# SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
#
# SPDX-License-Identifier: Apache-2.0

.DEFAULT_GOAL := help

.PHONY: help
help: ## Print this list.
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "%-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: demo
demo: ## Show the main job on a real cluster; as root. KEEP=1 leaves it up.
	@hack/test.sh demo

.PHONY: test
test: test-unit test-integration test-e2e ## Run all tests.

.PHONY: test-unit
test-unit: ## Run the tests that need no control plane.
	@hack/test.sh unit

.PHONY: test-integration
test-integration: ## Run the tests on real control planes, which are built once.
	@hack/test.sh integration

.PHONY: test-e2e
test-e2e: ## Run the tests on a real cluster, as root; without, they are skipped.
	@hack/test.sh e2e

.PHONY: bench
bench: ## Compare the cache with a stock registry; writes test/bench/RESULTS.md.
	@hack/bench.sh

.PHONY: check
check: ## Check generated files, modules, scripts and code style; changes nothing.
	@hack/check.sh

.PHONY: generate
generate: ## Write the generated files anew.
	@hack/generate.sh

.PHONY: build
build: ## Build the binaries into bin/.
	@hack/build.sh

.PHONY: images
images: ## Build the container images into bin/images; REGISTRY= pushes them.
	@hack/images.sh

.PHONY: charts
charts: ## Pack the Helm charts into bin/charts; REGISTRY= pushes them.
	@hack/charts.sh

.PHONY: plugin
plugin: ## Pack the kubectl plugin for all platforms into bin/plugin.
	@hack/plugin.sh

.PHONY: release-artifacts
release-artifacts: ## Push images and charts to REGISTRY=, as make images does.
	@hack/release.sh

.PHONY: clean
clean: ## Remove what was built; tools stay in the user's cache folder.
	@rm -rf bin
