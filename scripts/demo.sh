#!/bin/sh
# Trains a small language model on the compiler's own headers, and shows what it learned. `make demo` builds first.
set -eu
cd "$(dirname "$0")/.."
run=build/demo

say() { printf '\n%s\n' "$*"; }

say "Training on /usr/include/c++, the headers of this machine's C++ compiler (settings: examples/demo.ini)"
build/pararnn train --config examples/demo.ini --out $run --overwrite

say "On held-out files, beside models that count bytes and gzip"
build/pararnn eval --model $run --batch 64 --baselines

say "What it writes"
build/pararnn generate --model $run --prompt 'template<typename _Tp>' --tokens 500

say "The parallel engine beside the step-by-step loops, on this machine"
build/pararnn bench --cell gru --shape 1x4096x8 | awk -F ' *[|] *' '$4 == "forgetting" {
  printf "%s, %s: forward %s ms, %s as fast as the plain loop; ", $2, $3, $6, $7
  printf "forward and backward %s ms, %s as fast as a loop of LibTorch operations\n", $10, $11 }'
