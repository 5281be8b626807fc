#include "nn/generate.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "base/error.hpp"

namespace pararnn::nn {

Sampler::Sampler(const SamplingOptions& options) : options_(options), random_(options.seed) {
  require(options.temperature >= 0 && std::isfinite(options.temperature),
          "the temperature must be 0 or a positive number, not {}", options.temperature);
  require(options.top_p > 0 && options.top_p <= 1, "top-p must be above 0 and at most 1, not {}",
          options.top_p);
}

int64_t Sampler::operator()(const torch::Tensor& logits) {
  const torch::Tensor values = logits.to(torch::kCPU, torch::kDouble).contiguous();
  const std::span<const double> scores(values.data_ptr<double>(),
                                       static_cast<size_t>(values.numel()));
  require(
      std::none_of(scores.begin(), scores.end(), [](double score) { return std::isnan(score); }),
      "the model's logits are not numbers: its weights or its state have overflowed");
  const auto best = std::max_element(scores.begin(), scores.end());
  if (options_.temperature == 0) return best - scores.begin();

  // Tokens from the likeliest, with their weights relative to it.
  std::vector<int64_t> order(scores.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](int64_t a, int64_t b) { return scores[a] > scores[b]; });
  std::vector<double> weights(scores.size());
  for (size_t i = 0; i < order.size(); ++i) {
    weights[i] = std::exp((scores[order[i]] - *best) / options_.temperature);
  }
  // The fewest of them that reach top_p of the whole.
  const double wanted = options_.top_p * std::accumulate(weights.begin(), weights.end(), 0.0);
  size_t kept = 0;
  double total = 0;
  while (kept < weights.size() && (kept == 0 || total < wanted)) total += weights[kept++];

  double position = static_cast<double>(random_() >> 11) * 0x1p-53 * total;
  for (size_t i = 0; i < kept; ++i) {
    position -= weights[i];
    if (position < 0) return order[i];
  }
  return order[kept - 1];
}

void generate(LanguageModel& model, std::span<const int32_t> prompt, int64_t count,
              const SamplingOptions& options, const std::function<bool(int32_t)>& on_token) {
  require(!prompt.empty(),
          "the prompt is empty: give at least one token, such as the end of a document");
  torch::NoGradGuard no_grad;
  Sampler sampler(options);
  const auto device = model->parameters().front().device();
  const torch::Tensor tokens =
      torch::tensor(std::vector<int64_t>(prompt.begin(), prompt.end())).to(device);
  auto [all_logits, state] = model->forward(tokens.unsqueeze(0), LanguageModelState{});
  torch::Tensor logits = all_logits.select(1, -1);
  for (int64_t i = 0; i < count; ++i) {
    const int64_t token = sampler(logits[0]);
    if (!on_token(static_cast<int32_t>(token)) || i + 1 == count) return;
    logits = model->step(torch::tensor({token}).to(device), state);
  }
}

}  // namespace pararnn::nn
