#include "nn/sampler.hpp"

#include <cmath>

#include "base/error.hpp"

namespace pararnn::nn {

Sampler::Sampler(const SamplingOptions& options, int64_t rows, torch::Device device)
    : options_(options) {
  require(options.temperature >= 0 && std::isfinite(options.temperature),
          "temperature must be 0 or a positive number, not {}", options.temperature);
  require(options.top_p > 0 && options.top_p <= 1, "top_p must be above 0 and at most 1, not {}",
          options.top_p);
  std::vector<int64_t> seeds;
  for (int64_t row = 0; row < rows; ++row) {
    seeds.push_back(static_cast<int64_t>(options.seed + uint64_t(row)));
  }
  const auto on_device = torch::dtype(torch::kLong).device(device);
  // The device writes to the host's memory, which is then read without a copy.
  state_ = {.seeds = torch::tensor(seeds).to(device),
            .positions = torch::zeros({rows}, on_device),
            .tokens = torch::zeros({rows}, on_device),
            .drawn = torch::zeros({kRemembered, rows},
                                  torch::dtype(torch::kInt).pinned_memory(device.is_cuda()))};
}

std::vector<int32_t> Sampler::drawn(int64_t draw) const {
  const int64_t rows = state_.drawn.size(1);
  const int32_t* tokens = state_.drawn.const_data_ptr<int32_t>() + draw % kRemembered * rows;
  std::vector<int32_t> result(tokens, tokens + rows);
  for (const int32_t token : result) {
    require(token >= 0,
            "the model's logits are not numbers: its weights or its state have overflowed");
  }
  return result;
}

}  // namespace pararnn::nn
