// The precompiled header of every target over LibTorch: built once, in pararnn_ops.
#pragma once

#include <torch/torch.h>
