#!/usr/bin/env bash
# Runs the test suite on each supported Python with chosen versions of the main libraries.
# Each has an environment of its own in .test-matrix/, which is kept while its requirements stay the
# same. Run it by hand, it takes long.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

usage="Usage: setup/test_matrix.sh [--plan] [NAME ...]
  --plan   say what would be done, and do nothing
  NAME     oldest, middle or newest; all three without a name
PYTHON_3_10=/path/to/python setup/test_matrix.sh takes that interpreter; 3_12 and 3_13 likewise.
pip and pytest take their own variables: PIP_EXTRA_INDEX_URL with PyTorch's index of CPU builds
saves several GB of CUDA libraries for each environment; PYTEST_ADDOPTS chooses tests."

folder=.test-matrix
# Name, Python, and what pip is asked for beside requirements.txt and requirements-dev.txt.
# "pinned" stands for the versions in setup/constraints.txt.
matrix="oldest 3.10 torch==2.6.0 transformers==5.0.0 datasets==4.0.0
middle 3.12 torch==2.11.0 transformers==5.17.0
newest 3.13 pinned"

say() { printf '%s\n' "$*"; }

# Prints the interpreter of a version: one that is named, on the path, or made by pyenv.
# pyenv puts commands on the path that do not run, so each is tried.
find_python() { # VERSION
  local version=$1 candidate named="PYTHON_${1/./_}"
  local check="import sys; raise SystemExit(sys.version_info[:2] != (${version/./, }))"
  local candidates=("python$version" "${PYENV_ROOT:-$HOME/.pyenv}/versions/$version".*/bin/python)
  [ -z "${!named:-}" ] || candidates=("${!named}")
  for candidate in "${candidates[@]}"; do
    command -v "$candidate" >/dev/null 2>&1 || continue
    "$candidate" -c "$check" >/dev/null 2>&1 || continue
    command -v "$candidate"
    return
  done
  return 1
}

# What an environment depends on.
describe_environment() { # PYTHON PACKAGE ...
  say "$*"
  cat setup/requirements.txt setup/requirements-dev.txt setup/constraints.txt | cksum
}

# Each step says what a failure means, because the caller's "if" switches "set -e" off.
make_environment() { # PYTHON VENV PACKAGE ...
  local python=$1 venv=$2 description
  shift 2
  description=$(describe_environment "$python" "$@")
  [ "$(cat "$venv/.stamp" 2>/dev/null)" != "$description" ] || return 0
  local wanted=("$@")
  [ "$*" != pinned ] || wanted=(-c setup/constraints.txt)
  "$python" -m venv --clear "$venv" || return
  "$venv/bin/python" -m pip install -qq --disable-pip-version-check \
    -r setup/requirements.txt -r setup/requirements-dev.txt "${wanted[@]}" || return
  say "$description" >"$venv/.stamp"
}

run_tests() { # VENV
  OMP_NUM_THREADS=1 "$1/bin/python" -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder \
    --max-worker-restart 0 -p no:cacheprovider
}

# Sets result: what became of one environment.
run_entry() { # NAME PYTHON PACKAGE ...
  local name=$1 python=$2 log="$folder/$1.log"
  shift 2
  mkdir -p "$folder"
  say "== $name: installing, then testing; the output is in $log"
  if ! make_environment "$python" "$folder/$name" "$@" >"$log" 2>&1; then
    result="FAILED: the installation; see $log"
  elif run_tests "$folder/$name" >>"$log" 2>&1; then
    result=$(tail -n 1 "$log")
  else
    result="FAILED: $(tail -n 1 "$log")"
  fi
}

plan=no chosen=" "
for word in "$@"; do
  case $word in
    --plan) plan=yes ;;
    oldest | middle | newest) chosen+="$word " ;;
    -h | --help) say "$usage" && exit 0 ;;
    *) printf 'Error: Unknown word: %s\n%s\n' "$word" "$usage" >&2 && exit 2 ;;
  esac
done

summary="" complete=yes
while read -r name version packages; do
  [ "$chosen" = " " ] || [[ $chosen == *" $name "* ]] || continue
  read -ra words <<<"$packages"
  if ! python=$(find_python "$version"); then
    complete=no
    result="MISSING: no python$version that runs; install it, or name it with PYTHON_${version/./_}"
  elif [ "$plan" = yes ]; then
    result="would run with $python"
  else
    run_entry "$name" "$python" "${words[@]}" </dev/null
    [[ $result != FAILED* ]] || complete=no
  fi
  summary+="$name: Python $version, $packages: $result"$'\n'
done <<<"$matrix"
printf '%s' "$summary"
[ "$complete" = yes ]
