# make repro: everything, from nothing. `make help` lists the targets.
VENV := .venv
STAMP := $(VENV)/installed
PYTHON ?= python3
# Tools of the environment first. Notebooks and pipeline stages find them here, too.
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
export DVC_NO_ANALYTICS := 1
export NO_MKDOCS_2_WARNING := 1
NPM := docs/node_modules/.package-lock.json

README = jupyter nbconvert --log-level ERROR --to markdown --no-input --stdout nbs/index.ipynb | sed -E 's,\]\((images/|[a-z0-9_]+\.ipynb),](nbs/\1,g' > README.md

.PHONY: help install repro test notebooks fresh lab docs docs-serve plots bench crashes

help:       ## list the targets
	@sed -n 's/^\([a-z-]*\):.*##/\1\t/p' Makefile | expand -t 12

install: $(STAMP)  ## set up .venv with the versions of constraints.txt

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'mplt needs Python 3.11 or later, this is ' + sys.version)"
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --constraint constraints.txt --editable '.[pipeline,onnx,lab,docs,test]'
	$(VENV)/bin/python -m pip check
	@touch $(STAMP)

repro: $(STAMP)    ## find tickets and build the quick suite's tables and figures (results/quick)
	dvc repro

test: $(STAMP)     ## run every notebook of nbs/ and the tests
	nbdev-test
	$(VENV)/bin/python -m pytest

notebooks: $(STAMP) ## after editing nbs/: export mplt/, run the notebooks and save their outputs, README.md
	nbdev-export
	nbdev-test --save
	nbdev-clean
	$(README)

fresh: $(STAMP)    ## check that mplt/, README.md and the notebooks' metadata are what nbs/ makes of them
	nbdev-export
	nbdev-clean
	$(README)
	@test -z "$$(git status --porcelain mplt nbs README.md)" || { git status --short mplt nbs README.md; echo "mplt/, nbs/ or README.md differ from what is committed: run make notebooks, then commit"; exit 1; }

lab: $(STAMP)      ## open nbs/explore.ipynb in JupyterLab: look at tickets, prune, draw digits
	jupyter lab nbs/explore.ipynb

docs: $(STAMP) $(NPM)  ## render the notebooks and results to a site in _docs/
	mkdocs build --strict --config-file docs/mkdocs.yml

docs-serve: $(STAMP) $(NPM)  ## show the site at http://127.0.0.1:8000, built anew after every change
	mkdocs serve --livereload --config-file docs/mkdocs.yml

plots: $(STAMP) $(NPM)  ## draw the quick suite's accuracies in dvc_plots/index.html
	dvc plots show

$(NPM): docs/package-lock.json
	@command -v npm >/dev/null || { echo "the site and dvc plots need npm, which comes with Node.js"; exit 1; }
	cd docs && npm ci --no-audit --no-fund --loglevel error
	@touch $(NPM)

bench: $(STAMP)    ## a ticket's training step against a dense one
	$(VENV)/bin/python tests/benchmark.py

crashes: $(STAMP)  ## kill a run at 20 random moments: it must end with the bits of one that never was
	MPLT_KILLS=20 $(VENV)/bin/python -m pytest tests/test_crash.py
