# make help says what there is. The first command of all installs what is needed, once: docs/install.md.

# The environment: the one that is active, except conda's base, or .venv, which is made where it is missing.
CONDA := $(if $(or $(filter base,$(CONDA_DEFAULT_ENV)),$(wildcard $(CONDA_PREFIX)/condabin)),,$(CONDA_PREFIX))
VENV := $(subst $(CURDIR)/.venv,.venv,$(or $(VIRTUAL_ENV),$(CONDA),.venv))
$(if $(word 2,$(VENV)),$(error make cannot work in $(VENV): there is a blank in this path. Deactivate this environment))
PYTHON := $(VENV)/bin/python
READY := $(VENV)/mtl_core.ready
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Bytecode is kept, whatever the shell says: without it every process compiles torch and all the rest anew.
export PYTHONDONTWRITEBYTECODE :=

# An environment that is none any more (its Python removed or another one, its files lost) is not ready.
RIGHT := import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13))
SOUND := $(PYTHON) -c 'import os, sys; os.path.samefile(sys.prefix, "$(VENV)") or sys.exit(1); $(RIGHT)' 2>/dev/null
$(shell $(SOUND) || rm -f $(READY))

PYTEST = OMP_NUM_THREADS=1 $(PYTHON) -m pytest -q -n $(or $(WORKERS),logical) --maxprocesses 8 --dist worksteal

.PHONY: help reproduce plan figure audit doctor records merge digits test test-all bench report site slides bundle lint student grade clean compare
.DEFAULT_GOAL := help

help: ## this list
	@echo "make COMMAND [NAME=value ...]"
	@sed -n 's/^\([a-z-]*\):[^#]*## /  \1\t/p' $(MAKEFILE_LIST) | expand -t 13
	@echo "The first of them installs what is needed, into the active environment or .venv (docs/install.md): TORCH=cpu"
	@echo "(no CUDA), WHEELS=folder (without a network), BASE=python3.12 (to make .venv with)."

reproduce: $(READY) ## run the notebooks: PRESET=smoke|quick|overnight|paper|shipped (that of each notebook whose numbers ship), ONLY=01 or "00 01", WORKERS=n (one per core), STORE=folder, ENGINE=dask, ADDRESS=tcp://..., KEEP=1 (checkpoints, to train longer later), CHECK=1 (hold the numbers against the shipped ones), CHANGED=1 (only what changed since it was executed; CHANGED=main: since that commit), MINUTES=n, MEMORY=n (GiB; limits of each notebook)
	@$(if $(KEEP),MTL_KEEP=1) $(if $(ENGINE),MTL_ENGINE="$(ENGINE)") $(if $(ADDRESS),MTL_ADDRESS="$(ADDRESS)") \
		$(PYTHON) -m mtl_study.publishing.reproduce $(if $(filter undefined,$(origin PRESET)),,--preset "$(PRESET)") $(if $(ONLY),--only "$(ONLY)") \
		$(if $(WORKERS),--workers "$(WORKERS)") $(if $(STORE),--store "$(STORE)") \
		$(if $(CHECK),--check) $(if $(CHANGED),--changed "$(CHANGED)") $(if $(MINUTES),--minutes "$(MINUTES)") $(if $(MEMORY),--memory "$(MEMORY)")

plan: $(READY) ## what a preset takes, before any of it is run: PRESET=paper, ONLY=01, DEVICES=n (that share the runs), README=1 (writes the table there, too); needs no data
	@$(PYTHON) -m mtl_study.publishing.plan $(if $(filter undefined,$(origin PRESET)),,--preset "$(PRESET)") $(if $(ONLY),--only "$(ONLY)") $(if $(DEVICES),--devices "$(DEVICES)") $(if $(README),--readme)

figure: $(READY) ## draw one figure or table again, from the records that are there: NAME=01_figure_1, PRESET=quick (default: that whose numbers ship), STORE=folder
	@$(PYTHON) -m mtl_study.publishing.excerpts "$(NAME)" $(if $(filter undefined,$(origin PRESET)),,--preset "$(PRESET)") $(if $(STORE),--store "$(STORE)")

audit: $(READY) ## CLAIM=C3b: from the records to the verdict; RUNS=3: train random shipped records again (SEED=n: these; DATA=folder with MNIST), and say whether they are bit-equal
	@$(PYTHON) -m mtl_study.publishing.audit $(if $(CLAIM),--claim "$(CLAIM)") $(if $(RUNS),--runs "$(RUNS)") $(if $(SEED),--seed "$(SEED)") $(if $(DATA),--data "$(DATA)") \
		$(if $(filter undefined,$(origin PRESET)),,--preset "$(PRESET)") $(if $(STORE),--store "$(STORE)")

doctor: $(READY) ## what this machine has, and which presets it can run
	@$(PYTHON) -m mtl_study.publishing.doctor

merge: $(READY) ## bring the records of FROM=folder into those that are shipped, or into INTO=folder
	@$(PYTHON) -m mtl_study.experiments.merge "$(FROM)" $(if $(INTO),--into "$(INTO)")

digits: $(READY) ## get all of MNIST as data/MNIST (DATA=folder: elsewhere), for `source: full`
	@$(PYTHON) -m mtl_study.experiments.digits $(if $(DATA),--data "$(DATA)")

test: $(READY) ## run the tests, except those marked slow, browser, cluster or gpu: WORKERS=n (one per core, at most 8)
	$(PYTEST) -m "not slow and not browser and not cluster and not gpu"

# Other processors run other code: what trains is run again under their instruction sets, in torch's own kernels (ATEN)
# and in the libraries that it calls (oneDNN, MKL). A part that fails does not keep the others from running.
ONLY_AVX2 := ATEN_CPU_CAPABILITY=avx2 MKL_ENABLE_INSTRUCTIONS=AVX2
test-all: $(READY) ## run all tests, and those that train under each instruction set: MARK=slow|browser|cluster|gpu|training for one part
	@$(if $(filter-out slow browser cluster gpu training,$(MARK)),echo "There is no mark $(MARK)."; exit 2,failed=); \
	echo "Tests: $(or $(MARK),all)."; \
	$(PYTEST) -rs $(if $(MARK),-m "$(MARK)"); \
	case $$? in 0) ;; 5) echo "No test is marked $(MARK)."; exit 0;; *) failed="$$failed $(or $(MARK),all)";; esac; \
	others="$(if $(filter-out training,$(MARK)),,AVX2 AVX512_CORE)"; \
	if test -n "$$others" && \
		! $(PYTHON) -c "import sys, torch; sys.exit(torch.backends.cpu.get_cpu_capability() != 'AVX512')"; then \
		echo "Tests under another instruction set: none, this processor has no AVX-512."; others=; \
	fi; \
	for isa in $$others; do \
		limits="ONEDNN_MAX_CPU_ISA=$$isa"; test $$isa != AVX2 || limits="$$limits $(ONLY_AVX2)"; \
		echo "Tests: training, under $$limits."; \
		env $$limits $(PYTEST) -rs -m training || failed="$$failed $$isa"; \
	done; \
	if test -n "$$failed"; then echo "Failed:$$failed."; exit 1; fi; \
	echo "No test failed; what was skipped, and why, is listed above."

records: $(READY) ## train what a preset rests on, most informative first: PRESET=overnight, HOURS=2.5, WORKERS=n, STORE=folder, DATA=folder with MNIST, LOOK=1 (only say what is missing), ANY=1 (finish what another kind of machine began)
	@$(PYTHON) -m mtl_study.experiments.evidence $(if $(filter undefined,$(origin PRESET)),,--preset "$(PRESET)") $(if $(HOURS),--hours "$(HOURS)") \
		$(if $(WORKERS),--workers "$(WORKERS)") $(if $(STORE),--store "$(STORE)") $(if $(DATA),--data "$(DATA)") $(if $(LOOK),--look) $(if $(ANY),--any)

compare: $(READY) ## your own method against those of the paper, whose records ship: METHOD=mine.py, PROBLEM=multimnist/CL_RR, PRESET=quick|overnight, DATA=folder with MNIST, WORKERS=n, UNLESS="permutation scaling" (checks that it does not promise, as where it draws), OPTIONS='{"alpha": 0.5}' (of the method, as JSON)
	@$(PYTHON) -m mtl_study.publishing.compare --method "$(METHOD)" $(if $(PROBLEM),--problem "$(PROBLEM)") \
		$(if $(filter undefined,$(origin PRESET)),,--preset "$(PRESET)") $(if $(DATA),--data "$(DATA)") $(if $(WORKERS),--workers "$(WORKERS)") \
		$(if $(UNLESS),--unless "$(UNLESS)") $(if $(OPTIONS),--options '$(OPTIONS)')

bench: $(READY) ## what a training step of every method costs, how fast the solvers are, and more, next to the last results: PART=steps (one part), ROUNDS=10 (fewer: quicker, and less exact), DEVICE=cuda
	@$(PYTHON) -m benchmarks.speed $(PART) $(if $(ROUNDS),--rounds "$(ROUNDS)") $(if $(DEVICE),--device "$(DEVICE)")

report: $(READY) ## write REPORT.md and its figures from artifacts/shipped; DROP=1 leaves out what only the last report has
	@$(PYTHON) -m mtl_study.publishing.reproduce --report $(if $(DROP),--drop)

site: $(READY) ## build artifacts/site, the edition to publish, from the artifacts of PRESET=shipped: results, notebooks, methods, API
	@$(PYTHON) -m mtl_study.publishing.edition $(if $(filter undefined,$(origin PRESET)),,--preset "$(PRESET)")

slides: $(READY) ## write reveal.js slides of the notebooks that PRESET=shipped executed, to artifacts/slides; they need no network
	@$(PYTHON) -m mtl_study.publishing.slides $(if $(filter undefined,$(origin PRESET)),,--preset "$(PRESET)")

bundle: $(READY) ## for a lab without internet: wheels, repository and site in artifacts/bundle, tried out; FOLDER=folder, WHEELS=folder (of wheels that are there), TORCH=cpu
	@$(PYTHON) -m mtl_study.publishing.bundle $(if $(FOLDER),--folder "$(FOLDER)") $(if $(WHEELS),--wheels "$(WHEELS)") $(if $(TORCH),--torch "$(TORCH)")

lint: $(READY) ## check style and types
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m mypy

student: $(READY) ## write the notebooks without solutions to artifacts/student: FOLDER=folder, SEED=n (other numbers in the exercises), INSTRUCTOR=1 (with solutions and minutes, to artifacts/instructor)
	@$(PYTHON) -m mtl_study.publishing.handouts $(if $(FOLDER),--folder "$(FOLDER)") $(if $(SEED),--seed "$(SEED)") $(if $(INSTRUCTOR),--instructor)

grade: $(READY) ## a table of what handed-in notebooks say about their exercises: FOLDER=folder with <name>/NN_....ipynb
	@$(PYTHON) -m mtl_study.publishing.grading "$(FOLDER)"

clean: ## remove artifacts and caches; keep runs, the environment and what is handed out in a course
	for made in artifacts/*; do \
		test -n "$$(find "$$made" -type l -name results 2>/dev/null)" || \
			grep -rlq --include='*.ipynb' '"handed_out"' "$$made" || rm -rf "$$made"; \
	done
	rm -rf .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find mtl_core mtl_study benchmarks tests notebooks \( -name __pycache__ -o -name .ipynb_checkpoints \) -prune -exec rm -rf {} +

# .venv is made from nothing where there is none, or where the last installation into one that make has made was cut off.
# Any other environment is yours: what it lacks is installed, nothing is cleared. BASE names a Python to make .venv with.
MADE := .venv/mtl_core.made
INDEX := $(if $(WHEELS),--no-index --find-links "$(WHEELS)") $(if $(TORCH),--extra-index-url https://download.pytorch.org/whl/$(TORCH))
$(READY): pyproject.toml constraints.txt
	@case "$(TORCH)" in ""|cpu) ;; *) echo "TORCH=$(TORCH): cpu is possible, or nothing, for what a GPU needs." >&2; exit 2;; esac
	@test -z "$(WHEELS)" || test -d "$(WHEELS)" || { echo "WHEELS=$(WHEELS): no such folder; docs/install.md fills one." >&2; exit 2; }
	@test -n "$(TORCH)$(WHEELS)" || command -v nvidia-smi >/dev/null || echo "No GPU is seen: TORCH=cpu takes 4 GB less."
	@test -z "$(CONDA_PREFIX)" || test -n "$(VIRTUAL_ENV)$(CONDA)" || echo "conda's base is left as it is: this goes to .venv."
	@if test $(VENV) = .venv && test ! -L .venv && { test ! -e .venv || { test -e $(MADE) && test ! -e $@; }; }; then \
		for python in $(BASE) python3.11 python3.12 python3; do \
			"$$python" -c '$(RIGHT)' 2>/dev/null || continue; \
			echo "Making the environment in .venv with $$($$python --version)."; \
			rm -rf .venv && mkdir .venv && touch $(MADE) && "$$python" -m venv .venv && exit 0; \
			echo "$$python cannot make a virtual environment; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; \
		done; \
		echo "Python 3.11 or 3.12 is needed, and neither python3.11, python3.12 nor python3 is one." >&2; exit 1; \
	fi
	@$(SOUND) || { \
		echo "$(VENV) is no environment of Python 3.11 or 3.12; it has $$($(PYTHON) --version 2>/dev/null || echo no Python that runs)." >&2; \
		echo "Activate another, or none. What make did not make it does not clear: remove such a .venv yourself." >&2; exit 2; }
	@rm -f $@
	@$(PYTHON) -m pip --version >/dev/null 2>&1 || $(PYTHON) -m ensurepip
	$(PYTHON) -m pip install $(INDEX) --no-compile --constraint constraints.txt --editable '.[dev]'
	@touch $@
