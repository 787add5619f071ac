PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
VIEWS := views=8,view_area=0.8
ROOMS := engine data export quant eval commands

.PHONY: demo demo-clip demo-files docs test format lint types unit hosts host-node host-browser host-java clean

# The whole way of `fozo demo`, export included: exports the small model whose weights ship with fozo and adapts
# it over corrupted digits. About three minutes, most of them for installing PyTorch.
demo: $(VENV)/.demo
	mkdir -p demo
	$(BIN)/fozo export --model fozo_demo_vit --out demo/bundle --overwrite
	$(BIN)/fozo adapt demo/bundle --dataset demo --severities 3 --out demo/results.json --overwrite

# The same for a tiny CLIP trained on digits: image and text graphs, classes from words, and methods made for CLIP.
demo-clip: $(VENV)/.demo-clip
	mkdir -p demo-clip
	$(BIN)/fozo export --clip fozo_demo_clip --out demo-clip/bundle --overwrite
	$(BIN)/fozo adapt demo-clip/bundle --dataset demo --severities 3 --subset 400 \
	  --corruptions gaussian_noise,impulse_noise,contrast,pixelate,clean -m no_adapt -m zero=zero:$(VIEWS) \
	  -m stss=stss:$(VIEWS) -m tda -m gauss -m pizo --out demo-clip/results.json --overwrite
	$(BIN)/python tools/negative_digits.py demo-clip/negatives
	$(BIN)/fozo tune demo-clip/bundle --data demo-clip/negatives --method zip-cached --vectors 4 --dimension 100 \
	  --budget 1000 --evaluate test --as negatives --out demo-clip/tuning.json --overwrite

# Writes the files of `fozo demo` again: digits and bundle. Graphs and statistics are the same to the bit
# with the same packages; the bundle's manifest also records the versions and the speed of this machine.
demo-files: $(VENV)/.dev
	$(BIN)/python tools/demo_digits.py
	$(BIN)/fozo export --model fozo_demo_vit --no-int8 --out data/demo_bundle --overwrite
	$(BIN)/fozo quantize data/demo_bundle --force
	$(BIN)/python -m fozo.export.demo_vocabulary
	$(BIN)/fozo export --clip fozo_demo_clip --no-int8 --out data/demo_clip_bundle --overwrite
	$(BIN)/fozo quantize data/demo_clip_bundle --force

test: lint types unit

lint: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

# The repository root is the package: a link named `fozo` shows it to mypy as such.
types: $(VENV)/.dev
	mkdir -p $(VENV)/src && ln -sfn $(CURDIR) $(VENV)/src/fozo
	cd $(VENV)/src && MYPYPATH=. $(abspath $(BIN))/mypy --config-file $(CURDIR)/pyproject.toml \
	  --cache-dir $(abspath $(VENV))/mypy $(ROOMS:%=-p fozo.%) -m fozo.cli -m fozo.methods -m fozo.testing -m fozo.evaluation
	cd $(VENV)/src && MYPYPATH=. $(abspath $(BIN))/mypy --config-file $(CURDIR)/pyproject.toml \
	  --cache-dir $(abspath $(VENV))/mypy $(wildcard $(CURDIR)/examples/*.py $(CURDIR)/examples/own_method/fozo_*.py)

unit: $(VENV)/.dev
	$(BIN)/python -m pytest -n 2 --dist loadscope

# Packages of the programs in other languages (examples/). Tests of a language are skipped without them.
hosts: host-node host-browser host-java

host-node:
	@if command -v npm > /dev/null && cd examples/node \
	  && npm install --ignore-scripts --no-audit --no-fund --silent --prefer-offline --fetch-retries=0; \
	then echo "examples/node: packages are in place"; \
	else echo "examples/node: npm is missing or has failed, so its tests are skipped"; fi

# ONNX Runtime for browsers, and Playwright. Chromium is a package of the system: only CI installs it.
host-browser: $(VENV)/.dev
	@if command -v npm > /dev/null && cd examples/browser \
	  && npm install --ignore-scripts --no-audit --no-fund --silent --prefer-offline --fetch-retries=0; \
	then echo "examples/browser: packages are in place"; \
	else echo "examples/browser: npm is missing or has failed, so its tests are skipped"; fi
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check playwright \
	  || echo "examples/browser: playwright cannot be installed, so its tests are skipped"
	@command -v chromium > /dev/null || command -v google-chrome > /dev/null \
	  || { test -n "$$CI" && apt-get -qq update && apt-get -qq install -y chromium; } > /dev/null 2>&1 \
	  || echo "examples/browser: Chromium is missing, so its tests are skipped: apt-get install chromium"

.PHONY: host-c
hosts: host-c

host-c:
	@if command -v npm > /dev/null && $(MAKE) --silent --no-print-directory -C examples/c packages; \
	then echo "examples/c: packages are in place"; \
	else echo "examples/c: npm is missing or has failed, so its tests are skipped"; fi

.PHONY: host-rust
hosts: host-rust

host-rust:
	@if command -v cargo > /dev/null && cargo build --release --quiet --manifest-path examples/rust/Cargo.toml; \
	then echo "examples/rust: the program is built"; \
	else echo "examples/rust: cargo is missing or has failed, so its tests are skipped"; fi

host-java:
	@if command -v mvn > /dev/null && mvn --quiet --batch-mode -f examples/java/pom.xml package; \
	then echo "examples/java: packages are in place"; \
	else echo "examples/java: Maven is missing or has failed, so its tests are skipped"; fi

# Writes the option tables of docs/methods.md from the code, then builds the site into build/site.
docs: $(VENV)/.dev
	$(BIN)/python tools/method_tables.py
	$(BIN)/mkdocs build

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(VENV)/.demo: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[export,report]'
	touch $@

$(VENV)/.demo-clip: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[clip,report]'
	touch $@

$(VENV)/.dev: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[all,dev]'
	touch $@

clean:
	rm -rf $(VENV) demo demo-clip build dist *.egg-info
