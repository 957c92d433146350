# make testbed   sets this machine up, carries out plans/quick.yml, writes its report
#                PLAN=… another plan, INVENTORY=… another host (setup, sweep, plan, doctor, … too)
# make test      lint, unit tests, integration tests on real Docker and QEMU
# make lab       tests on servers in a box: systemd, cgroup v2, KVM, NUMA nodes, an IOMMU
# make help      every target
SHELL := /bin/bash
PLAN ?= quick
INVENTORY ?= inventory/local
BIN := .venv/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)

LOCKS := $(addprefix requirements/,bootstrap.txt virtbed.txt analysis.txt dev.txt)
CODE := analysis benchmarks contract playbooks python roles workloads
MEMBERS := contract/pyproject.toml python/pyproject.toml analysis/pyproject.toml workloads/pyproject.toml
VERSION = $(shell sed -n 's/^version = "\(.*\)"/\1/p' python/pyproject.toml)
# The packages' version stands in their files and in these; `make version` sets it.
STATED := CITATION.cff contract/virtbed_contract/__init__.py workloads/virtbed_workloads/__init__.py
# The members are installed from this checkout, and so no lock names them.
OWN := $(addprefix --no-emit-package=virtbed,-contract -workloads -analysis)
COMPILE = uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url $(OWN) --custom-compile-command "make lock"

.PHONY: help testbed setup sweep doctor plan report teardown test lint audit unit applications \
	integration lab faults calibrate bench docs reference version release lock clean
.DEFAULT_GOAL := help

help: ## show this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

testbed: setup ## set INVENTORY's host up (this machine), carry out PLAN (quick), write its report
	virtbed sweep $(PLAN) --inventory $(INVENTORY)

setup: .venv/.made ## set this machine up for PLAN (its image), and measure nothing
	ansible-playbook -i $(INVENTORY) playbooks/testbed.yml -e plan=$(PLAN)

sweep: .venv/.made ## carry out PLAN=…, or finish what is missing of it
	virtbed sweep $(PLAN) --inventory $(INVENTORY)

plan: .venv/.made ## show what PLAN=… would run, and for how long
	virtbed plan $(PLAN) --inventory $(INVENTORY)

report: .venv/.made ## write the report of PLAN=… again
	virtbed report $(PLAN)

doctor: .venv/.made ## say which platforms this machine can host, and why not
	virtbed doctor --inventory $(INVENTORY)

teardown: .venv/.made ## remove all that virtbed made on this machine; results stay
	ansible-playbook -i $(INVENTORY) playbooks/teardown.yml

# Set-up first: it installs hwloc, by which unit tests place instances on recorded machines.
test: lint docs setup unit applications integration ## all the checks

lint: .venv/.made ## ruff, mypy, codespell, yamllint, ansible-lint, bandit, detect-secrets
	ruff check .
	ruff format --check .
	mypy
	mypy docs/tools
	codespell
	yamllint --strict .
	ansible-lint --offline --profile production
	bandit --quiet --configfile pyproject.toml --recursive $(CODE)
	git ls-files -z | xargs -0 detect-secrets-hook --no-verify

# It asks an advisory service about every package, and so is no part of `make test`.
audit: .venv/.made ## known vulnerabilities of the locked wheels; needs the network
	for lock in requirements/*.txt; do \
		pip-audit --strict --require-hashes --disable-pip --requirement $$lock || exit 1; done

unit: .venv/.made ## tests that need no Docker and no QEMU; wheels, from PyPI
	pytest -n 2 --dist loadfile tests/unit tests/contract
	.venv/bin/python -m pytest --doctest-modules analysis/virtbed_analysis

docs: .venv/.made ## the documentation as a site, in site/; a warning or a dead link fails
	NO_MKDOCS_2_WARNING=1 mkdocs build --quiet

reference: .venv/.made ## regenerate the pages of docs/reference
	.venv/bin/python docs/tools/reference.py

applications: .venv/.made .venv/.jax ## tests of the applications, in the image; after setup
	virtbed in-image -m pytest -p no:cacheprovider tests/applications

# Emulated, and so slow: with no snapshots yet it takes more than half an hour.
lab: .venv/.made ## tests on bench hosts in a box, over SSH, as root; LAB=… options of pytest
	pytest tests/lab $(LAB)

integration: setup ## tests on the real platforms, as root
	ansible-playbook tests/integration/browser.yml tests/integration/ssh.yml tests/integration/slurm.yml
	pytest tests/faults -m quick
	pytest tests/integration

# Each kill is two sweeps: more than an hour. VIRTBED_KILLS=… of them, 40 if not given.
faults: setup ## faults on the real platforms, as root: kills, full disks; 10,000 malformed files
	VIRTBED_FAULTS=10000 pytest tests/unit/faults
	pytest tests/faults $(FAULTS)

calibrate: setup ## what can this host resolve? twins, and a slowdown that is known
	virtbed calibrate --inventory $(INVENTORY)

bench: setup ## what virtbed itself costs, and where the applications' time goes
	.venv/bin/python benchmarks/scheduling.py
	.venv/bin/python benchmarks/orchestration.py
	.venv/bin/python benchmarks/readiness.py
	PYTHONPATH=. .venv/bin/python benchmarks/analysis.py
	virtbed in-image benchmarks/applications.py

# The tools live in .venv and come from the hash locks; TensorFlow lives in the image, not here.
.venv/.made: $(LOCKS) $(MEMBERS)
	@python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "virtbed: python3 is $$(python3 -V), 3.11 or newer is needed" >&2; exit 1; }
	python3 -m venv .venv
	$(BIN)/python -m pip install --quiet --require-hashes --no-deps -r requirements/bootstrap.txt
	$(BIN)/uv pip sync --quiet --require-hashes $(LOCKS)
	$(BIN)/uv pip install --quiet --no-deps -e contract -e python -e analysis -e workloads
	touch $@

# Not in the image: bound into it for a test that the applications run under Keras's other backends.
.venv/.jax: requirements/jax.txt .venv/.made
	rm -rf .venv/jax
	uv pip install --quiet --require-hashes --no-deps --target .venv/jax -r $<
	touch $@

# Locks name hashes and no registry; analysis and dev agree with what virtbed pins.
lock: ## resolve the dependencies again and write requirements/*.txt
	cd requirements && $(COMPILE) bootstrap.in -o bootstrap.txt
	$(COMPILE) python/pyproject.toml -o requirements/virtbed.txt
	$(COMPILE) analysis/pyproject.toml -c requirements/virtbed.txt -o requirements/analysis.txt
	$(COMPILE) requirements/dev.in -c requirements/virtbed.txt -c requirements/analysis.txt \
		-o requirements/dev.txt
	$(COMPILE) workloads/pyproject.toml --extra image -o requirements/workloads.txt
	$(COMPILE) workloads/pyproject.toml --extra null -c requirements/workloads.txt \
		-o requirements/workloads-null.txt
	$(COMPILE) --no-deps requirements/jax.in -o requirements/jax.txt

version: ## set the version of all packages to TO=…; CHANGELOG is yours
	@test -n "$(TO)" || { echo "virtbed: no TO found, a version needed: make version TO=1.2.3" >&2; exit 1; }
	sed -i -E 's/^((__)?version(__)?( =|:) "?|.*"virtbed-[a-z]+==)$(VERSION)/\1$(TO)/' $(MEMBERS) $(STATED)

# From a clean checkout: what is not committed would be in no release.
release: .venv/.made ## wheels, sources, bill of materials, checksums in dist/; KEY=… an SSH key signs
	@test -z "$$(git status --porcelain)" || \
		{ echo "virtbed: changes that are not committed found, a clean checkout needed" >&2; exit 1; }
	rm -rf dist
	pytest --quiet tests/contract/test_docs.py -k version
	for member in $(dir $(MEMBERS)); do uv build --quiet --out-dir dist $$member || exit 1; done
	git archive --format=tar.gz --prefix=virtbed-$(VERSION)/ --output=dist/virtbed-checkout-$(VERSION).tar.gz HEAD
	.venv/bin/python -m virtbed.sbom $(VERSION) $$(git log -1 --format=%cI) requirements/*.txt \
		> dist/virtbed-$(VERSION).cdx.json
	cd dist && rm -f .gitignore && sha256sum -- * > SHA256SUMS && sha256sum --check --quiet SHA256SUMS
	@if [ -n "$(KEY)" ]; then ssh-keygen -q -Y sign -f "$(KEY)" -n file dist/SHA256SUMS; else \
		echo "virtbed: no KEY found, dist/SHA256SUMS is not signed; make release KEY=~/.ssh/id_ed25519" >&2; fi

clean: ## remove the tools and caches of this checkout; results stay
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis site dist
