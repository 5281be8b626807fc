// Steps of decode.hpp by the kernel of decode_kernel.hpp.
#pragma once

#include "jit/source.hpp"
#include "ops/decode/decode.hpp"
#include "ops/decode/decode_problem.hpp"

namespace pararnn::ops {

DecodeStep make_decode_step_cuda(const DecodedModel& model, int64_t batch);

/// A layer as the kernel takes it.
DecodeLayer decode_layer_of(const DecodedLayer& layer);

/// How a model is cut on a device whose blocks have so much shared memory, with clusters or
/// without.
DecodePlan plan_decode(int64_t width, int projected_inputs, int64_t batch, int64_t shared_bytes,
                       bool has_clusters);
/// Slots for weights on their way, of each warp: what a block has room for.
int64_t decode_slots(const DecodePlan& plan, int projected_inputs, int64_t shared_bytes);

/// The program of decode_step.
jit::KernelSource decode_source(const CellDefinition& cell, int64_t taps, int64_t layers,
                                int64_t slots, const DecodePlan& plan);

}  // namespace pararnn::ops
