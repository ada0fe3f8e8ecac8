#!/usr/bin/env bash
# What only a GPU shows, in under 8 minutes: tests/test_cuda.py, the benchmarks, and a short open training.
# Logs, JSON and a summary go into one folder: scripts/gpu_check.sh [FOLDER] (output/gpu_check).
set -uo pipefail
cd "$(dirname "$0")/.."
out=$(realpath -m "${1:-output/gpu_check}")
python=${PYTHON:-.venv/bin/python}
[ -x "$python" ] || python=python
mkdir -p "$out"
rm -f "$out"/*.log "$out"/summary.txt
failed=0

step() { # name, seconds, command...
    local name=$1 limit=$2
    shift 2
    timeout "$limit" "$@" >"$out/$name.log" 2>&1
    local status=$?
    [ $status -eq 0 ] || failed=1
    echo "$name: exit status $status (log: $name.log)" | tee -a "$out/summary.txt"
}

"$python" -c 'import sys, torch
if not torch.cuda.is_available():
    sys.exit("no CUDA device: this check needs one")
print("GPU:", torch.cuda.get_device_name(), "| torch", torch.__version__, "| CUDA", torch.version.cuda)' \
    | tee "$out/summary.txt"
[ "${PIPESTATUS[0]}" -eq 0 ] || exit 2

step tests 150 "$python" -m pytest -q tests/test_cuda.py
step benchmarks 150 "$python" -m benchmarks.run --device cuda --quick --no-scaling \
    --groups prediction training --output "$out"
step databases 60 "$python" scripts/make_open_db.py --frames 2000 --out "$out/databases"
step training 90 "$python" train.py --cfg configs/open.yaml --device cuda --opts \
    OUTPUT_DIR "$out/runs" PATHS.PREPROCESSED "$out/databases" TRAIN.END_EPOCH 1 TRAIN.NUM_ITERS_PER_EPOCH 100
grep -h 'samples/s' "$out/training.log" | tail -1 | tee -a "$out/summary.txt"
exit $failed
