#!/usr/bin/env bash
# One full call on a GPU machine where nothing can be installed: the tests that need a GPU (predictions against the allocator
# and NVML among them), the quick tier with five launches, memory against depth and images per second under 8 to 80 GiB,
# drift in every arithmetic with 30 draws,
# then the chains by which libraries are compared (those that can be imported), compiled ways included. The run folder goes
# to the first argument, the others' beside it; render the PDFs elsewhere with `revbench report`.
# What is missing there is carried along as unpacked wheels on PYTHONPATH (msgspec takes 0.6 MB):
#   pip install --target wheels --only-binary=:all: --python-version 3.12 --no-deps msgspec; PYTHONPATH=wheels reports/...
set -euo pipefail
cd "$(dirname "$0")/.."
python3 -c "import filelock, msgspec, psutil, pytest_benchmark, pynvml, rich, typer" # before the device's time is spent
output=${1:?give the folder for the run}
python3 -m pytest -p revbench.pytest_plugin -m cuda tests
python3 -m pytest -p revbench.pytest_plugin --benchmark --revbench-device=cuda --revbench-repeats=5 \
  --revbench-output="$output"
python3 -m pytest -p revbench.pytest_plugin --benchmark suites/bench_memory.py suites/bench_iso_memory.py \
  -k "depth or iso_memory" --revbench-device=cuda --revbench-tier=full --revbench-output="$output-memory"
python3 -m pytest -p revbench.pytest_plugin --benchmark suites/bench_drift.py --revbench-device=cuda --revbench-tier=full \
  --revbench-output="$output-drift"
python3 -m pytest -p revbench.pytest_plugin --benchmark suites/bench_peers.py --revbench-device=cuda --revbench-tier=full \
  --revbench-repeats=5 --revbench-output="$output-libraries"
