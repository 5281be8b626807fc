#include "ops/decode/decode_attention.hpp"

#include <cmath>
#include <limits>

#include "ops/decode/decode_attention_cuda.hpp"
#include "ops/rotary/rotary.hpp"

namespace pararnn::ops {

using torch::Tensor;

void DecodeCache::make_counters(int64_t query_heads) {
  arrived = torch::zeros({keys.size(0), query_heads + 1}, keys.options().dtype(torch::kInt));
}

Tensor decode_attention_input(const DecodeInput& input, const Tensor& weight,
                              const DecodeCache& cache, double rotary_base) {
  if (weight.is_cuda()) return decode_attention_input_cuda(input, weight, cache, rotary_base);
  const int64_t batch = input.x.size(0), key_heads = cache.keys.size(2);
  const Tensor heads = product_of(input, weight).view({batch, 1, -1, cache.keys.size(3)});
  const int64_t query_heads = heads.size(2) - 2 * key_heads;
  const auto parts = heads.split_with_sizes({query_heads, key_heads, key_heads}, 2);
  const Tensor position = (cache.read - cache.begin).unsqueeze(1);
  const auto [queries, keys] = rotary_definition(parts[0], parts[1], position, rotary_base);
  for (int64_t row = 0; row < batch; ++row) {
    const int64_t at = cache.read[row].item<int64_t>();
    if (at >= cache.keys.size(1)) continue;
    cache.keys[row][at].copy_(keys[row][0]);
    cache.values[row][at].copy_(parts[2][row][0]);
  }
  return queries.squeeze(1);
}

Tensor decode_attention(const Tensor& queries, const DecodeCache& cache) {
  if (queries.is_cuda()) return decode_attention_cuda(queries, cache);
  const int64_t batch = queries.size(0), shared = queries.size(1) / cache.keys.size(2);
  std::vector<Tensor> rows;
  for (int64_t row = 0; row < batch; ++row) {
    const int64_t begin = cache.begin[row].item<int64_t>(), read = cache.read[row].item<int64_t>();
    if (read >= cache.keys.size(1)) {
      rows.push_back(torch::full_like(queries[row], std::numeric_limits<double>::quiet_NaN()));
      continue;
    }
    const auto seen = [&](const Tensor& t) {
      return t[row].slice(0, begin, read + 1).to(torch::kFloat).repeat_interleave(shared, 1);
    };
    const Tensor scores = torch::einsum("hn,thn->ht", {queries[row], seen(cache.keys)}) /
                          std::sqrt(double(queries.size(2)));
    rows.push_back(torch::einsum("ht,thn->hn", {scores.softmax(1), seen(cache.values)}));
  }
  Tensor(cache.read).add_(1);
  return torch::stack(rows).flatten(1).to(torch::kBFloat16);
}

}  // namespace pararnn::ops
