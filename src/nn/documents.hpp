// Where the documents of a batch begin, and what follows from that for all layers alike.
#pragma once

#include <torch/types.h>

#include <utility>

#include "ops/attention/attention.hpp"

namespace pararnn::nn {

struct Documents {
  Documents(torch::Tensor where = {}) : reset(std::move(where)) {
    if (reset.defined()) starts = reset.cumsum(1, torch::kInt);
  }

  torch::Tensor reset;   // (B,T), bool: a row begins anew before each step that it marks; or none
  torch::Tensor starts;  // (B,T), int32: how often it has begun anew by each step; or none

  // For mixers that look back at steps, made once for all layers by Mixer::prepare.
  torch::Tensor positions;  // (B,T) or (1,T), int64: of the steps in their documents
  torch::Tensor begin;      // (B), int64: where the last document begins in all steps so far
  ops::AttentionMask mask;  // each step looks at its document up to itself
};

}  // namespace pararnn::nn
