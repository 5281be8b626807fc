#include "ops/decode/decode_cuda.hpp"

#include <c10/core/DeviceGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <algorithm>
#include <cstring>
#include <memory>

#include "base/error.hpp"
#include "jit/kernel.hpp"
#include "ops/cuda_kernels.hpp"
#include "pararnn/cuda/problem.hpp"

namespace pararnn::ops {
namespace {

using torch::Tensor;

int projected_inputs(const CellDefinition& cell) {
  return cell.inputs - static_cast<int>(cell.side_inputs.size());
}

int attribute_of(cudaDeviceAttr which, const c10::Device& device) {
  int value = 0;
  jit::check_cuda(jit::cuda().cudaDeviceGetAttribute(&value, which, device.index()),
                  "ask the GPU for its properties");
  return value;
}

/// What stays from one step to the next, and what lies between two products.
struct DecodeMemory {
  DecodedModel model;
  std::vector<Tensor> tensors;
  std::vector<std::byte> problem;  // a DecodeProblem of as many layers
  const jit::Kernel* kernel = nullptr;
  jit::Launch launch;

  Tensor make(torch::IntArrayRef shape, torch::ScalarType dtype) {
    tensors.push_back(torch::zeros(shape, model.embedding.options().dtype(dtype)));
    return tensors.back();
  }
};

}  // namespace

DecodeLayer decode_layer_of(const DecodedLayer& l) {
  const auto numbers = [](const Tensor& t) { return t.data_ptr<float>(); };
  return {.weights = {l.input.data_ptr(), l.projection.data_ptr(), l.output.data_ptr(),
                      l.mlp_input.data_ptr(), l.mlp_output.data_ptr()},
          .norm = numbers(l.norm),
          .taps = numbers(l.taps),
          .before = l.before.data_ptr(),
          .bias = numbers(l.bias),
          .recurrent = numbers(l.recurrent),
          .state = numbers(l.state),
          .cell_norm = numbers(l.cell_norm),
          .scale = numbers(l.scale),
          .mlp_norm = numbers(l.mlp_norm),
          .mlp_scale = numbers(l.mlp_scale)};
}

DecodePlan plan_decode(int64_t width, int projected_inputs, int64_t batch, int64_t shared_bytes,
                       bool has_clusters) {
  constexpr int kCluster = 8, kClusters = 16;  // of the largest devices
  // One plan for all batches of one tile, so that a row of a small batch is what it is alone.
  const DecodePlan alone{.row_tiles = 1, .split = 1, .wide = 1};
  if (batch <= kDecodeRows || !has_clusters) return alone;
  DecodePlan plan{.row_tiles = batch <= 2 * kDecodeRows ? 2 : 4, .split = kCluster, .wide = 1};
  // Wider, as long as all clusters have some.
  if (width >= 2 * kClusters * plan.channels(kMixerOutput)) plan.wide = 2;
  return decode_slots(plan, projected_inputs, shared_bytes) >=
                 plan.ahead(projected_inputs) * plan.most_weights(projected_inputs)
             ? plan
             : alone;
}

int64_t decode_slots(const DecodePlan& plan, int projected_inputs, int64_t shared_bytes) {
  constexpr int64_t kMostSlots = 48;  // groups of copies on their way are counted up to 63
  const int64_t bytes = shared_bytes - plan.other_bytes(projected_inputs);
  return std::min(kMostSlots, bytes / DecodePlan::kSlotBytes);
}

jit::KernelSource decode_source(const CellDefinition& cell, int64_t taps, int64_t layers,
                                int64_t slots, const DecodePlan& plan) {
  unsigned given = 0;
  for (const int input : cell.side_inputs) given |= 1u << input;
  jit::KernelSource source =
      kernel_source("decode/decode_kernel.hpp",
                    fmt::format("decode_step<{}, {}u, {}, {}, {}, {}, {}, {}>", cell.type, given,
                                taps, layers, slots, plan.row_tiles, plan.split, plan.wide));
  source.text = fmt::format("#include \"{}\"\n", kCellHeader) + source.text;
  const std::vector<jit::Header> headers = headers_of(cell);
  source.headers.insert(source.headers.end(), headers.begin(), headers.end());
  // As the engine's kernels of cells.
  source.options = {"--prec-div=false", "--prec-sqrt=false"};
  return source;
}

DecodeStep make_decode_step_cuda(const DecodedModel& model, int64_t batch) {
  const c10::Device device = model.embedding.device();
  const c10::DeviceGuard guard(device);
  const DecodedLayer& first = model.layers.at(0);
  const int64_t width = model.embedding.size(1), heads = first.projection.size(0);
  const int64_t hidden = first.mlp_output.size(1), taps = first.taps.size(0);
  const auto layers = static_cast<int64_t>(model.layers.size());
  for (const int64_t depth : {width / heads, hidden}) {
    require(depth % kDecodeDepth == 0, "a row of weights has {} numbers, no multiple of {}", depth,
            kDecodeDepth);
  }
  const int inputs = projected_inputs(*model.cell);
  const int64_t shared_bytes = attribute_of(cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
  const DecodePlan plan = plan_decode(width, inputs, batch, shared_bytes,
                                      attribute_of(cudaDevAttrComputeCapabilityMajor, device) >= 9);
  const int64_t slots = decode_slots(plan, inputs, shared_bytes);

  const auto memory = std::make_shared<DecodeMemory>();
  memory->model = model;
  memory->kernel = &jit::get_kernel(decode_source(*model.cell, taps, layers, slots, plan));
  memory->launch = {
      .grid = {},
      .block = dim3(kDecodeThreads),
      .shared_bytes = size_t(slots * DecodePlan::kSlotBytes + plan.other_bytes(inputs)),
      .cooperative = true,  // its blocks meet
      .cluster = static_cast<unsigned>(plan.split)};
  const int64_t clusters = plan.split > 1 ? jit::clusters_at_once(*memory->kernel, memory->launch)
                                          : multiprocessors_of(model.embedding);
  memory->launch.grid = dim3(static_cast<unsigned>(clusters * plan.split));

  const auto numbers = [&](int64_t columns) {
    return memory->make({batch, columns}, torch::kFloat).data_ptr<float>();
  };
  const auto halves = [&](int64_t columns) {
    return memory->make({batch, columns}, torch::kBFloat16).data_ptr();
  };
  const auto channels_of_head = static_cast<int>(width / heads);
  const DecodeModel m{
      .batch = static_cast<int>(batch),
      .width = static_cast<int>(width),
      .heads = static_cast<int>(heads),
      .hidden = static_cast<int>(hidden),
      .vocabulary = static_cast<int>(model.output.size(0)),
      .epsilon = static_cast<float>(model.epsilon),
      .tokens = nullptr,
      .embedding = model.embedding.data_ptr(),
      .norm = model.norm.data_ptr<float>(),
      .output = model.output.data_ptr(),
      .logits = nullptr,
      .stream = numbers(width),
      .x = halves(width),
      .squares = numbers(plan.parts(kMixerOutput, static_cast<int>(width))),
      .convolved = halves(width),
      .gate = numbers(width),
      .y = halves(width),
      .y_squares = numbers(heads * plan.parts(kProjection, channels_of_head)),
      .activated = halves(hidden),
      .barriers = reinterpret_cast<unsigned*>(
          memory->make({kDecodeLayerKinds * layers + 1, kDecodeBarrierWords}, torch::kInt)
              .data_ptr<int>())};
  std::vector<DecodeLayer> table;
  for (const DecodedLayer& layer : model.layers) table.push_back(decode_layer_of(layer));
  static_assert(sizeof(DecodeProblem<3>) == sizeof(DecodeModel) + 3 * sizeof(DecodeLayer));
  memory->problem.resize(sizeof m + table.size() * sizeof(DecodeLayer));
  std::memcpy(memory->problem.data() + sizeof m, table.data(), table.size() * sizeof(DecodeLayer));

  return [memory, m, device](const Tensor& tokens, const Tensor& logits) {
    const c10::DeviceGuard on_device(device);
    const c10::impl::VirtualGuardImpl gpu(device.type());
    DecodeModel now = m;
    now.tokens = reinterpret_cast<const long long*>(tokens.data_ptr<int64_t>());
    now.logits = logits.data_ptr<float>();
    std::memcpy(memory->problem.data(), &now, sizeof now);
    jit::Launch launch = memory->launch;
    launch.stream = static_cast<cudaStream_t>(gpu.getStream(device).native_handle());
    void* const argument = memory->problem.data();
    const size_t bytes = memory->problem.size();
    jit::launch(*memory->kernel, launch, std::span<void* const>(&argument, 1),
                std::span<const size_t>(&bytes, 1));
  };
}

}  // namespace pararnn::ops
