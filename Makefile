# The verbs. `make help` lists them; what they do is in scripts/ and app/.
.DEFAULT_GOAL := help
.PHONY: help demo model fmt lint test coverage test-e2e bench bench-memory bench-quick lock clean

PACK := models/seaco
SOURCE := iic/speech_seaco_paraformer_large_asr_nat-zh-cn-16k-common-vocab8404-pytorch
RUN_DEV := .venv-dev/bin/python

help: ## this list
	@sed -n 's/^\([a-z0-9-]*\):.*## /\1|/p' Makefile | while IFS='|' read -r verb text; do printf '  make %-12s %s\n' "$$verb" "$$text"; done

demo: .venv ## set up, then transcribe the shipped recordings with the shipped demo model
	@.venv/bin/python -m app.demo

model: .venv-dev ## fetch the full model from its hub and make an int8 pack of it (SOURCE=..., PACK=...)
	@$(RUN_DEV) -m app pack "$(SOURCE)" --output "$(PACK)" --precision int8

fmt: .venv-dev ## write the code in one style
	@scripts/lint.sh fix

lint: .venv-dev ## read the code for faults; changes nothing
	@scripts/lint.sh check

test: .venv-dev ## the tests, minutes
	@$(RUN_DEV) -m pytest -q

coverage: .venv-dev ## the tests, and which lines they never ran
	@$(RUN_DEV) -m coverage run -m pytest -q
	@$(RUN_DEV) -m coverage report

test-e2e: .venv .venv-dev ## the tests that need a full-size model or a fresh environment, many minutes
	@$(RUN_DEV) -m pytest -q -m e2e tests/e2e

bench: .venv .venv-dev .venv-bench ## measure against FunASR and funasr-onnx; rewrites docs/benchmarks/cpu.*
	@$(RUN_DEV) -m scripts.bench

bench-memory: .venv .venv-dev ## memory over one minute, one hour, ten hours; rewrites docs/benchmarks/memory.*
	@$(RUN_DEV) -m scripts.bench.memory

bench-quick: .venv .venv-dev .venv-bench ## a rehearsal of the same on a small model; writes under build/
	@$(RUN_DEV) -m scripts.bench --quick

lock: ## rewrite requirements/*.txt from requirements/*.in (needs uv)
	@python3 scripts/lock_requirements.py

clean: ## remove environments and what was built
	rm -rf .venv .venv-dev .venv-bench build .mypy_cache .ruff_cache .pytest_cache

.PHONY: .venv .venv-dev .venv-bench
.venv:
	@scripts/make_venv.sh cpu

.venv-dev:
	@scripts/make_venv.sh dev

.venv-bench:
	@scripts/make_venv.sh bench
