#!/usr/bin/env bash
# Checks Python and CUDA, makes .venv, installs, makes the folders, verifies.
# Run again, it changes nothing.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

usage="Usage: ./setup_environment.sh [--dev] [--plan]
  --dev    also install what tests, linters and type checks need
  --plan   say what would be done, and do nothing
PYTHON=python3.12 ./setup_environment.sh takes that interpreter (3.10 to 3.13), also in later calls
without PYTHON."

venv=.venv
chosen_python="$venv/.chosen-python" # the interpreter that PYTHON named when .venv was made
workspace=/workspace # a pod's persistent volume; utils/pipeline/startup.py puts the hub's cache there
image_cache=/runpod-volume # where RunPod's images put caches; see utils/pipeline/startup.py

say() { printf '%s\n' "$*"; }

refuse() { # what, how to fix it
  printf 'Error: %s\n  fix:   %s\n' "$1" "$2" >&2
  exit 2
}

at_least() { # VERSION MAJOR MINOR
  local major minor rest
  IFS=. read -r major minor rest <<<"${1/[!0-9.]*/}"
  ((major > $2 || (major == $2 && ${minor:-0} >= $3)))
}

# Sets python, python_version, torch_version, torch_cuda: the first interpreter that is new enough,
# but not too new. One that PYTHON named earlier comes first, so that "make demo" keeps it.
choose_python() {
  local candidate seen="" candidates=(python3 python python3.13 python3.12 python3.11 python3.10)
  [ ! -f "$chosen_python" ] || candidates=("$(cat "$chosen_python")" "${candidates[@]}")
  [ -z "${PYTHON:-}" ] || candidates=("$PYTHON")
  for candidate in "${candidates[@]}"; do
    command -v "$candidate" >/dev/null 2>&1 || continue
    read -r python_version torch_version torch_cuda python \
      < <("$candidate" setup/probe_python.py 2>/dev/null) || continue
    if at_least "$python_version" 3 10 && ! at_least "$python_version" 3 14; then return; fi
    seen+=" $candidate is $python_version;"
  done
  refuse "Python 3.10 to 3.13 is needed:${seen:- ${PYTHON:-python3} is not there or does not run;}" \
    "install one, or name it: PYTHON=/path/to/python3.12 ./setup_environment.sh"
}

remember_python() {
  [ -z "${PYTHON:-}" ] || say "$python" >"$chosen_python"
}

# Sets gpu: names and driver versions of the GPUs, or empty; driver: the driver's version, or empty
# where it cannot be read; and gpu_line, for the user.
look_for_gpu() {
  local digits='[0-9]+(\.[0-9]+)*'
  gpu="" driver="" gpu_line="none (nvidia-smi is not here)"
  command -v nvidia-smi >/dev/null 2>&1 || return 0
  if gpu=$(nvidia-smi --query-gpu=name,driver_version --format=csv,noheader 2>/dev/null) && [ -n "$gpu" ]; then
    gpu_line=$(printf '%s' "$gpu" | paste -sd ';' -)
    # All GPUs of a machine have one driver.
    [[ ${gpu_line%%;*} =~ ,\ *($digits)$ ]] && driver=${BASH_REMATCH[1]}
    return 0
  else
    gpu="" gpu_line="none (nvidia-smi is here but shows no GPU; is the driver running?)"
  fi
}

# Sets oldest_torch, the first supported version by its second number; see setup/requirements.txt.
choose_oldest_torch() {
  oldest_torch=6
  if at_least "$python_version" 3 13; then oldest_torch=8; fi
}

# Driver that a CUDA version needs, by its first number: "13.0" gives 580, "12.8" gives 525.
# Source: NVIDIA, "Minor Version Compatibility", table 1
# (docs.nvidia.com/deploy/cuda-compatibility/minor-version-compatibility.html).
driver_for_cuda() { # CUDA_VERSION
  case ${1%%.*} in
    13) echo 580 ;;
    12) echo 525 ;;
    11) echo 450 ;;
  esac
}

# Sets torch_range, torch_cuda_line: the versions of PyTorch whose build the driver can run.
# PyPI's builds of 2.6 to 2.10 are made with CUDA 12.4 to 12.8, those from 2.11 on with CUDA 13
# (requirements of the packages: nvidia-cuda-runtime-cu12 12.8 of 2.10, cuda-toolkit 13.0 of 2.11).
choose_cuda_build() {
  local needed
  torch_range="" torch_cuda_line="CUDA 13 or later"
  if [ -z "$driver" ]; then
    torch_cuda_line="the newest CUDA build, since nvidia-smi does not tell the driver's version"
  elif ! at_least "$driver" "$(driver_for_cuda 12)" 0; then
    needed=$(driver_for_cuda 12)
    refuse "Driver $driver is too old: PyTorch 2.$oldest_torch or later from PyPI needs $needed or later." \
      "install a newer driver, or choose a machine that has one"
  elif ! at_least "$driver" "$(driver_for_cuda 13)" 0; then
    torch_range="torch<2.11"
    needed=$(driver_for_cuda 13)
    torch_cuda_line="CUDA 12: driver $driver is older than $needed, which later versions need"
  fi
}

# Sets old_driver_line: empty, or that the PyTorch that is kept may not run with this driver.
# It is kept all the same: containers can bring libraries of CUDA's forward compatibility.
check_kept_build() {
  local needed
  old_driver_line=""
  needed=$(driver_for_cuda "$torch_cuda")
  [ -n "$driver" ] && [ -n "$needed" ] || return 0
  at_least "$driver" "$needed" 0 ||
    old_driver_line="CUDA $torch_cuda needs driver $needed or later; here is $driver. \
If PyTorch finds no GPU, use an image with an older CUDA."
}

# Sets cuda_libraries_line: empty, or how to leave out what a machine without a GPU does not need.
# Only PyPI's builds for Linux on x86-64 bring the libraries: 3.7 GB with PyTorch 2.13.
check_cuda_libraries() {
  cuda_libraries_line=""
  [ "$(uname -sm)" != "Linux x86_64" ] ||
    cuda_libraries_line="From PyPI it brings about 4 GB of CUDA libraries. To leave them out: set \
PIP_EXTRA_INDEX_URL to PyTorch's index of CPU builds"
}

# Sets torch: machine (the machine's own build is kept), cuda (pip takes a build for the GPU),
# pinned (no GPU).
choose_torch() {
  torch_range="" old_driver_line="" cuda_libraries_line=""
  choose_oldest_torch
  if [ "$torch_cuda" != - ] && at_least "$torch_version" 2 "$oldest_torch"; then
    torch=machine torch_line="kept: $torch_version with CUDA $torch_cuda of $python; nothing of PyTorch is downloaded"
    check_kept_build
  elif [ -n "$gpu" ]; then
    choose_cuda_build
    torch=cuda torch_line="installed: 2.$oldest_torch or later"
    torch_line+="${torch_range:+, earlier than ${torch_range#*<}}, with $torch_cuda_line"
  else
    torch=pinned torch_line="installed: the version in setup/constraints.txt, since no GPU is here"
    check_cuda_libraries
  fi
}

# Whether a variable names a cache folder that is not just the default of RunPod's images.
has_user_cache() {
  local folder
  for folder in "${HF_HOME:-}" "${HF_HUB_CACHE:-}" "${HUGGINGFACE_HUB_CACHE:-}" "${XDG_CACHE_HOME:-}"; do
    [ -n "$folder" ] || continue
    [[ $folder == "$image_cache"/* ]] || return 0
    if mountpoint -q "$image_cache" 2>/dev/null; then return 0; fi
  done
  return 1
}

hub_cache_line() {
  if has_user_cache; then
    say "as your environment sets it"
  elif [ -d "$workspace" ] && [ -w "$workspace" ]; then
    say "$workspace/.cache/huggingface (persistent)"
  else
    say "the library's default, in your home folder"
  fi
}

# What the environment depends on; a change of the first line means a new .venv, of any other an
# installation.
stamp() { # WITH_DEV
  say "$torch${torch_range:+ $torch_range} $python_version $python"
  [ "$torch" != machine ] || say "$torch_version"
  cat setup/requirements.txt setup/constraints.txt setup_environment.sh setup/probe_python.py | cksum
  [ "$1" = no ] || cksum <setup/requirements-dev.txt
}

# Whether .venv already has what is needed; one with the development tools serves without them too.
installed() {
  "$venv/bin/python" -c '' >/dev/null 2>&1 || return 1
  [ "$(cat "$venv/.stamp-dev" 2>/dev/null)" = "$(stamp yes)" ] && return
  [ "$dev" = no ] && [ "$(cat "$venv/.stamp" 2>/dev/null)" = "$(stamp no)" ]
}

usable() { # whether pip can go on in .venv as it is
  local system=false line
  [ "$torch" != machine ] || system=true
  "$venv/bin/python" -c '' >/dev/null 2>&1 || return 1
  grep -q "^version *= *$python_version" "$venv/pyvenv.cfg" || return 1
  grep -q "^include-system-site-packages *= *$system" "$venv/pyvenv.cfg" || return 1
  line=$(cat "$venv/.stamp-dev" "$venv/.stamp" 2>/dev/null | head -n 1) || true
  # Unfinished, and PyTorch for a GPU is needed: pip would keep one for the CPU that lies there.
  [ -n "$line" ] || [ "$torch" != cuda ] || return 1
  [ -z "$line" ] || [ "$line" = "$(stamp no | head -n 1)" ]
}

make_venv() {
  usable && return
  if [ -d "$venv" ] && [ ! -f "$venv/pyvenv.cfg" ] && [ -n "$(ls -A "$venv")" ]; then
    refuse "$venv is there but is no virtual environment." "move it away, then run this again"
  fi
  say "Making $venv"
  local flags=(--clear)
  [ "$torch" != machine ] || flags+=(--system-site-packages)
  "$python" -m venv "${flags[@]}" "$venv" || refuse "$python cannot make a virtual environment." \
    "install its venv module (on Debian and Ubuntu: apt-get install python3-venv), then run this again"
}

install() {
  rm -f "$venv/.stamp" "$venv/.stamp-dev"
  cp setup/requirements.txt "$venv/requirements.txt"
  cp setup/constraints.txt "$venv/constraints.txt"
  if [ "$torch" = machine ]; then
    # The pins may not suit what that build asks for, so only the build itself is pinned.
    grep -v '^torch[>=<]' setup/requirements.txt >"$venv/requirements.txt"
    say "torch==$torch_version" >"$venv/constraints.txt"
  elif [ "$torch" = cuda ]; then
    grep -v '^torch==' setup/constraints.txt >"$venv/constraints.txt"
    [ -z "$torch_range" ] || say "$torch_range" >>"$venv/constraints.txt"
  fi
  local files=(-r "$venv/requirements.txt")
  [ "$dev" = no ] || files+=(-r setup/requirements-dev.txt)
  say "Installing (a few minutes the first time)"
  "$venv/bin/python" -m pip install -qq --disable-pip-version-check "${files[@]}" -c "$venv/constraints.txt" || {
    printf 'Error: the installation failed; pip says why above.\n' >&2
    printf '  fix:   correct that (network, disk space), then run ./setup_environment.sh again; ' >&2
    printf 'it continues where it stopped\n' >&2
    exit 1
  }
}

verify() {
  local config=configs/demo.yaml
  [ -z "$gpu" ] || config=configs/config.yaml
  "$venv/bin/python" test_setup.py --config "$config"
}

dev=no plan=no
for word in "$@"; do
  case $word in
    --dev) dev=yes ;;
    --plan) plan=yes ;;
    -h | --help) say "$usage" && exit 0 ;;
    *) refuse "Unknown option: $word" "$usage" ;;
  esac
done

choose_python
look_for_gpu
choose_torch
if [ "$plan" = no ] && installed; then
  remember_python
  mkdir -p data results
  say "The environment is up to date ($venv, Python $python_version)."
  exit 0
fi
say "Python:    $python_version ($python)"
say "GPU:       $gpu_line"
say "PyTorch:   $torch_line"
[ -z "$cuda_libraries_line" ] || say "           $cuda_libraries_line"
[ -z "$old_driver_line" ] || say "Warning:   $old_driver_line"
say "Hub cache: $(hub_cache_line)"
[ "$plan" = no ] || exit 0
make_venv
remember_python
install
mkdir -p data results
verify
if [ "$dev" = yes ]; then stamp yes >"$venv/.stamp-dev"; else stamp no >"$venv/.stamp"; fi
say "Ready. Activate it with: source $venv/bin/activate"
