#!/usr/bin/env bash
# Times published rows (Liang et al. 2022) on the CPU at batch 1, each alternately with the baseline:
#     benchmarks/cpu.sh            six of ADE20K's rows in float32, 5 pairs each, to runs/cpu_32-true.json: 7 to 8 minutes
#                                  on two cores
#     benchmarks/cpu.sh --all [FOLDER_OF_PHOTOGRAPHS_IN_ADE20K_LAYOUT]
#                                  all 36 rows in float32 and bfloat16, to benchmarks/results: about an hour
# Rows that are in the results already are kept: move the files away to measure again. PYTHON=FILE names the interpreter.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH}
common=(--device cpu --batch_size 1 --iterations 5 --warmup 1 --whole_images 0)
rows() { "${PYTHON:-python}" benchmarks/rows.py "$@" "${common[@]}"; }

if [ "${1:-}" = --all ]; then
  images=(${2:+--images "$2"})
  for precision in 32-true bf16-true; do
    rows --output "benchmarks/results/cpu_$precision.json" "${images[@]}" --precision "$precision"
  done
else
  rows --output runs/cpu_32-true.json --precision 32-true \
    --only ade_ours_h10 ade_ours_h8 ade_evit_k80 ade_evit_k50 ade_tome_r30 ade_tome_r50
fi
