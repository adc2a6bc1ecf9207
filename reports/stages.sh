# Stages of a call on a machine that is lent for minutes; sourced by the scripts beside it.
#
# Each stage has a time limit, a log and an exit code of its own, and none stops the others. What a call does not come to, the
# next call with the same folder does: stages that are done or failed are skipped, and runs go on where they were. AGAIN=1 does
# what failed again, and measures again what crashed.

# begin FOLDER SECONDS: where logs and exit codes go, and how long the whole call may take.
begin() {
  folder=$1 whole=$2
  ends=$(($(date +%s) + whole)) left=0
  mkdir -p "$folder/stages"
  [ -z "${AGAIN:-}" ] || rm -f "$folder"/stages/*.failed
}

# check NAME SECONDS COMMAND...: a stage that begins only if all of its time is left, or all of a call's. Cut off, it has failed:
# the next call would begin it anew and be cut off again.
check() { _stage check "$2" "" "$@"; }

# run NAME SECONDS FOLDER COMMAND...: a stage that can be cut off and gone on with, into a run folder. It has failed, too, if
# something that it measured crashed.
run() {
  local name=$1 most=$2 into=$3
  shift 3
  _stage run 60 "$into" "$name" "$most" "$@"
}

_stage() {
  local kind=$1 least=$2 into=$3 name=$4 most=$5 log code began there crashed=0
  shift 5
  log="$folder/stages/$name.log"
  [ "$least" -lt "$whole" ] || least=$whole
  if [ -f "$folder/stages/$name.done" ]; then
    echo "$name: done by an earlier call"
    return
  elif [ -f "$folder/stages/$name.failed" ]; then
    echo "$name: failed in an earlier call (AGAIN=1 does it again)"
    return
  fi
  began=$(date +%s)
  there=$((ends - began))
  if [ "$there" -lt "$((least - 2))" ]; then
    echo "$name: put off, ${there} s are left"
    left=1
    return
  fi
  [ "$most" -lt "$there" ] || most=$there
  [ -z "$into" ] || crashed=$(_crashed "$into")
  timeout --signal=INT --kill-after=20 "$most" "$@" >>"$log" 2>&1 && code=0 || code=$?
  printf '%s\t%s\t%s\n' "$name" "$code" "$(($(date +%s) - began))" >>"$folder/stages/exit-codes.tsv"
  [ -z "$into" ] || crashed=$(($(_crashed "$into") - crashed))
  if [ "$kind-$code" = run-124 ] || [ "$kind-$code" = run-137 ]; then
    left=1
    echo "$name: cut off after $most s"
  elif [ "$code" != 0 ]; then
    touch "$folder/stages/$name.failed"
    echo "$name: failed with exit code $code:"
    tail -n 5 "$log"
  elif [ "$crashed" -gt 0 ]; then
    touch "$folder/stages/$name.failed"
    echo "$name: $crashed of its measurements crashed; see $into/rows.jsonl"
  else
    touch "$folder/stages/$name.done"
    echo "$name: done in $(($(date +%s) - began)) s"
  fi
}

# _crashed FOLDER: how many rows of a run crashed.
_crashed() {
  if [ -f "$1/rows.jsonl" ]; then grep -c '"status": "crashed"' "$1/rows.jsonl" || true; else echo 0; fi
}

# end: exit code 75 (EX_TEMPFAIL) if another call must go on, 1 if everything was done and something failed, else 0.
end() {
  if [ "$left" != 0 ]; then
    echo "call again with the same folder to go on"
    exit 75
  fi
  local failed=("$folder"/stages/*.failed)
  [ ! -e "${failed[0]}" ] || exit 1
  exit 0
}

# suites FOLDER OPTION...: the words of a call of the benchmark suites into a run folder, or further into it.
suites() {
  local into=(--revbench-output="$1")
  if [ -f "$1/rows.jsonl" ]; then into=(--revbench-resume="$1" ${AGAIN:+--revbench-retry}); fi
  shift
  printf '%s\n' python3 -m pytest -p revbench.pytest_plugin --benchmark --revbench-device=cuda "${into[@]}" "$@"
}

# command_into FOLDER SUBCOMMAND OPTION...: likewise of `revbench`.
command_into() {
  local into=(--output "$1")
  if [ -f "$1/rows.jsonl" ]; then into=(--resume "$1" ${AGAIN:+--retry}); fi
  shift
  printf '%s\n' python3 -m revbench "$@" --device cuda "${into[@]}"
}
