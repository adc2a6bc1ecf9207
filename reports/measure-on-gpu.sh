#!/usr/bin/env bash
# Everything that revbench measures on a GPU, on a machine where nothing can be installed and which is lent for minutes:
#   reports/measure-on-gpu.sh FOLDER [SECONDS]
# FOLDER takes the run of the quick tier (FOLDER-pairs, -imagenet, -depth-speed, -memory, -drift and -libraries the others), with
# logs, exit codes and JUnit files in FOLDER/stages. SECONDS (540) is what this call may take. Call it again with the same folder
# until its exit code is not 75; AGAIN=1 does again what failed. Render the PDFs elsewhere with `revbench report`.
# What is missing there is carried along as unpacked wheels on PYTHONPATH (msgspec takes 0.6 MB):
#   pip install --target wheels --only-binary=:all: --python-version 3.12 --no-deps msgspec; PYTHONPATH=wheels reports/...
set -euo pipefail
cd "$(dirname "$0")/.."
source reports/stages.sh
output=${1:?give the folder for the run}
begin "$output" "${2:-540}"

tests() { # NAME SECONDS OPTION...
  local name=$1 most=$2
  shift 2
  check "$name" "$most" python3 -m pytest -p revbench.pytest_plugin -q --junitxml="$output/stages/$name.xml" "$@"
}
measured() { # NAME SECONDS FOLDER OPTION... of the suites
  local name=$1 most=$2
  shift 2
  mapfile -t words < <(suites "$@")
  run "$name" "$most" "$1" "${words[@]}"
}
network() { # NAME SECONDS FOLDER OPTION... of `revbench run`
  local name=$1 most=$2 into=$3
  shift 3
  mapfile -t words < <(command_into "$into" run "$@")
  run "$name" "$most" "$into" "${words[@]}"
}

# The riskiest first: what has never run anywhere.
check imports 60 python3 -c "import filelock, msgspec, psutil, pytest_benchmark, pynvml, rich, typer"
[ -f "$output/stages/imports.done" ] || end
check imports-of-tests 60 python3 -c "import hypothesis, jinja2, mpmath, PIL, scipy, torchvision"
tests contract 120 tests/test_contract.py tests/probes/test_real_nvml.py tests/devices
tests first 240 -m cuda tests/probes/test_cuda.py -k "time_and_memory or gradients or parent or determinism"
predicted=tests/probes/test_cuda.py::test_predicted_is_allocated_without_workspace
tests cuda 400 -m cuda tests --continue-on-collection-errors --deselect "$predicted"
tests cuda-predictions 400 -m cuda "$predicted"

measured depth-speed 500 "$output-depth-speed" suites/bench_iso_memory.py -k test_depth --revbench-tier=full \
  --revbench-repeats=3
for model in revbench.zoo:revbench revnet-38 revgpt-1m; do
  check "doctor-${model##*:}" 180 python3 -m revbench doctor "$model" --device cuda
done
measured couplings 300 "$output" suites/bench_couplings.py
measured time 240 "$output" suites/bench_time.py
measured memory 240 "$output" suites/bench_memory.py
measured energy 120 "$output" suites/bench_energy.py
measured drift 300 "$output" suites/bench_drift.py
network pairs 400 "$output-pairs" revnet-38 revnet-110 --strategy stored --strategy reconstructed --probe time --probe memory \
  --probe nvml --probe energy --probe drift --probe memory_history --probe leak
network imagenet 400 "$output-imagenet" revnet-104 --batch-size 64 --probe time --probe memory --probe nvml --probe flops
network imagenet-compiled 500 "$output-imagenet-compiled" revnet-104 --batch-size 64 --compile --probe time --probe memory
measured quick 500 "$output" --revbench-repeats=5
measured memory-full 500 "$output-memory" suites/bench_memory.py suites/bench_iso_memory.py \
  -k "(depth or iso_memory) and not (iso_memory and test_depth)" --revbench-tier=full
measured drift-full 500 "$output-drift" suites/bench_drift.py --revbench-tier=full
measured libraries 500 "$output-libraries" suites/bench_peers.py --revbench-tier=full --revbench-repeats=5
end
