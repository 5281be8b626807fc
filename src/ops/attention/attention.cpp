#include "ops/attention/attention.hpp"

#include <ATen/ops/_flash_attention_forward.h>
#include <ATen/ops/scaled_dot_product_attention.h>
#include <ATen/record_function.h>

#include <algorithm>
#include <limits>

#include "base/error.hpp"

namespace pararnn::ops {
namespace {

using torch::Tensor;

/// softmax(q kᵀ/√n) v by LibTorch, which chooses how. On a CPU its fast form takes as many heads of
/// keys as of queries.
Tensor attend(const Tensor& queries, Tensor keys, Tensor values, const Tensor& mask) {
  const int64_t group = queries.size(2) / std::max<int64_t>(keys.size(2), 1);
  if (group > 1 && queries.is_cpu()) {
    keys = keys.repeat_interleave(group, 2);
    values = values.repeat_interleave(group, 2);
  }
  const auto by_head = [](const Tensor& x) { return x.transpose(1, 2); };
  return at::scaled_dot_product_attention(by_head(queries), by_head(keys), by_head(values),
                                          mask.defined() ? std::make_optional(mask) : std::nullopt,
                                          /*dropout_p=*/0, /*is_causal=*/!mask.defined(),
                                          /*scale=*/std::nullopt,
                                          /*enable_gqa=*/keys.size(2) != queries.size(2))
      .transpose(1, 2);
}

Tensor flash_sequences(const Tensor& queries, const Tensor& keys, const Tensor& values,
                       const Sequences& sequences) {
  return std::get<0>(at::_flash_attention_forward(
      queries, keys, values, sequences.of_queries, sequences.of_keys, sequences.longest_queries,
      sequences.longest_keys, /*dropout_p=*/0, /*is_causal=*/true, /*return_debug_mask=*/false));
}

Tensor steps_from(int64_t first, int64_t end, const Tensor& on) {
  return torch::arange(first, end, torch::dtype(torch::kLong).device(on.device()));
}

/// x (B,T,...) with zeros behind it up to `steps` steps.
Tensor padded(const Tensor& x, int64_t steps) {
  if (x.size(1) == steps) return x;
  std::vector<int64_t> amounts(2 * size_t(x.dim() - 1), 0);
  amounts.back() = steps - x.size(1);
  return torch::constant_pad_nd(x, amounts);
}

/// So many of the steps of x (B,T,...) from `first` on. All of them are x itself: the gradient of a
/// part is copied into zeros.
Tensor steps_of(const Tensor& x, int64_t first, int64_t steps) {
  return x.size(1) == steps ? x : x.narrow(1, first, steps);
}

/// The sequences of which each ends before the first step of its row, or before the last document
/// of a block but the last; and the keys before those that a row looks at, where there are any.
Sequences cut_rows(const Tensor& before, int64_t batch, int64_t steps, int64_t keys,
                   bool documents) {
  const int64_t earlier = keys - steps;
  std::vector<Tensor> begins;  // of keys in a row, (B, ...)
  if (earlier > 0) begins.push_back(torch::zeros_like(before.narrow(1, 0, 1)));
  begins.push_back(earlier - before.narrow(1, 0, 1));
  if (documents && steps > kAttentionBlock) {
    const Tensor ends =
        steps_from(earlier, keys, before).slice(0, kAttentionBlock - 1, steps - 1, kAttentionBlock);
    begins.push_back(ends - before.slice(1, kAttentionBlock - 1, steps - 1, kAttentionBlock));
  }
  const Tensor of_row = torch::cat(begins, 1).expand({batch, -1});
  const Tensor rows = steps_from(0, batch, before).unsqueeze(1);
  const auto joined = [&](const Tensor& in_row, int64_t length) {
    return torch::constant_pad_nd((in_row + rows * length).flatten(), {0, 1}, batch * length)
        .to(torch::kInt);
  };
  return {joined((of_row - earlier).clamp_min(0), steps), joined(of_row, keys), steps, keys};
}

/// x (B,T,...) cut into blocks of so many steps, with zeros behind the last: (B·L,length,...).
Tensor in_blocks(const Tensor& x, int64_t length) {
  const int64_t blocks = (x.size(1) + length - 1) / length;
  return padded(x, blocks * length).unflatten(1, {blocks, length}).flatten(0, 1);
}

int64_t block_of(int64_t steps) { return std::min(kAttentionBlock, steps); }

}  // namespace

// For what flash attention takes without copies that make it so.
bool has_mask_in_parts(const torch::TensorOptions& queries, int64_t channels) {
  constexpr int64_t kMultiple = 8, kMost = 256;
  const auto dtype = c10::typeMetaToScalarType(queries.dtype());
  return queries.device().is_cuda() && (dtype == torch::kBFloat16 || dtype == torch::kHalf) &&
         channels % kMultiple == 0 && channels <= kMost;
}

AttentionMask whole_mask(const Tensor& before, int64_t keys, torch::ScalarType dtype) {
  const Tensor own = steps_from(keys - before.size(1), keys, before).unsqueeze(1);  // (T,1)
  const Tensor key = steps_from(0, keys, before);                                   // (S)
  const Tensor looked_at = (key >= own - before.unsqueeze(2)).logical_and_(key <= own);
  return {.whole = torch::full(looked_at.sizes(), -std::numeric_limits<double>::infinity(),
                               before.options().dtype(dtype))
                       .masked_fill_(looked_at, 0)
                       .unsqueeze(1)};
}

AttentionMask mask_in_parts(const Tensor& before, int64_t batch, int64_t keys, bool documents,
                            torch::ScalarType dtype) {
  const int64_t steps = before.size(1), length = block_of(steps);
  AttentionMask mask;
  if (documents) {
    const Tensor of_rows = before.expand({batch, steps});
    mask.of_blocks = whole_mask(in_blocks(of_rows, length), length, dtype).whole;
    if (steps == length && keys == steps) return mask;
    mask.within =
        (of_rows <= steps_from(0, steps, before).remainder(length)).unsqueeze(2).unsqueeze(3);
  }
  mask.sequences = cut_rows(before, batch, steps, keys, documents);
  return mask;
}

AttentionMask attention_mask(const Tensor& before, int64_t batch, int64_t keys, bool documents,
                             const torch::TensorOptions& queries, int64_t channels) {
  const auto dtype = c10::typeMetaToScalarType(queries.dtype());
  // Flash attention leaves the gradients of keys that no query looks at unwritten.
  const bool unseen = keys > before.size(1) && torch::GradMode::is_enabled();
  return has_mask_in_parts(queries, channels) && !unseen && batch * before.size(1) > 0
             ? mask_in_parts(before, batch, keys, documents, dtype)
             : whole_mask(before, keys, dtype);
}

Tensor causal_attention(const Tensor& queries, const Tensor& keys, const Tensor& values,
                        const AttentionMask& mask) {
  return causal_attention(queries, keys, values, mask, &flash_sequences);
}

Tensor causal_attention(const Tensor& queries, const Tensor& keys, const Tensor& values,
                        const AttentionMask& mask, AttendSequences attend_sequences) {
  RECORD_FUNCTION("pararnn::attention", c10::ArrayRef<const c10::IValue>{});
  const int64_t steps = queries.size(1), earlier = keys.size(1) - steps;
  Tensor in_sequences, in_block;
  if (mask.sequences) {
    in_sequences = attend_sequences(queries.flatten(0, 1), keys.flatten(0, 1), values.flatten(0, 1),
                                    *mask.sequences)
                       .view(queries.sizes());
  }
  if (mask.of_blocks.defined()) {
    const int64_t length = block_of(steps);
    in_block = attend(in_blocks(queries, length), in_blocks(steps_of(keys, earlier, steps), length),
                      in_blocks(steps_of(values, earlier, steps), length), mask.of_blocks)
                   .unflatten(0, {queries.size(0), -1})
                   .flatten(1, 2);
    in_block = steps_of(in_block, 0, steps);
  }
  if (in_block.defined() && in_sequences.defined())
    return torch::where(mask.within, in_block, in_sequences);
  if (in_block.defined()) return in_block;
  if (in_sequences.defined()) return in_sequences;
  require(mask.whole.defined() || earlier == 0,
          "attention to earlier keys needs a mask: there are {} steps of queries and {} of keys",
          steps, keys.size(1));
  return attend(queries, keys, values, mask.whole);
}

Tensor attention_step(const Tensor& queries, const Tensor& keys, const Tensor& values,
                      const Tensor& first, const Tensor& last) {
  RECORD_FUNCTION("pararnn::attention", c10::ArrayRef<const c10::IValue>{});
  const torch::NoGradGuard no_grad;
  const Tensor key = steps_from(0, keys.size(1), queries);
  const Tensor mask =
      (key <= last.unsqueeze(1)).logical_and(key >= first.unsqueeze(1)).unsqueeze(1);  // (B,1,S)
  // The heads that share keys are queries beside each other, under one mask, so keys are not
  // repeated.
  const int64_t shared = keys.size(2);
  const Tensor grouped = queries.view({queries.size(0), shared, -1, queries.size(3)});
  return at::scaled_dot_product_attention(grouped, keys.transpose(1, 2), values.transpose(1, 2),
                                          mask.unsqueeze(1).expand({-1, -1, grouped.size(2), -1}))
      .reshape(queries.sizes());
}

}  // namespace pararnn::ops
