#!/usr/bin/env bash
# Fill .wheels/ for a GPU machine without a network (gpu_check.sh takes from it what is missing there):
#   benchmarks/collect_wheels.sh [--python 3.12] [NAME ...]
# Without names: what images with PyTorch and transformers usually lack. The versions are setup/constraints.txt's.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

version=3.12
if [ "${1:-}" = --python ]; then version=$2; shift 2; fi
names=("$@")
if [ ${#names[@]} -eq 0 ]; then
    names=(
        pydantic pydantic_core annotated-types typing-inspection typing_extensions
        jsonschema jsonschema-specifications referencing rpds-py attrs
        datasets dill multiprocess xxhash fsspec nvidia-ml-py mlcommons-loadgen
        pytest pytest-timeout pluggy iniconfig
    )
fi
python=.venv/bin/python
[ -x "$python" ] || python=$(command -v python3)
mkdir -p .wheels
"$python" -m pip download --quiet --dest .wheels --no-deps --only-binary=:all: --python-version "$version" \
    --platform manylinux_2_28_x86_64 --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 \
    --constraint setup/constraints.txt "${names[@]}"
du -sh .wheels
