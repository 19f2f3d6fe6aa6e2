# make repro: everything, from nothing. `make help` lists the targets.
VENV := .venv
EXTRAS := pipeline lab docs
PYTHON ?= python3
# Tools of the environment first. Notebooks and pipeline stages find them here, too.
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export DVC_NO_ANALYTICS := 1
export NO_MKDOCS_2_WARNING := 1
NPM := docs/node_modules/.package-lock.json

README = jupyter nbconvert --log-level ERROR --to markdown --no-input --stdout nbs/index.ipynb | sed -E 's,\]\((images/|[a-z0-9_]+\.ipynb),](nbs/\1,g; s,\]\(\.\./docs/try_it\.py\),](\#the-book),g; s,\]\(\.\./,](,g' > README.md

.PHONY: help install hashes repro test notebooks fresh lab docs docs-serve plots results bench mutants crashes

help:       ## list the targets
	@sed -n 's/^\([a-z-]*\):.*##/\1\t/p' Makefile | expand -t 12

install: $(VENV)/hashes.installed  ## set up .venv for all of these targets, each file that is fetched checked by its hash

# All that `test` needs, and the versions are those of constraints.txt; then mplt itself, which is this folder.
# pip is piped through what hides the lines of what is there already; that it succeeded is told by the stamp.
.NOTPARALLEL:   # one pip at a time
PIP := $(VENV)/bin/python -m pip install --progress-bar off
SHOW := sed '/^Requirement already satisfied/d'
$(VENV)/hashes.installed: pyproject.toml hashes.txt | $(VENV)/bin/pip
	@rm -f $@
	{ $(PIP) --require-hashes --requirement hashes.txt 2>&1 && \
	$(PIP) --no-deps --no-build-isolation --editable . 2>&1 && \
	touch $@ $(EXTRAS:%=$(VENV)/%.installed) $(VENV)/test.installed; } | $(SHOW)
	@test -e $@

# An extra of pyproject.toml is installed when a target first needs it; `test` holds the others.
$(VENV)/%.installed: pyproject.toml constraints.txt | $(VENV)/bin/pip
	@rm -f $@
	{ $(PIP) --constraint constraints.txt --editable '.[$*]' 2>&1 && \
	touch $@ $(if $(filter test,$*),$(EXTRAS:%=$(VENV)/%.installed)); } | $(SHOW)
	@test -e $@

hashes: $(VENV)/bin/pip  ## after editing constraints.txt: look up the hashes of all of these versions' files (hashes.txt)
	$(PIP) --quiet uv==0.13.9
	$(VENV)/bin/uv pip compile --quiet pyproject.toml --extra test --constraint constraints.txt --universal \
	--python-version 3.11 --generate-hashes --no-annotate --no-header --output-file hashes.txt

$(VENV)/bin/pip:
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'mplt needs Python 3.11 or later, this is ' + sys.version)"
	@$(PYTHON) -c "import venv, ensurepip" 2>/dev/null || { echo "$(PYTHON) cannot make a virtual environment: install its venv package (Debian, Ubuntu: apt-get install python3-venv)"; exit 1; }
	$(PYTHON) -m venv $(VENV)

repro: $(VENV)/pipeline.installed  ## find tickets and build the quick suite's tables and figures (results/quick)
	dvc repro

test: $(VENV)/test.installed  ## check layout and style, run every notebook of nbs/ and the tests
	ruff format --check nbs tests docs
	ruff check nbs tests docs
	nbdev-test
	$(VENV)/bin/python -m pytest

notebooks: $(VENV)/test.installed  ## after editing nbs/: export mplt/, run the notebooks and save their outputs, README.md
	nbdev-export
	nbdev-test --save
	nbdev-clean
	$(README)

fresh: $(VENV)/test.installed  ## check that mplt/, README.md and the notebooks' metadata are what nbs/ makes of them
	nbdev-export
	nbdev-clean
	$(README)
	@test -z "$$(git status --porcelain mplt nbs README.md)" || { git status --short mplt nbs README.md; echo "mplt/, nbs/ or README.md differ from what is committed: run make notebooks, then commit"; exit 1; }

lab: $(VENV)/lab.installed nbs/_explore.ipynb  ## open a copy of nbs/explore.ipynb in JupyterLab: look at tickets, prune, train one, draw
	@test nbs/_explore.ipynb -nt nbs/explore.ipynb || echo "nbs/explore.ipynb is newer than your copy, nbs/_explore.ipynb: delete the copy to get a new one"
	jupyter lab nbs/_explore.ipynb

nbs/_explore.ipynb: | nbs/explore.ipynb   # what is played with is not git's; it is copied once, and edits stay
	cp nbs/explore.ipynb $@

docs: $(VENV)/docs.installed $(NPM)  ## render the notebooks and results to a site in _docs/
	mkdocs build --strict --config-file docs/mkdocs.yml

docs-serve: $(VENV)/docs.installed $(NPM)  ## show the site at http://127.0.0.1:8000, built anew after every change
	mkdocs serve --livereload --config-file docs/mkdocs.yml

plots: $(VENV)/pipeline.installed $(NPM)  ## draw the quick suite's accuracies in dvc_plots/index.html
	dvc plots show

$(NPM): docs/package-lock.json
	@command -v npm >/dev/null || { echo "the site and dvc plots need npm, which comes with Node.js"; exit 1; }
	cd docs && npm ci --no-audit --no-fund --loglevel error
	@touch $(NPM)

bench: $(VENV)/test.installed  ## a ticket's training step against a dense one, a ticket in bits against other engines, a sweep's costs
	$(VENV)/bin/python tests/benchmark.py
	$(VENV)/bin/python tests/speed.py
	$(VENV)/bin/python tests/programs.py
	$(VENV)/bin/python tests/workers.py

results: $(VENV)/pipeline.installed  ## bring the tables and figures of the committed suites up to date
	set -e; for f in suites/*/dvc.lock; do (cd "$${f%/*}" && dvc repro); done

mutants: $(VENV)/test.installed  ## break the mathematics on purpose, in copies: the golden test has to notice each time
	$(VENV)/bin/python tests/mutants.py

crashes: $(VENV)/test.installed  ## kill a run at 20 random moments: it must end with the bits of one that never was
	MPLT_KILLS=20 $(VENV)/bin/python -m pytest tests/test_crash.py
