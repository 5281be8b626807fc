#include "ops/decode/decode_mamba2.hpp"

#include "ops/decode/decode_mamba2_cuda.hpp"

namespace pararnn::ops {

using torch::Tensor;

Mamba2Inputs decode_mamba2_input(const DecodeInput& input, const Tensor& weight, const Tensor& taps,
                                 const Tensor& bias, const Tensor& step_bias,
                                 const Tensor& before) {
  if (weight.is_cuda()) {
    return decode_mamba2_input_cuda(input, weight, taps, bias, step_bias, before);
  }
  const int64_t heads = step_bias.size(0), convolved = taps.size(1);
  const auto parts =
      product_of(input, weight)
          .split_with_sizes({weight.size(0) - convolved - heads, convolved, heads}, 1);
  const Tensor seen = torch::cat({before, parts[1].to(torch::kBFloat16).unsqueeze(1)}, 1);
  Tensor(before).copy_(seen.slice(1, 1));
  return {.gate = torch::silu(parts[0]),
          .convolved = torch::silu((seen.to(torch::kFloat) * taps).sum(1) + bias),
          .steps = torch::softplus(parts[2] + step_bias)};
}

DecodeInput decode_mamba2_state(const Mamba2Inputs& inputs, const Tensor& decay_log,
                                const Tensor& skip, const Tensor& state, const Tensor& norm_weight,
                                double epsilon) {
  if (state.is_cuda()) {
    return decode_mamba2_state_cuda(inputs, decay_log, skip, state, norm_weight, epsilon);
  }
  const int64_t batch = state.size(0), heads = state.size(1), components = state.size(3);
  const int64_t inner = inputs.gate.size(1), shared = (inputs.convolved.size(1) - inner) / 2;
  const auto parts = inputs.convolved.split_with_sizes({inner, shared, shared}, 1);
  const Tensor x = parts[0].view({batch, heads, -1});
  const auto of_heads = [&](const Tensor& t) {  // (B,H,N)
    return t.reshape({batch, -1, components}).repeat_interleave(heads * components / shared, 1);
  };
  const Tensor decay = torch::exp(-decay_log.exp() * inputs.steps).view({batch, heads, 1, 1});
  Tensor h = state;
  h.mul_(decay).add_((inputs.steps.unsqueeze(2) * x).unsqueeze(3) *
                     of_heads(parts[1]).unsqueeze(2));
  const Tensor y = torch::einsum("bhpn,bhn->bhp", {h, of_heads(parts[2])}) + skip.unsqueeze(1) * x;
  return input_of_norm(y.flatten(1) * inputs.gate, norm_weight, epsilon);
}

}  // namespace pararnn::ops
