#include "ops/sample/sample.hpp"

#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <span>
#include <vector>

#include "base/error.hpp"
#include "ops/cuda_kernels.hpp"
#include "ops/sample/sample_problem.hpp"

namespace pararnn::ops {
namespace {

using torch::Tensor;

/// The token that a row draws; -1 if the scores are not numbers.
int64_t draw(std::span<const double> scores, double temperature, double top_p, uint64_t start) {
  for (const double score : scores) {
    if (!(score < std::numeric_limits<double>::infinity())) return -1;
  }
  const auto best = std::max_element(scores.begin(), scores.end());
  if (!std::isfinite(*best)) return -1;
  if (temperature == 0) return best - scores.begin();

  // Tokens from the likeliest, with their weights relative to it.
  std::vector<int64_t> order(scores.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](int64_t a, int64_t b) { return scores[a] > scores[b]; });
  std::vector<double> weights(scores.size());
  for (size_t i = 0; i < order.size(); ++i) {
    weights[i] = std::exp((scores[order[i]] - *best) / temperature);
  }
  // The fewest of them that reach top_p of the whole.
  const double wanted = top_p * std::accumulate(weights.begin(), weights.end(), 0.0);
  size_t kept = 0;
  double total = 0;
  while (kept < weights.size() && (kept == 0 || total < wanted)) total += weights[kept++];

  double largest = -1;
  int64_t token = order[0];
  for (size_t i = 0; i < kept; ++i) {
    const double uniform = (random_bits(start, static_cast<int>(order[i])) + 0.5) * 0x1p-32;
    const double ratio = weights[i] / -std::log1p(-uniform);
    if (ratio > largest || (ratio == largest && order[i] < token)) {
      largest = ratio;
      token = order[i];
    }
  }
  return token;
}

}  // namespace

void sample(const Tensor& logits, double temperature, double top_p, SampleState& state) {
  if (logits.is_cuda()) {
    sample_on_cuda(logits.to(torch::kFloat).contiguous(), temperature, top_p, state);
  } else {
    sample_definition(logits, temperature, top_p, state);
  }
}

void sample_definition(const Tensor& logits, double temperature, double top_p, SampleState& state) {
  const Tensor values = logits.to(torch::kDouble).contiguous();
  const auto vocabulary = static_cast<size_t>(values.size(1));
  at::parallel_for(0, values.size(0), 1, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      int64_t& position = state.positions.data_ptr<int64_t>()[row];
      const auto seed = static_cast<uint64_t>(state.seeds.data_ptr<int64_t>()[row]);
      const int64_t token = draw({values.data_ptr<double>() + row * values.size(1), vocabulary},
                                 temperature, top_p, start_of_draw(seed, uint64_t(position)));
      state.tokens.data_ptr<int64_t>()[row] = std::max<int64_t>(token, 0);
      state.drawn.data_ptr<int32_t>()[position % state.drawn.size(0) * values.size(0) + row] =
          static_cast<int32_t>(token);
      ++position;
    }
  });
}

void sample_on_cuda(const Tensor& logits, double temperature, double top_p, SampleState& state) {
  const int64_t rows = logits.size(0), vocabulary = logits.size(1);
  const int split = has_clusters(logits) ? kSampleCluster : 1;
  const int64_t threads = int64_t(split) * kSampleThreads;
  const int64_t packs = (vocabulary + threads - 1) / threads;
  const auto numbers = [](const Tensor& t) {
    return reinterpret_cast<long long*>(t.data_ptr<int64_t>());
  };
  launch_kernel("sample/sample_kernel.hpp", fmt::format("sample_tokens<{}, {}>", packs, split),
                logits, rows * split, kSampleThreads,
                SampleProblem{.rows = rows,
                              .vocabulary = static_cast<int>(vocabulary),
                              .temperature = static_cast<float>(temperature),
                              .top_p = static_cast<float>(top_p),
                              .logits = logits.data_ptr<float>(),
                              .seeds = numbers(state.seeds),
                              .positions = numbers(state.positions),
                              .tokens = numbers(state.tokens),
                              .drawn = state.drawn.data_ptr<int32_t>(),
                              .remembered = state.drawn.size(0)},
                split);
}

}  // namespace pararnn::ops
