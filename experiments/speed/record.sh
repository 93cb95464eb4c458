#!/usr/bin/env bash
# The measurements on record: see benchmarks/README.md.
#   MVTEC_ROOT=/data/mvtec [TEACHER=..] [WEIGHTS=..] [CATEGORY=..] [EPOCHS=..] benchmarks/record.sh FOLDER
set -euo pipefail
out=${1:?where to write: benchmarks/record.sh FOLDER}
: "${MVTEC_ROOT:?set it to where MVTec AD is}"
export MVTEC_ROOT
mkdir -p "$out"
run=(data=mvtec "data.category=${CATEGORY:-bottle}" "model/teacher=${TEACHER:-resnet18}")
if [ -n "${WEIGHTS:-}" ]; then
  run+=("model.teacher.weights=$WEIGHTS")
fi

bench() { # name, then the words of the command
  local name=$1
  shift
  anomalib-rd bench "$@" --json "$out/$name.json" | tee "$out/$name.txt"
}

bench startup startup
bench report report
bench metrics metrics --growth --plot "$out/metrics-growth.png"
bench metrics-512 metrics --maps 160 --size 512
bench infer infer "${run[@]}"
bench train train "${run[@]}" --epochs "${EPOCHS:-3}" --plot "$out/train.png"
