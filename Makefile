# The verbs. `make help` lists them; what they do is in scripts/ and app/.
.DEFAULT_GOAL := help
.PHONY: $(shell sed -n 's/^\([a-z0-9-]*\):.*\#\# .*/\1/p' Makefile) FORCE

PACK := models/seaco
PRECISION := int8
SOURCE := iic/speech_seaco_paraformer_large_asr_nat-zh-cn-16k-common-vocab8404-pytorch
INPUT := app/demo/recordings/meeting.ogg
MODEL := demo
PORT := 8000
RUN_DEV := .venv-dev/bin/python
PYTHON_GPU ?= python3

help: ## this list
	@sed -n 's/^\([a-z0-9-]*\):.*## /\1|/p' Makefile | while IFS='|' read -r verb text; do printf '  make %-16s %s\n' "$$verb" "$$text"; done

demo: .venv ## set up, then transcribe the shipped recordings with the shipped demo model
	@.venv/bin/python -m app.demo

run: .venv-serve ## serve the API and the page until Ctrl-C (MODEL=demo|NAME|DIR, PORT=8000); a model that is not here is fetched and packed first
	@scripts/run.sh "$(MODEL)" "$(PORT)"

model: ## fetch the full model from its hub and make a pack of it (SOURCE, PACK, PRECISION=int8|fp16|fp32, VIA=toolbox|python)
	@scripts/model.sh "$(SOURCE)" "$(PACK)" "$(PRECISION)"

image: ## build an image: VARIANT=cpu|cuda-fp16|cuda-fp32|toolbox|exporter|all (docs/images.md)
	@scripts/image.sh $(VARIANT)

scan-image: ## look into a built image for setuid files, secrets, waste, packages that are not the pinned ones, Debian's updates (VARIANT=cpu)
	@scripts/scan_image.py $(or $(VARIANT),cpu)

up: ## pick what this host can hold, say why, start it and wait until it is ready (VARIANT, MODEL, PORT, API_KEYS_FILE, MONITORING=yes)
	@scripts/up.py up

down: ## end what `make up` started; jobs and packs stay
	@scripts/up.py down

bundle: ## one archive that installs a host without internet (VARIANT="cpu ...", PACK=...); writes build/
	@scripts/bundle.py

variants: ## rewrite what is made of images/variants.json
	@python3 scripts/bake_variants.py
	@python3 -m scripts.picking.page

provision: .venv-ops ## bare hosts to a monitored fleet (INVENTORY=file, LIMIT=hosts, CHECK=1, SERIAL=1, ARGS=...; ansible/README.md)
	@scripts/fleet.sh provision

plan: .venv-ops ## what every host of the fleet would run and which driver it needs; changes nothing (INVENTORY=file)
	@scripts/fleet.sh plan

report: .venv-ops ## what every host of the fleet runs, why, and how fast (INVENTORY=file)
	@scripts/fleet.sh report

rollback: .venv-ops ## hosts of the fleet back to the release before (INVENTORY=file, LIMIT=hosts)
	@scripts/fleet.sh rollback

fmt: .venv-dev ## write the code in one style
	@scripts/lint.sh fix

lint: .venv-dev .venv-ops ## read the code for faults; changes nothing
	@scripts/lint.sh check

test: .venv-dev .venv-ops ## the tests, minutes
	@$(RUN_DEV) -m pytest -q -n 2 --dist loadfile

# Not in CI: it is `make test` once more, slower. Exactly the parts named in scripts/check_coverage.py are held to a limit.
coverage: .venv-dev .venv-ops ## the tests, and which lines they never ran; fails below 90 % of the branches of a core part
	@rm -f .coverage .coverage.*
	@$(RUN_DEV) -m coverage run -m pytest -q
	@$(RUN_DEV) -m coverage run -m pytest -q -m e2e tests/e2e/test_training.py
	@$(RUN_DEV) -m coverage combine --quiet
	@$(RUN_DEV) -m coverage report
	@mkdir -p build && $(RUN_DEV) -m coverage json --quiet -o build/coverage.json
	@$(RUN_DEV) scripts/check_coverage.py build/coverage.json

test-e2e: .venv .venv-dev .venv-ops ## the tests that need a full-size model or a fresh environment, many minutes
	@$(RUN_DEV) -m pytest -q -m "e2e and not fleet" tests/e2e

test-fleet: .venv-dev .venv-ops ## provision a fleet of test hosts over SSH, upgrade it, break it; twenty minutes
	@$(RUN_DEV) -m pytest -q -m fleet tests/e2e

bench: .venv .venv-dev .venv-bench ## measure against FunASR, funasr-onnx and sherpa-onnx (ARGS="--seconds 10,60"); rewrites docs/benchmarks/peers.*
	@$(RUN_DEV) -m scripts.bench $(ARGS)

bench-memory: .venv .venv-dev ## memory over one minute, one hour, ten hours; rewrites docs/benchmarks/memory.*
	@$(RUN_DEV) -m scripts.bench.memory

bench-service: .venv-serve .venv-dev ## the service under load: start, memory, 64 clients, 1000 files (ARGS="--model PACK"); rewrites docs/benchmarks/service-*
	@$(RUN_DEV) -m scripts.bench.service $(ARGS)

bench-capacity: .venv-serve .venv-dev ## the capacity model's waits beside the service's, five minutes (ARGS="--model PACK"); rewrites docs/benchmarks/capacity.*
	@$(RUN_DEV) -m scripts.bench.capacity $(ARGS)

bench-scaling: .venv .venv-dev .venv-bench .venv-serve .venv-monitoring ## how time and memory grow with length, threads, hot words and clients; rewrites docs/benchmarks/scaling.*
	@$(RUN_DEV) -m scripts.bench.scaling $(ARGS)

bench-fleet: .venv-serve .venv-dev .venv-ops ## the capacity model's waits beside those of a fleet made for it, 15 minutes; rewrites docs/benchmarks/fleet-capacity.*
	@KEEP_FLEET_CAPACITY=docs/benchmarks $(RUN_DEV) -m pytest -q -m fleet -k "one_command or capacity_model" tests/e2e/test_provision.py

bench-quick: .venv .venv-dev .venv-bench ## a rehearsal of the same on a small model; writes under build/
	@$(RUN_DEV) -m scripts.bench --quick

bench-punc: .venv-dev ## the punctuation model beside FunASR's; rewrites docs/benchmarks/punctuation.*
	@$(RUN_DEV) -m scripts.bench.punctuation

bench-matrix: .venv ## compare settings on this machine (INPUT=..., MODEL=...); writes build/bench-matrix
	@.venv/bin/python -m app bench --matrix "$(INPUT)" --model "$(MODEL)"

test-gpu: ## the tests that need a CUDA device; skipped with a reason without one (PYTHON_GPU=..., ARGS=...)
	@PYTHON_GPU="$(PYTHON_GPU)" scripts/gpu.sh test $(ARGS)

bench-gpu: ## measure beside AutoModel on a CUDA device; rewrites docs/benchmarks/gpu.* (PYTHON_GPU=..., ARGS="--only ...")
	@PYTHON_GPU="$(PYTHON_GPU)" scripts/gpu.sh bench $(ARGS)

dashboards: .venv-monitoring ## write monitoring/grafana/dashboards from monitoring/dashboards and docs/runbook.md
	@.venv-monitoring/bin/python -m monitoring.dashboards

dashboard-images: .venv-dev .venv-monitoring ## draw the dashboards from the end-to-end test's series; rewrites docs/images
	@mkdir -p build && KEEP_PANEL_SERIES=build/panels.json $(RUN_DEV) -m pytest -q -m e2e tests/e2e/test_monitoring.py
	@.venv-monitoring/bin/python scripts/draw_dashboards.py build/panels.json docs/images

fuzz: .venv-serve .venv-fuzz ## send 10,000 random requests to a service of our own; none may fail it (ARGS="--cases N --minutes M")
	@.venv-fuzz/bin/python -m scripts.fuzz $(ARGS)

fuzz-media: .venv-dev ## decode 10,000 damaged recordings; each gives sound or is refused (ARGS="--cases N --minutes M")
	@$(RUN_DEV) -m tests.fuzz.media $(ARGS)

chaos: .venv-dev .venv-ops ## random faults against a real service under load; nothing may be lost (ARGS="--seed N --minutes M --write"); needs root for all of them
	@$(RUN_DEV) -m tests.chaos $(ARGS)

lock: ## rewrite requirements/*.txt from requirements/*.in (needs uv)
	@python3 scripts/lock_requirements.py

probe: ## facts about this host, as JSON
	@python3 scripts/probe_host.py

pick: ## which image this host should run, and why (FACTS=file.json: for another host)
	@python3 scripts/pick_variant.py $(if $(FACTS),--facts "$(FACTS)")

clean: ## remove environments and what was built
	rm -rf .venv .venv-* build .mypy_cache .ruff_cache .pytest_cache

.venv: FORCE
	@scripts/make_venv.sh cpu

.venv-%: FORCE
	@scripts/make_venv.sh $*

FORCE:
