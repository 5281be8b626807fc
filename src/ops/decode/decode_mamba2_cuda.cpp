#include "ops/decode/decode_mamba2_cuda.hpp"

#include <algorithm>
#include <bit>

#include "ops/decode/decode_mamba2_problem.hpp"
#include "ops/decode/decode_product.hpp"

namespace pararnn::ops {
namespace {

using torch::Tensor;

constexpr const char* kMamba2File = "decode/decode_mamba2_kernel.hpp";

}  // namespace

std::string Mamba2StatePlan::arguments() const {
  return fmt::format("{}, {}, {}", lanes, packs, channels);
}

Mamba2StatePlan plan_decode_mamba2_state(int64_t batch, int64_t channels, int64_t components,
                                         int64_t multiprocessors) {
  const auto up = [](int64_t a, int64_t b) { return (a + b - 1) / b; };
  const int64_t fours = up(components, 4);
  Mamba2StatePlan plan{};
  plan.lanes = std::min<int64_t>(cuda::kWarp,
                                 static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(fours))));
  plan.packs = up(fours, plan.lanes);
  // Loads that a thread has on their way: as many as leave each multiprocessor four blocks.
  for (plan.channels = std::max<int64_t>(4 / plan.packs, 1);; plan.channels /= 2) {
    plan.blocks = up(channels, kDecodeThreads / plan.lanes * plan.channels);
    if (plan.channels == 1 || batch * plan.blocks >= 4 * multiprocessors) return plan;
  }
}

Mamba2Inputs decode_mamba2_input_cuda(const DecodeInput& input, const Tensor& weight,
                                      const Tensor& taps, const Tensor& bias,
                                      const Tensor& step_bias, const Tensor& before) {
  const int64_t batch = input.x.size(0), heads = step_bias.size(0);
  const int64_t gates = weight.size(0) - taps.size(1) - heads;
  const Mamba2Inputs inputs{.gate = floats_like(weight, {batch, gates}),
                            .convolved = floats_like(weight, {batch, taps.size(1)}),
                            .steps = floats_like(weight, {batch, heads})};
  Product(input, weight, 1)
      .launch(kMamba2File, "decode_mamba2_input",
              DecodeMamba2Input{.taps = taps_of(taps, before),
                                .bias = bias.data_ptr<float>(),
                                .step_bias = step_bias.data_ptr<float>(),
                                .gate = inputs.gate.data_ptr<float>(),
                                .convolved = inputs.convolved.data_ptr<float>(),
                                .steps = inputs.steps.data_ptr<float>(),
                                .gates = static_cast<int>(gates),
                                .heads = static_cast<int>(heads)});
  return inputs;
}

DecodeInput decode_mamba2_state_cuda(const Mamba2Inputs& inputs, const Tensor& decay_log,
                                     const Tensor& skip, const Tensor& state,
                                     const Tensor& norm_weight, double epsilon) {
  const int64_t batch = state.size(0), channels = inputs.gate.size(1), components = state.size(3);
  const Mamba2StatePlan plan =
      plan_decode_mamba2_state(batch, channels, components, multiprocessors_of(state));
  const Tensor next = halves_like(state, {batch, channels});
  const Tensor squares = floats_like(state, {batch, plan.blocks});
  launch_decode(
      kernel_source(kMamba2File, fmt::format("decode_mamba2_state<{}>", plan.arguments())), state,
      dim3(static_cast<unsigned>(batch * plan.blocks)),
      DecodeMamba2State{
          .blocks = static_cast<int>(plan.blocks),
          .channels = static_cast<int>(channels),
          .heads = static_cast<int>(state.size(1)),
          .groups = static_cast<int>((inputs.convolved.size(1) - channels) / (2 * components)),
          .components = static_cast<int>(components),
          .gate = inputs.gate.data_ptr<float>(),
          .convolved = inputs.convolved.data_ptr<float>(),
          .steps = inputs.steps.data_ptr<float>(),
          .decay_log = decay_log.data_ptr<float>(),
          .skip = skip.data_ptr<float>(),
          .norm_weight = norm_weight.data_ptr<float>(),
          .state = state.data_ptr<float>(),
          .next = next.data_ptr(),
          .squares = squares_to(squares)});
  return {next, squares, epsilon};
}

}  // namespace pararnn::ops
