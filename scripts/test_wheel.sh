#!/bin/sh
# The wheel of build/wheel in fresh virtual environments, one with the oldest torch that it serves and one with the newest:
# installs it there, and runs the tests of the Python package. TORCH="torch==2.12.*" names other versions.
set -eu
cd "$(dirname "$0")/.."
wheel=$(echo "$PWD"/build/wheel/*.whl)
for torch in ${TORCH:-torch==2.11.* torch}; do
  environment=$PWD/build/test-wheel
  rm -rf "$environment"
  .venv/bin/python -m venv "$environment"
  echo "test-wheel: installing $torch and the wheel: 5 GB on disk"
  "$environment"/bin/python -m pip install --disable-pip-version-check -q "$torch" numpy pytest "$wheel"
  export PATH="$environment/bin:$PATH" OMP_WAIT_POLICY=passive \
    PARARNN_CACHE_DIR="$environment/pararnn" TORCHINDUCTOR_CACHE_DIR="$environment/inductor"
  (cd build && python -c '
import torch, pararnn_cpp
print("test-wheel: torch", torch.__version__, "and", pararnn_cpp.__file__)' &&
    python -m pytest -q "$OLDPWD/python/tests")
done
rm -rf "$environment"
