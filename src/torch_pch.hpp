// The precompiled header of every target over LibTorch: built once, in pararnn_ops. Not
// torch/torch.h, whose modules and data loaders cost every file that includes it 15 s.
#pragma once

#include <torch/autograd.h>
#include <torch/cuda.h>
#include <torch/library.h>
#include <torch/nn/module.h>
#include <torch/types.h>
