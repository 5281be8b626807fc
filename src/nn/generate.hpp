// Text from a model, token by token. The prompt is read in one parallel pass; then each token is
// drawn from the model's distribution and fed back through its state, at a cost that does not grow
// with the text.
#pragma once

#include <cstdint>
#include <functional>
#include <random>
#include <span>

#include "nn/language_model.hpp"

namespace pararnn::nn {

/// How a token is drawn.
struct SamplingOptions {
  double temperature = 1;  // logits are divided by it; 0: the likeliest token, always
  double top_p = 1;        // only the likeliest tokens that together have this probability; 1: all
  uint64_t seed = 0;
};

/// Draws tokens; the same logits and seed give the same tokens on every machine.
class Sampler {
 public:
  /// Throws Error on a temperature below 0 or a top_p outside (0,1].
  explicit Sampler(const SamplingOptions& options);

  /// One token from logits (V). Throws Error if one of them is not a number.
  int64_t operator()(const torch::Tensor& logits);

 private:
  SamplingOptions options_;
  std::mt19937_64 random_;
};

/// Reads `prompt`, at least one token, then draws up to `count` tokens and hands each to
/// `on_token`, until it returns false.
void generate(LanguageModel& model, std::span<const int32_t> prompt, int64_t count,
              const SamplingOptions& options, const std::function<bool(int32_t)>& on_token);

}  // namespace pararnn::nn
