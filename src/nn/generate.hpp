// Text from a model, token by token, several rows at once. Each prompt is read in one parallel
// pass; then tokens are drawn from the model's distribution and fed back through its state, at a
// cost that grows with the text in layers of attention alone. On a GPU a step, from the tokens read
// to the tokens drawn, is a CUDA graph, and the host looks at what was drawn a few steps later.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "nn/language_model.hpp"
#include "nn/sampler.hpp"

namespace pararnn::nn {

/// How long it took. The first step is apart: it reads the prompts, and the one after it may
/// compile and capture.
struct GenerationTimes {
  double prompt_seconds = 0;  // until the first tokens were there
  int64_t steps = 0;          // from the second step to the last
  int64_t tokens = 0;         // drawn in them
  double seconds = 0;         // of them
};

/// Reads the prompts, at least one token each, then draws up to `count` tokens for each and hands
/// them to on_token(row, token), those of one step in the order of the rows, until it returns false
/// for that row. Row i of the prompts gets what it would get alone with seed + i, but for rounding.
/// Prompts need not be of one length; each is read by itself, and once where those beside it are
/// the same.
GenerationTimes generate(LanguageModel& model, const std::vector<std::vector<int32_t>>& prompts,
                         int64_t count, const SamplingOptions& options,
                         const std::function<bool(int64_t, int32_t)>& on_token);

/// The same for one prompt.
GenerationTimes generate(LanguageModel& model, std::span<const int32_t> prompt, int64_t count,
                         const SamplingOptions& options,
                         const std::function<bool(int32_t)>& on_token);

}  // namespace pararnn::nn
