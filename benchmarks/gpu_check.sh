#!/usr/bin/env bash
# Every check on a GPU, without a network, in three calls that can run separately:
#   benchmarks/gpu_check.sh quick [FOLDER] [--dry-run]     a short pipeline and the tests; 4 minutes
#   benchmarks/gpu_check.sh figures [FOLDER] [--dry-run]   whether the numbers are right; 9 minutes
#   benchmarks/gpu_check.sh speed [FOLDER] [--dry-run]     the evaluator and its peers; 9 minutes
# Packages that this Python lacks are taken from .wheels/, which collect_wheels.sh fills.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

python=${PYTHON:-}
if [ -z "$python" ]; then
    if [ -x .venv/bin/python ]; then python=.venv/bin/python; else python=$(command -v python3); fi
fi
# Installed once for all calls of this Python.
site=$PWD/.wheels/$("$python" -c 'import sys; print(sys.implementation.cache_tag)')
if [ -d "$site" ]; then export PYTHONPATH="$site${PYTHONPATH:+:$PYTHONPATH}"; fi
wheels=$("$python" benchmarks/gpu_check.py quick --missing-wheels .wheels)
if [ -n "$wheels" ]; then
    echo "$wheels" | xargs "$python" -m pip install --quiet --no-index --find-links .wheels --no-deps --target "$site"
    export PYTHONPATH="$site${PYTHONPATH:+:$PYTHONPATH}"
fi
# In place of this shell, so that a signal to end reaches it.
exec "$python" benchmarks/gpu_check.py "$@"
