#!/usr/bin/env bash
# Times the 36 reduced rows on the CPU, in float32 and in bfloat16, at batch 1, each in turns with the unreduced model:
#     benchmarks/cpu.sh [FOLDER_OF_PHOTOGRAPHS_IN_ADE20K_LAYOUT]
# About an hour on two cores. Rows that are in the results already are kept: move the files away to measure anew.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
images=(${1:+--images "$1"})
for precision in 32-true bf16-true; do
  "${PYTHON:-python}" benchmarks/rows.py --output "benchmarks/results/cpu_$precision.json" "${images[@]}" \
    --device cpu --precision "$precision" --batch_size 1 --iterations 5 --warmup 1 --whole_images 0
done
