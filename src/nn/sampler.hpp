// How tokens are drawn from a model's logits: ops/sample, for rows that go on together.
#pragma once

#include <torch/types.h>

#include <cstdint>
#include <vector>

#include "ops/sample/sample.hpp"

namespace pararnn::nn {

/// How a token is drawn.
struct SamplingOptions {
  double temperature = 1;  // logits are divided by it; 0: the likeliest token, always
  double top_p = 1;        // only the likeliest tokens that together have this probability; 1: all
  uint64_t seed = 0;       // of the first row; those after it have the numbers after it
};

/// Draws a token for each row, without waiting for a GPU. A row's tokens depend on its seed and its
/// logits alone: not on the rows beside it and, but for rounding, not on the device.
class Sampler {
 public:
  /// Throws Error on a temperature below 0 or a top_p outside (0,1].
  explicit Sampler(const SamplingOptions& options, int64_t rows = 1,
                   torch::Device device = torch::kCPU);

  /// Logits (rows,V) on the device.
  void draw(const torch::Tensor& logits) {
    ops::sample(logits, options_.temperature, options_.top_p, state_);
  }
  /// The tokens drawn last, (rows), int64, on the device; always the same tensor.
  const torch::Tensor& tokens() const { return state_.tokens; }
  /// What was drawn as number `draw`, from 0, of each row. The device must have come so far, and
  /// not kRemembered draws further. Throws Error if the logits were not numbers.
  std::vector<int32_t> drawn(int64_t draw) const;

  static constexpr int64_t kRemembered = 16;

 private:
  SamplingOptions options_;
  ops::SampleState state_;
};

}  // namespace pararnn::nn
