#!/usr/bin/env bash
# One full call of the trainings on a GPU machine where nothing can be installed: the tests of training that need a GPU, then
# the paper's pair 38 with a null on a folder of CIFAR's images, with its drift every 100 steps, in float32 and under autocast.
# First argument: the folder for the runs; second: the folder of images, as LABEL=PATH; third: steps, 2,000 by default. A run that
# was cut off goes on when called again. Render the PDFs elsewhere with `revbench report`.
# What is missing there is carried along as unpacked wheels on PYTHONPATH (msgspec takes 0.6 MB):
#   pip install --target wheels --only-binary=:all: --python-version 3.12 --no-deps msgspec; PYTHONPATH=wheels reports/...
set -euo pipefail
cd "$(dirname "$0")/.."
python3 -c "import filelock, msgspec, psutil, pytest_benchmark, pynvml, rich, typer" # before the device's time is spent
output=${1:?give the folder for the runs}
data=${2:?give the images as LABEL=PATH}
steps=${3:-2000}
python3 -m pytest -p revbench.pytest_plugin -m cuda tests/training
for autocast in none bfloat16; do
  run="$output-$autocast"
  where=$([ -f "$run/rows.jsonl" ] && echo --resume || echo --output)
  python3 -m revbench train --pair 38 --steps "$steps" --data "$data" --drift-every 100 --device cuda \
    --autocast "$autocast" "$where" "$run"
done
