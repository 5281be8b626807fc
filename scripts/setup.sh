#!/bin/sh
# Puts in place what the build needs: Debian packages, and .venv with LibTorch, cmake, ninja and pytest. Uses what is there,
# says what it installs, and does nothing when nothing is missing. Arguments name more Debian packages.
set -eu
cd "$(dirname "$0")/.."
PATH=$PATH:/usr/sbin:/sbin # where apt's tools look, even when the caller's PATH leaves them out

torch=2.11.0
cmake=4.4.4
ninja=1.13.2
scikit_build_core=1.1.2
pytest=9.0.1
safetensors=0.8.0
sentencepiece=0.2.3
packages="ccache clang-format-14 libbenchmark-dev libcli11-dev libfmt-dev libgtest-dev
  libsentencepiece-dev nlohmann-json3-dev zlib1g-dev $*"

say() { echo "setup: $*"; }
fail() { echo "setup: $*" >&2; exit 1; }

# install_packages NAME...: those Debian packages of the names that are not installed.
install_packages() {
  command -v dpkg-query >/dev/null || fail "this is not Debian: install $* yourself"
  missing=
  for package in "$@"; do
    status=$(dpkg-query -W -f '${Status}' "$package" 2>/dev/null) || status=
    [ "$status" = "install ok installed" ] || missing="$missing $package"
  done
  [ -n "$missing" ] || return 0
  if [ "$(id -u)" = 0 ]; then
    as_root=env
  elif command -v sudo >/dev/null && { [ -t 0 ] || sudo -n true 2>/dev/null; }; then
    as_root="sudo env"
  else
    fail "Debian packages are missing, and installing them takes root: apt-get install$missing"
  fi
  say "installing Debian packages:$missing"
  $as_root DEBIAN_FRONTEND=noninteractive apt-get -q update >/dev/null ||
    fail "apt-get update failed: is there a network?"
  # shellcheck disable=SC2086 # a list
  $as_root DEBIAN_FRONTEND=noninteractive apt-get -q install -y --no-install-recommends $missing >/dev/null ||
    fail "apt-get could not install:$missing"
}

# torch_folder PYTHON: the folder of the package torch, if that Python has the version wanted.
torch_folder() {
  "$1" - "$torch" 2>/dev/null <<'PYTHON'
import importlib.metadata, pathlib, sys
package = importlib.metadata.distribution("torch")
if package.version.split("+")[0] != sys.argv[1]:
    sys.exit(1)
print(pathlib.Path(package.locate_file("torch")).resolve(strict=True))
PYTHON
}

# pip_install REQUIREMENT...
pip_install() {
  quiet=
  [ -t 1 ] || quiet=--quiet
  .venv/bin/python -m pip install --disable-pip-version-check --no-input $quiet "$@" ||
    fail "pip could not install $*: it needs Python 3.10 or later, 8 GB of free disk, and the network"
}

command -v g++ >/dev/null || packages="$packages g++"
command -v make >/dev/null || packages="$packages make"
venv_works() { .venv/bin/python -m pip --version >/dev/null 2>&1; }
if ! venv_works && ! python3 -c 'import ensurepip, venv' 2>/dev/null; then
  packages="$packages python3-venv"
fi
# shellcheck disable=SC2086 # a list
install_packages $packages

if ! venv_works; then
  say "making .venv with $(python3 --version)"
  python3 -m venv --clear .venv || fail "python3 -m venv failed"
fi
# torch.compile, which the tests of the Python package use, compiles against Python's headers.
headers=$(.venv/bin/python -c 'import sysconfig; print(sysconfig.get_paths()["include"])')
[ -e "$headers/Python.h" ] || install_packages python3-dev
if ! [ "$(.venv/bin/cmake --version 2>/dev/null | head -n 1)" = "cmake version $cmake" ] ||
   ! .venv/bin/ninja --version 2>/dev/null | grep -q "^$ninja\b"; then
  say "installing cmake $cmake and ninja $ninja in .venv"
  pip_install --force-reinstall "cmake==$cmake" "ninja==$ninja"
fi
if ! .venv/bin/python -c 'import numpy, pytest, safetensors, scikit_build_core, sentencepiece' 2>/dev/null; then
  say "installing what the Python package is built and tested with in .venv"
  pip_install "scikit-build-core==$scikit_build_core" "pytest==$pytest" "numpy>=2" \
    "safetensors==$safetensors" "sentencepiece==$sentencepiece"
fi
if ! folder=$(torch_folder .venv/bin/python) && ! folder=$(torch_folder python3); then
  say "installing torch $torch in .venv: 5 GB on disk, a few minutes"
  pip_install "torch==$torch"
  folder=$(torch_folder .venv/bin/python) || fail "torch $torch is installed but does not work"
fi
[ "$(readlink .venv/torch || true)" = "$folder" ] || ln -sfn "$folder" .venv/torch
