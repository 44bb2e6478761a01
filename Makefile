# SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
#
# SPDX-License-Identifier: Apache-2.0

.DEFAULT_GOAL := help

.PHONY: help
help: ## Print this list.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: test
test: test-unit test-integration ## Run all tests.

.PHONY: test-unit
test-unit: ## Run the tests that need nothing but Go.
	@hack/test.sh unit

.PHONY: test-integration
test-integration: ## Run the tests on real control planes, which are built once.
	@hack/test.sh integration

.PHONY: check
check: ## Check generated files, modules, scripts and code style; changes nothing.
	@hack/check.sh

.PHONY: generate
generate: ## Write the generated files anew.
	@hack/generate.sh

.PHONY: build
build: ## Build the binaries into bin/.
	@hack/build.sh

.PHONY: clean
clean: ## Remove what was built; tools stay in the user's cache folder.
	@rm -rf bin
