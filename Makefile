# make demo   one real call on this machine (makes the environment first)
# make test   everything the tests need, then the tests
# make check  style, types, layers
# make bench-packages   what the benchmarks of line quality need besides
# make lock   pins the dependencies anew

VENV := .venv
PY := $(VENV)/bin/python
# The PJSIP wheel is built for these versions of Python.
FIND_PYTHON := for p in $$PYTHON python3 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null && { echo $$p; exit; }; done
DEBIAN := sip-tester kamailio kamailio-tls-modules openssl baresip-core asterisk-core-sounds-en asterisk-core-sounds-en-wav postgresql gcc libc6-dev tshark iproute2 nftables chromium fonts-dejavu-core

.PHONY: demo test check lock debian clean bench-packages

demo: $(VENV)/run
	@$(VENV)/bin/sipagent models pull
	@$(VENV)/bin/sipagent demo

test: debian $(VENV)/dev
	@$(VENV)/bin/sipagent models pull
	@$(MAKE) --no-print-directory check
	$(PY) -m pytest --durations=30 || { [ $$? = 1 ] && $(PY) -m tests.second_try; }

check: $(VENV)/dev
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

$(VENV)/made:
	@python=$$($(FIND_PYTHON)); \
	if [ -z "$$python" ]; then echo "sipagent needs Python 3.11 or 3.12: install one, or say make PYTHON=/path/to/it" >&2; exit 3; fi; \
	$$python -m venv $(VENV) || { echo "this Python cannot make an environment: apt install python3-venv" >&2; exit 3; }
	@touch $@

# constraints.txt pins every package with its hashes; pip takes nothing else.
$(VENV)/run: $(VENV)/made constraints.txt pyproject.toml sipagent/media/native.c sipagent/media/native_looks.h
	@echo "installing (about 700 MB, most of it models and their runtimes) ..."
	@$(PY) -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r constraints.txt
	@$(PY) -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/dev: $(VENV)/run constraints-dev.txt
	@$(PY) -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r constraints-dev.txt
	@touch $@

bench-packages: $(VENV)/dev
	@$(PY) -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps --no-build-isolation -r constraints-bench.txt

debian:
	@missing=$$(for p in $(DEBIAN); do dpkg-query -W -f '$${Status}' $$p 2>/dev/null | grep -q 'ok installed' || echo $$p; done); \
	if [ -z "$$missing" ]; then exit 0; fi; \
	if [ "$$(id -u)" != 0 ]; then echo "the tests need: sudo apt-get install -y --no-install-recommends $$(echo $$missing)" >&2; exit 3; fi; \
	apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $$missing

lock: $(VENV)/dev
	printf 'hatchling\neditables\n' | $(VENV)/bin/uv pip compile - pyproject.toml --extra speech --extra postgres \
		--universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --quiet -o constraints.txt
	$(VENV)/bin/uv pip compile pyproject.toml --extra dev -c constraints.txt \
		--universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --quiet -o constraints-dev.txt
	$(VENV)/bin/uv pip compile pyproject.toml --extra bench -c constraints.txt -c constraints-dev.txt \
		--universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --quiet -o constraints-bench.txt

clean:
	rm -rf $(VENV) .cache build dist
