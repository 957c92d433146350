# make testbed   sets this machine up, runs plans/quick.yml, writes its report
#                PLAN=… for another plan, INVENTORY=… for another host; also for other targets
# make test      lint, unit tests, integration tests on real Docker and QEMU
# make lab       tests on servers in a box: systemd, cgroup v2, KVM, NUMA nodes, an IOMMU
# make help      lists every target
SHELL := /bin/bash
PLAN ?= quick
INVENTORY ?= inventory/local
JOBS ?= 2
BIN := .venv/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)

LOCKS := $(addprefix requirements/,bootstrap.txt virtbed.txt analysis.txt dev.txt)
CODE := analysis benchmarks contract playbooks python roles workloads
MEMBERS := contract/pyproject.toml python/pyproject.toml analysis/pyproject.toml workloads/pyproject.toml
VERSION = $(shell sed -n 's/^version = "\(.*\)"/\1/p' python/pyproject.toml)
# These files state the version too, besides those of the packages; `make version` sets it.
STATED := CITATION.cff contract/virtbed_contract/__init__.py workloads/virtbed_workloads/__init__.py
# The members are installed from this checkout, so no lock names them.
OWN := $(addprefix --no-emit-package=virtbed,-contract -workloads -analysis)
COMPILE = uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url $(OWN) --custom-compile-command "make lock"

.PHONY: help testbed setup sweep doctor plan report teardown test lint audit unit applications \
	integration lab servers survival faults calibrate bench docs reference version release lock clean
.DEFAULT_GOAL := help

help: ## show this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

testbed: setup ## set INVENTORY's host up (this machine), run PLAN (quick), write its report
	virtbed sweep $(PLAN) --inventory $(INVENTORY)

# The last line names the next command; it is printed only if setup itself was requested.
setup: .venv/.made ## set this machine up for PLAN (build its image); measures nothing
	ansible-playbook -i $(INVENTORY) playbooks/testbed.yml -e plan=$(PLAN)
	$(if $(filter setup,$(MAKECMDGOALS)),@echo "virtbed: set up. Next: make sweep PLAN=$(PLAN)$(if \
		$(filter-out inventory/local,$(INVENTORY)), INVENTORY=$(INVENTORY))")

sweep: .venv/.made ## run PLAN=…, or finish the trials that it lacks
	virtbed sweep $(PLAN) --inventory $(INVENTORY)

plan: .venv/.made ## show what PLAN=… would run, and how long it takes
	virtbed plan $(PLAN) --inventory $(INVENTORY)

report: .venv/.made ## write the report of PLAN=… again
	virtbed report $(PLAN)

doctor: .venv/.made ## show which platforms this machine can host, and why it cannot host others
	virtbed doctor --inventory $(INVENTORY)

teardown: .venv/.made ## remove what virtbed made on this machine; results and packages stay
	ansible-playbook -i $(INVENTORY) playbooks/teardown.yml

# Set-up comes first, because unit tests need hwloc to place instances on recorded machines.
test: lint docs setup unit applications survival servers integration ## the checks that fit an hour

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

# It queries an advisory service for every package, so it is not part of `make test`.
audit: .venv/.made ## check the locked wheels for known vulnerabilities; needs the network
	for lock in requirements/*.txt; do \
		pip-audit --strict --require-hashes --disable-pip --requirement $$lock || exit 1; done

unit: .venv/.made ## tests that need no Docker and no QEMU; needs PyPI for the wheels
	pytest -n 2 --dist loadfile tests/unit tests/contract
	.venv/bin/python -m pytest --doctest-modules analysis/virtbed_analysis

docs: .venv/.made ## build the documentation's site in site/; a warning or a dead link fails
	NO_MKDOCS_2_WARNING=1 mkdocs build --quiet

reference: .venv/.made ## regenerate the pages of docs/reference
	.venv/bin/python docs/tools/reference.py

applications: .venv/.made .venv/.jax ## tests of the applications, in the image; run setup first
	virtbed in-image -m pytest -p no:cacheprovider tests/applications

# The servers are emulated, so this takes hours. Each of the JOBS workers is a controller of its own.
lab: .venv/.made ## tests on bench hosts in a box, over SSH, as root; LAB=… options of pytest, JOBS=2
	pytest --durations=0 --maxschedchunk=1 --dist load \
		--tx '$(JOBS)*popen//python=sh tests/lab/apart.sh .venv/bin/python' tests/lab $(LAB)

servers: .venv/.made ## the quick part of lab
	pytest --durations=0 tests/lab -m "not full"

integration: setup ## tests on the real platforms, as root
	ansible-playbook tests/integration/browser.yml tests/integration/ssh.yml tests/integration/slurm.yml
	pytest --durations=25 tests/integration

survival: setup ## the quick part of faults
	pytest tests/faults -m quick

# Takes more than an hour, because each kill is two sweeps. VIRTBED_KILLS=… sets their number (40).
faults: setup ## faults on the real platforms, as root: kills, full disks; 10,000 malformed files
	VIRTBED_FAULTS=10000 pytest tests/unit/faults
	pytest tests/faults $(FAULTS)

calibrate: setup ## find which cost this host can resolve: twins, and a known slowdown
	virtbed calibrate --inventory $(INVENTORY)

bench: setup ## measure virtbed's own cost and the phases of the applications
	.venv/bin/python benchmarks/scheduling.py
	PYTHONPATH=. .venv/bin/python benchmarks/fleet.py
	.venv/bin/python benchmarks/orchestration.py
	ansible-playbook tests/integration/ssh.yml
	.venv/bin/python benchmarks/hosts.py
	.venv/bin/python benchmarks/readiness.py
	PYTHONPATH=. .venv/bin/python benchmarks/analysis.py
	virtbed in-image benchmarks/applications.py

# The tools are installed in .venv, from the hash locks. TensorFlow is in the image, not here. uv
# compiles nothing by default, and not every user may write bytecode here later.
.venv/.made: $(LOCKS) $(MEMBERS)
	@python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "virtbed: python3 is $$(python3 -V), 3.11 or newer is needed" >&2; exit 1; }
	python3 -m venv .venv
	$(BIN)/python -m pip install --quiet --require-hashes --no-deps -r requirements/bootstrap.txt
	$(BIN)/uv pip sync --quiet --require-hashes --compile-bytecode $(LOCKS)
	$(BIN)/uv pip install --quiet --no-deps -e contract -e python -e analysis -e workloads
	touch $@

# JAX is not part of the image. It is bound into it for the test of Keras's other backend.
.venv/.jax: requirements/jax.txt .venv/.made
	rm -rf .venv/jax
	uv pip install --quiet --require-hashes --no-deps --target .venv/jax -r $<
	touch $@

# Locks contain hashes and no registry; those of analysis and dev agree with virtbed's pins.
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

version: ## set the version of all packages to TO=…; edit CHANGELOG.md yourself
	@test -n "$(TO)" || { echo "virtbed: no TO found, a version needed: make version TO=1.2.3" >&2; exit 1; }
	sed -i -E 's/^((__)?version(__)?( =|:) "?|.*"virtbed-[a-z]+==)$(VERSION)/\1$(TO)/' $(MEMBERS) $(STATED)

# The checkout must be clean, because the release contains committed files only.
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
