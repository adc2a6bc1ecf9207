#!/usr/bin/env bash
# One full call on a GPU machine where nothing can be installed: the tests that need a GPU, then the quick tier with
# five launches. The run folder goes to the first argument; render its PDF elsewhere with `revbench report`.
set -euo pipefail
cd "$(dirname "$0")/.."
output=${1:?give the folder for the run}
python3 -m pytest -p revbench.pytest_plugin -m cuda tests
python3 -m pytest -p revbench.pytest_plugin --benchmark --revbench-device=cuda --revbench-repeats=5 \
  --revbench-output="$output"
