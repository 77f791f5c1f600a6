# `make demo` and `make test` need nothing but Python 3.11 or later; each makes .venv and
# installs what it needs. Another interpreter: make test PYTHON=/path/to/python
# More arguments for pytest: make test ARGS='-k algebra -x'

PYTHON ?= $(shell command -v python3.11 || command -v python3 || echo python)
BIN := .venv/bin
ARGS ?=

# $(call install,FOLDER,WHAT) makes the virtual environment once and installs WHAT into it.
define install
	test -x $(1)/bin/python || $(PYTHON) -m venv $(1)
	$(1)/bin/python -m pip install --quiet --constraint constraints.txt --editable '$(2)'
endef

.PHONY: help demo test lint format slow zoo bench lock clean

help:
	@echo 'make demo    install, then train, prune and tune a small network; takes a minute'
	@echo 'make test    install the developer tools, then run the tests'
	@echo 'make lint    check format, rules and types'
	@echo 'make format  format the code and fix what can be fixed by itself'
	@echo 'make slow    run the slow tests'
	@echo 'make zoo     prune a hundred models of torchvision and timm (own environment)'
	@echo 'make bench   measure the engine against other tools (own environment)'
	@echo 'make lock    make constraints.txt anew'
	@echo 'make clean   remove what the other commands made'

demo: .venv/.core
	$(BIN)/tonsor demo

test: .venv/.dev
	$(BIN)/python -m pytest -n 2 $(ARGS)

lint: .venv/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright

format: .venv/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

slow: .venv/.dev
	TONSOR_HYPOTHESIS=slow $(BIN)/python -m pytest -n 2 -m slow $(ARGS)

# Warnings stay warnings here: the models are other people's code.
zoo: .zoo-venv/.done
	.zoo-venv/bin/python -m pytest tests/zoo -m zoo -W default $(ARGS)

bench: .bench-venv/.done
	.bench-venv/bin/python bench/engine.py
	.bench-venv/bin/python bench/coverage.py

# The torch pin is in pyproject.toml under [tool.uv]. UV_FIND_LINKS is emptied because a local
# folder of wheels would put its '+cpu' version into a file that is meant for every machine.
lock: .venv/.core
	$(BIN)/python -m pip install --quiet uv
	UV_FIND_LINKS= $(BIN)/uv pip compile --quiet --upgrade --universal --all-extras --no-header \
		--no-annotate --no-emit-index-url --output-file constraints.txt pyproject.toml

.venv/.core: pyproject.toml constraints.txt
	$(call install,.venv,.)
	touch $@

.venv/.dev: .venv/.core
	$(call install,.venv,.[dev])
	touch $@

.bench-venv/.done: pyproject.toml constraints.txt
	$(call install,.bench-venv,.[bench])
	touch $@

# torchvision must not be in .venv: beside a CPU build of torch its mere presence breaks the
# import of transformers. timm needs it, so both live here, without their own idea of torch.
.zoo-venv/.done: pyproject.toml constraints.txt
	$(call install,.zoo-venv,.[dev])
	.zoo-venv/bin/python -m pip install --quiet --no-deps timm==1.0.31 torchvision==0.28.0
	.zoo-venv/bin/python -m pip install --quiet --constraint constraints.txt \
		pyyaml huggingface_hub safetensors pillow
	touch $@

clean:
	rm -rf .venv .zoo-venv .bench-venv build dist runs htmlcov .coverage
	rm -rf .hypothesis .pytest_cache .ruff_cache
	find src tests bench -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true
