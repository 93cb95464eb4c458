#!/usr/bin/env bash
# Repeats the measurements of README.md and writes figures and plots to FOLDER.
#   MVTEC_ROOT=/data/mvtec [TEACHER=..] [WEIGHTS=..] [CATEGORY=..] [EPOCHS=..] experiments/speed/record.sh FOLDER
set -euo pipefail
mkdir -p "${1:?usage: experiments/speed/record.sh FOLDER}"
out=$(realpath "$1")
: "${MVTEC_ROOT:?set it to the folder of MVTec AD}"
MVTEC_ROOT=$(realpath "$MVTEC_ROOT")
export MVTEC_ROOT
WEIGHTS=${WEIGHTS:+$(realpath "$WEIGHTS")}
cd "$(dirname "$0")/../.."
run=(data=mvtec "data.category=${CATEGORY:-bottle}" "model/teacher=${TEACHER:-resnet18}")
if [ -n "$WEIGHTS" ]; then
  run+=("model.teacher.weights=$WEIGHTS")
fi

bench() { # name of the output, then the arguments of the bench
  local name=$1
  shift
  .venv/bin/python -m experiments.speed.bench "$@" --json "$out/$name.json" | tee "$out/$name.txt"
}

bench startup startup
bench report report
bench metrics metrics --growth --plot "$out/metrics-growth.png"
bench metrics-512 metrics --maps 160 --size 512
bench infer infer "${run[@]}"
bench train train "${run[@]}" --epochs "${EPOCHS:-3}" --plot "$out/train.png"
