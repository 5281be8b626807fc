#include "ops/decode/decode_attention_cuda.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <numbers>

#include "ops/decode/decode_attention_problem.hpp"
#include "ops/decode/decode_product.hpp"

namespace pararnn::ops {
namespace {

using torch::Tensor;

static_assert(kMostDecodedChannels <= 2 * kMostRotaryPairs);
constexpr const char* kAttentionFile = "decode/decode_attention_kernel.hpp";

const long long* tokens_of(const Tensor& t) {
  return reinterpret_cast<const long long*>(t.data_ptr<int64_t>());
}

}  // namespace

std::string AttentionPlan::arguments() const { return fmt::format("{}, {}", queries, lanes); }

AttentionPlan plan_decode_attention(int64_t batch, int64_t query_heads, int64_t key_heads,
                                    int64_t channels, int64_t capacity, int64_t multiprocessors) {
  const auto up = [](int64_t a, int64_t b) { return (a + b - 1) / b; };
  AttentionPlan plan{};
  plan.lanes = static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(up(channels, 8))));
  const int64_t sharing = query_heads / key_heads;
  plan.queries = std::min<int64_t>(sharing, kMostSharingQueries);
  while (sharing % plan.queries != 0) --plan.queries;
  // Four blocks a multiprocessor have enough on its way to keep memory busy.
  const int64_t blocks = batch * query_heads / plan.queries;
  plan.splits = std::clamp<int64_t>(up(4 * multiprocessors, blocks), 1,
                                    std::min<int64_t>(kMostSplits, up(capacity, kLeastSplit)));
  return plan;
}

Tensor decode_attention_input_cuda(const DecodeInput& input, const Tensor& weight,
                                   const DecodeCache& cache, double rotary_base) {
  const int64_t batch = input.x.size(0), key_heads = cache.keys.size(2),
                channels = cache.keys.size(3);
  const int64_t heads = weight.size(0) / channels, query_heads = heads - 2 * key_heads;
  const Product product(input, weight, 2, heads);
  const Tensor queries = floats_like(weight, {batch, query_heads, channels});
  DecodeRotation end{.query_heads = static_cast<int>(query_heads),
                     .key_heads = static_cast<int>(key_heads),
                     .capacity = cache.keys.size(1),
                     .begin = tokens_of(cache.begin),
                     .read = tokens_of(cache.read),
                     .queries = queries.data_ptr<float>(),
                     .keys = cache.keys.data_ptr(),
                     .values = cache.values.data_ptr(),
                     .turns = {}};
  set_turns(end.turns, static_cast<int>(channels / 2), rotary_base);
  product.launch(kAttentionFile, "decode_attention_input", end);
  return queries;
}

Tensor decode_attention_cuda(const Tensor& queries, const DecodeCache& cache) {
  const int64_t batch = queries.size(0), heads = queries.size(1), channels = queries.size(2);
  const int64_t key_heads = cache.keys.size(2), capacity = cache.keys.size(1);
  const AttentionPlan plan = plan_decode_attention(batch, heads, key_heads, channels, capacity,
                                                   multiprocessors_of(queries));
  const Tensor next = halves_like(queries, {batch, heads * channels});
  const int64_t parts = plan.splits > 1 ? plan.splits : 0;
  const Tensor partial = floats_like(queries, {batch, heads, parts, channels});
  const Tensor largests = floats_like(queries, {batch, heads, parts});
  const Tensor sums = floats_like(queries, {batch, heads, parts});
  launch_decode(
      kernel_source(kAttentionFile, fmt::format("decode_attention<{}>", plan.arguments())), queries,
      dim3(static_cast<unsigned>(batch * heads / plan.queries), static_cast<unsigned>(plan.splits)),
      DecodeAttention{
          .query_heads = static_cast<int>(heads),
          .key_heads = static_cast<int>(key_heads),
          .channels = static_cast<int>(channels),
          .splits = static_cast<int>(plan.splits),
          .capacity = capacity,
          .scale = static_cast<float>(std::numbers::log2e / std::sqrt(double(channels))),
          .queries = queries.data_ptr<float>(),
          .keys = cache.keys.data_ptr(),
          .values = cache.values.data_ptr(),
          .begin = tokens_of(cache.begin),
          .read = reinterpret_cast<long long*>(cache.read.data_ptr<int64_t>()),
          .next = next.data_ptr(),
          .arrived = reinterpret_cast<unsigned*>(cache.arrived.data_ptr<int32_t>()),
          .partial = partial.data_ptr<float>(),
          .largests = largests.data_ptr<float>(),
          .sums = sums.data_ptr<float>()},
      kAttentionThreads);
  return next;
}

}  // namespace pararnn::ops
