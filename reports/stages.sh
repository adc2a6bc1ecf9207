# Stages of a call on a machine that is lent for minutes; sourced by the scripts beside it.
#
# Each stage has a time limit, a log and an exit code of its own, and none stops the others. What a call does not come to, the
# next call with the same folder does: stages that are done are skipped, and runs go on where they were.

# begin FOLDER SECONDS: where logs and exit codes go, and how long the whole call may take.
begin() {
  folder=$1 whole=$2
  ends=$(($(date +%s) + whole)) failed=0 left=0
  mkdir -p "$folder/stages"
}

# check NAME SECONDS COMMAND...: a stage that begins only if all of its time is left, or all of a call's.
check() { _stage "$2" "$@"; }

# run NAME SECONDS COMMAND...: a stage that can be cut off and gone on with.
run() { _stage 60 "$@"; }

_stage() {
  local least=$1 name=$2 most=$3 log code began there
  shift 3
  [ "$least" -lt "$whole" ] || least=$whole
  log="$folder/stages/$name.log"
  if [ -f "$folder/stages/$name.done" ]; then
    echo "$name: done by an earlier call"
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
  timeout --signal=INT --kill-after=20 "$most" "$@" >>"$log" 2>&1 && code=0 || code=$?
  printf '%s\t%s\t%s\n' "$name" "$code" "$(($(date +%s) - began))" >>"$folder/stages/exit-codes.tsv"
  case $code in
    0) touch "$folder/stages/$name.done"; echo "$name: done in $(($(date +%s) - began)) s" ;;
    124 | 137) left=1; echo "$name: cut off after $most s" ;;
    *) failed=1; echo "$name: failed with exit code $code:"; tail -n 5 "$log" ;;
  esac
}

# end: exit code 0 if everything is done, 1 if something failed, 75 (EX_TEMPFAIL) if another call must go on.
end() {
  [ "$failed" = 0 ] || exit 1
  [ "$left" = 0 ] || { echo "call again with the same folder to go on"; exit 75; }
  exit 0
}

# suites FOLDER OPTION...: the benchmark suites into a run folder, or further into it.
suites() {
  local into=--revbench-output=$1
  [ ! -f "$1/rows.jsonl" ] || into=--revbench-resume=$1
  shift
  printf '%s\n' python3 -m pytest -p revbench.pytest_plugin --benchmark --revbench-device=cuda "$into" "$@"
}

# command FOLDER SUBCOMMAND OPTION...: `revbench` likewise.
command_into() {
  local into=(--output "$1")
  [ ! -f "$1/rows.jsonl" ] || into=(--resume "$1")
  shift
  printf '%s\n' python3 -m revbench "$@" --device cuda "${into[@]}"
}
