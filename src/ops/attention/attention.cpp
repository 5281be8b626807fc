#include "ops/attention/attention.hpp"

#include <ATen/ops/_flash_attention_forward.h>
#include <ATen/ops/scaled_dot_product_attention.h>
#include <ATen/record_function.h>

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
  return at::scaled_dot_product_attention(
             by_head(queries), by_head(keys), by_head(values),
             mask.defined() ? std::make_optional(mask.unsqueeze(1)) : std::nullopt,
             /*dropout_p=*/0, /*is_causal=*/!mask.defined(), /*scale=*/std::nullopt,
             /*enable_gqa=*/keys.size(2) != queries.size(2))
      .transpose(1, 2);
}

Tensor flash_sequences(const Tensor& queries, const Tensor& keys, const Tensor& values,
                       const Sequences& sequences) {
  return std::get<0>(at::_flash_attention_forward(
      queries, keys, values, sequences.of_queries, sequences.of_keys, sequences.longest_queries,
      sequences.longest_keys, /*dropout_p=*/0, /*is_causal=*/true, /*return_debug_mask=*/false));
}

/// What flash attention takes, without copies that make it so.
bool has_flash(const Tensor& queries) {
  constexpr int64_t kMultiple = 8, kMost = 256;
  return queries.is_cuda() &&
         (queries.scalar_type() == torch::kBFloat16 || queries.scalar_type() == torch::kHalf) &&
         queries.size(3) % kMultiple == 0 && queries.size(3) <= kMost && queries.numel() > 0;
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

}  // namespace

Tensor masked_attention(const Tensor& queries, const Tensor& keys, const Tensor& values,
                        const Tensor& before) {
  const int64_t earlier = keys.size(1) - queries.size(1);
  const Tensor own = steps_from(earlier, keys.size(1), queries).unsqueeze(1);  // (T,1)
  const Tensor key = steps_from(0, keys.size(1), queries);                     // (S)
  const Tensor mask = (key <= own).logical_and(key >= own - before.unsqueeze(2));
  return attend(queries, keys, values, mask);
}

Tensor attention_in_sequences(const Tensor& queries, const Tensor& keys, const Tensor& values,
                              const Tensor& before, bool documents, AttendSequences attend) {
  const int64_t batch = queries.size(0), steps = queries.size(1), all = keys.size(1);
  const int64_t earlier = all - steps, length = std::min(kAttentionBlock, steps);
  const auto in_sequences = [&] {
    return attend(queries.flatten(0, 1), keys.flatten(0, 1), values.flatten(0, 1),
                  cut_rows(before, batch, steps, all, documents))
        .view(queries.sizes());
  };
  if (!documents) return in_sequences();
  const int64_t blocks = (steps + length - 1) / length;
  const auto in_blocks = [&](const Tensor& x) {
    return padded(x, blocks * length).unflatten(1, {blocks, length}).flatten(0, 1);
  };
  const Tensor reach = before.expand({batch, steps});
  const Tensor within =
      masked_attention(in_blocks(queries), in_blocks(keys.narrow(1, earlier, steps)),
                       in_blocks(values.narrow(1, earlier, steps)), in_blocks(reach))
          .unflatten(0, {batch, blocks})
          .flatten(1, 2)
          .narrow(1, 0, steps);
  if (blocks == 1 && earlier == 0) return within;
  const Tensor began_in_block = reach <= steps_from(0, steps, queries).remainder(length);
  return torch::where(began_in_block.unsqueeze(2).unsqueeze(3), within, in_sequences());
}

Tensor causal_attention(const Tensor& queries, const Tensor& keys, const Tensor& values,
                        const Tensor& before, bool documents) {
  RECORD_FUNCTION("pararnn::attention", c10::ArrayRef<const c10::IValue>{});
  if (!before.defined()) {
    require(keys.size(1) == queries.size(1),
            "attention to earlier keys needs to be told how many of them");
    return attend(queries, keys, values, {});
  }
  // Flash attention leaves the gradients of keys that no query looks at unwritten.
  const bool unseen = keys.size(1) > queries.size(1) &&
                      (keys.requires_grad() || values.requires_grad()) &&
                      torch::GradMode::is_enabled();
  if (!has_flash(queries) || unseen) return masked_attention(queries, keys, values, before);
  return attention_in_sequences(queries, keys, values, before, documents, &flash_sequences);
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
