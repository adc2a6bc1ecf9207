#!/usr/bin/env bash
# The trainings on a GPU machine where nothing can be installed and which is lent for minutes:
#   reports/train-on-gpu.sh FOLDER LABEL=IMAGES [STEPS [SECONDS]]
# The tests of training that need a GPU, then the paper's pair 38 with a null on a folder of CIFAR's images, with its drift
# every 100 steps, in float32 (FOLDER-none) and under autocast (FOLDER-bfloat16), and the language pair of 20 million parameters on
# Python's documentation (FOLDER-text); 2,000 steps unless told otherwise. Logs, exit codes and JUnit files are in FOLDER/stages.
# SECONDS (540) is what this call may take. Call it again with the same folder until its exit code is not 75: a training goes on
# where it was; AGAIN=1 does again what failed. Render the PDFs elsewhere with `revbench report`.
# What is missing there is carried along as unpacked wheels on PYTHONPATH (msgspec takes 0.6 MB):
#   pip install --target wheels --only-binary=:all: --python-version 3.12 --no-deps msgspec; PYTHONPATH=wheels reports/...
set -euo pipefail
cd "$(dirname "$0")/.."
source reports/stages.sh
output=${1:?give the folder for the runs}
data=${2:?give the images as LABEL=PATH}
steps=${3:-2000}
begin "$output" "${4:-540}"

check imports 60 python3 -c "import filelock, msgspec, psutil, pytest_benchmark, pynvml, rich, typer, torchvision"
[ -f "$output/stages/imports.done" ] || end
check training-tests 240 python3 -m pytest -p revbench.pytest_plugin -q --junitxml="$output/stages/training-tests.xml" \
  -m cuda tests/training
for autocast in none bfloat16; do
  mapfile -t words < <(command_into "$output-$autocast" train --pair 38 --steps "$steps" --data "$data" --drift-every 100 \
    --checkpoint-every 200 --autocast "$autocast")
  run "training-$autocast" 100000 "$output-$autocast" "${words[@]}"
done
mapfile -t words < <(command_into "$output-text" train --pair revgpt-20m --steps "$steps" --drift-every 100 --checkpoint-every 200)
run training-text 100000 "$output-text" "${words[@]}"
end
