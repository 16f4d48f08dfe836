#!/usr/bin/env bash
# Times the 36 reduced rows on a CUDA GPU, compiled and in bfloat16, each alternately with the baseline; tests before
# that no pass waits for the host and that logits agree; draws and lists the result:
#     benchmarks/gpu.sh [OPTIONS OF benchmarks/rows.py AND OF benchmark]
#     benchmarks/gpu.sh --dry-run [OPTIONS]    the same on the CPU with the small demo model, nothing of which is kept
# One row of each method comes first. Rows that are in the results already are kept, so that a run which was stopped is
# taken up again where it was. Environment variables:
#     ONLY="ade_ours_h10 city_act_q16"   these rows alone
#     GPU_TESTS=no                       without the tests
#     RESULTS=FOLDER, DOCS=FOLDER        write there, not to benchmarks/results and docs
#     PYTHON=FILE                        the interpreter
# Reducers are compiled by PyTorch 2.14 and newer alone: with an older one use --compile false.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=${PYTHON:-python}
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH}  # this checkout's package, also where none or another is installed
common=(--precision bf16-true --whole_images 0)

if [ "${1:-}" = --dry-run ]; then
  shift
  temporary=$(mktemp -d)
  trap 'rm -rf "$temporary"' EXIT
  name=cpu results=$temporary/results docs=$temporary/docs
  first=(demo_ours)
  options=(--demo --device cpu "${common[@]}" --compile false --batch_size 2 --iterations 5 --seconds 5)
else
  name=$("$python" -c '
import sys, torch
if not torch.cuda.is_available():
    sys.exit("error: PyTorch sees no CUDA device here; benchmarks/gpu.sh --dry-run tries the same on the CPU")
print(torch.cuda.get_device_name(0).replace(" ", "_").replace("/", "_"))')
  results=${RESULTS:-benchmarks/results} docs=${DOCS:-docs}
  first=(ade_ours_h10 ade_evit_k80 ade_tome_r30 ade_act_q32)
  options=(--device cuda "${common[@]}" --compile true --batch_size auto)
  if [ "${GPU_TESTS:-yes}" != no ]; then
    # Only files with such tests: others import packages that a machine for measuring need not have.
    mapfile -t files < <(grep -l 'pytest\.mark\.gpu' tests/test_*.py)
    "$python" -m pytest -m gpu "${files[@]}"
  fi
  if [ ! -e "$results/$name.json" ] && [ -e "benchmarks/results/$name.json" ]; then  # RESULTS is another folder
    mkdir -p "$results"
    cp "benchmarks/results/$name.json" "$results/$name.json"
  fi
fi
results_file=$results/$name.json

status=0  # a row that cannot be measured does not keep the others from being shown
measure() {
  "$python" benchmarks/rows.py --output "$results_file" "${options[@]}" "$@" || status=$?
}
if [ -n "${ONLY:-}" ]; then
  read -ra only <<< "$ONLY"
  measure --only "${only[@]}" "$@"
else
  measure --only "${first[@]}" "$@"
  measure "$@"
fi
if [ -e "$results_file" ]; then
  "$python" benchmarks/picture.py "$results_file" --docs "$docs" || status=$?
  cat "$docs/tables/efficiency_$name.md"
fi
exit "$status"
