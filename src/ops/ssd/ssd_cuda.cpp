#include "ops/ssd/ssd_cuda.hpp"

#include <bit>

#include "ops/cuda_kernels.hpp"
#include "ops/row_sum/row_sum.hpp"
#include "ops/ssd/ssd.hpp"
#include "ops/ssd/ssd_problem.hpp"

namespace pararnn::ops::ssd_parts {
namespace {

constexpr const char* kSsdFile = "ssd/ssd_kernel.hpp";

/// What all kernels are told of sizes; those that one does not need may be missing.
SsdExtent ssd_extent(const Decays& decays, int64_t steps, int64_t groups = 1, int64_t channels = 1,
                     int64_t state = 1) {
  return {.batch = decays.log.size(0),
          .steps = steps,
          .chunks = decays.chunks(),
          .heads = static_cast<int>(decays.heads()),
          .groups = static_cast<int>(groups),
          .chunk = static_cast<int>(decays.chunk()),
          .channels = static_cast<int>(channels),
          .state = static_cast<int>(state)};
}

SsdDecays given(const Decays& decays) {
  return {decays.step.const_data_ptr<float>(), decays.log.const_data_ptr<float>(),
          decays.segment.defined() ? decays.segment.const_data_ptr<int>() : nullptr};
}

SsdSteps given(const Tensor& x) { return {x.stride(0), x.stride(1), x.stride(2), x.data_ptr()}; }

/// Whose channels are next to each other.
Tensor packed(const Tensor& x) { return x.stride(3) == 1 ? x : x.contiguous(); }

/// Neighbouring numbers of one access of each.
int pack_of(std::initializer_list<Tensor> tensors) {
  return std::min<int>(access_width(tensors), 16 / int((*tensors.begin()).element_size()));
}

/// (B,L,H,P,N) or (B,H,P,N) as rows of states.
Tensor as_rows(const Tensor& states) { return states.flatten(-2); }

/// Not written yet; the columns in so many parts.
ScoresBackward empty_scores_backward(const Tensor& scores, const Decays& decays, int64_t parts) {
  auto sizes = decays.log.sizes().vec();
  sizes.insert(sizes.begin(), parts);
  return {torch::empty_like(scores), torch::empty_like(decays.log),
          torch::empty(sizes, decays.log.options()), torch::empty_like(decays.log)};
}

int64_t blocks_of_warps(int64_t warps) { return (warps + kSsdWarps - 1) / kSsdWarps; }

}  // namespace

bool has_ssd_kernels(const Tensor& x) { return has_kernels(x, x.scalar_type()); }

bool has_join_backward_kernel(const Tensor& x) {
  // Packs of one number would be lanes, at the most.
  constexpr uint64_t kMost = 32;
  const auto channels = static_cast<uint64_t>(x.size(3));
  const auto packs = channels / static_cast<uint64_t>(pack_of({packed(x)}));
  return has_ssd_kernels(x) && std::has_single_bit(channels) && packs <= kMost;
}

Decays decays_cuda(const Tensor& dt, const Tensor& a, const Tensor& segment, int64_t chunk) {
  const int64_t chunks = (dt.size(1) + chunk - 1) / chunk;
  Decays decays{torch::empty({dt.size(0), chunks, dt.size(2), chunk}, dt.options()), {}, segment};
  decays.log = torch::empty_like(decays.step);
  const Tensor rates = a.contiguous();
  const SsdExtent extent = ssd_extent(decays, dt.size(1));
  launch_kernel(kSsdFile, "ssd_decays", dt, blocks_of_warps(extent.matrices()), kSsdThreads,
                SsdDecaysOf{.extent = extent,
                            .batch_stride = dt.stride(0),
                            .step_stride = dt.stride(1),
                            .head_stride = dt.stride(2),
                            .dt = dt.const_data_ptr<float>(),
                            .a = rates.const_data_ptr<float>(),
                            .step = decays.step.data_ptr<float>(),
                            .log = decays.log.data_ptr<float>()});
  return decays;
}

Tensor masked_scores_cuda(const Tensor& scores, const Decays& decays) {
  auto sizes = scores.sizes().vec();
  sizes[2] = decays.heads();
  const Tensor masked = torch::empty(sizes, scores.options());
  const SsdExtent extent = ssd_extent(decays, 0, scores.size(2));
  launch_kernel(
      kSsdFile,
      fmt::format("ssd_masked<{}, {}>", storage_name(scores.scalar_type()), decays.chunk()), scores,
      extent.matrices(), kSsdThreads,
      SsdMasked{extent, given(decays), scores.data_ptr(), masked.data_ptr()});
  return masked;
}

Packed pack_cuda(const Tensor& input, const Decays& decays, SsdScale scale, int64_t groups,
                 bool with_heads) {
  const Tensor x = packed(input);
  const int64_t batch = x.size(0), heads = x.size(2), channels = x.size(3);
  const Packed result{
      with_heads
          ? torch::empty({batch, decays.chunks(), heads, decays.chunk(), channels}, x.options())
          : Tensor(),
      torch::empty({batch, decays.chunks(), groups, decays.chunk(), heads / groups, channels},
                   x.options())};
  const int pack = pack_of({x, result.by_head, result.scaled});
  const SsdExtent extent = ssd_extent(decays, x.size(1), groups, channels);
  launch_kernel(
      kSsdFile, fmt::format("ssd_pack<{}, {}>", storage_name(x.scalar_type()), pack), x,
      extent.blocks_of_packs(pack), kSsdThreads,
      SsdPack{extent, given(decays), scale, given(x),
              with_heads ? result.by_head.data_ptr() : nullptr, result.scaled.data_ptr()});
  return result;
}

Tensor carry_cuda(const Tensor& states, const Decays& decays, const Tensor& h0) {
  const Tensor start = h0.contiguous(), hT = torch::empty_like(start);
  const int pack = pack_of({as_rows(states), as_rows(start), as_rows(hT)});
  const SsdExtent extent = ssd_extent(decays, 0, 1, states.size(3), states.size(4));
  launch_kernel(
      kSsdFile, fmt::format("ssd_carry<{}, {}>", storage_name(states.scalar_type()), pack), states,
      blocks_of_warps(extent.batch * extent.heads * extent.warps_of_state(pack)), kSsdThreads,
      SsdCarry{extent, given(decays), start.const_data_ptr<float>(), states.data_ptr(),
               hT.data_ptr<float>()});
  return hT;
}

Tensor join_cuda(const Tensor& within, const Tensor& across, const Decays& decays,
                 const Tensor& input, const Tensor& d) {
  const Tensor x = packed(input), skip = d.contiguous();
  const Tensor y = torch::empty(x.sizes(), x.options());
  const int pack = pack_of({within, across, x, y});
  const SsdExtent extent = ssd_extent(decays, x.size(1), across.size(2), x.size(3));
  launch_kernel(kSsdFile, fmt::format("ssd_join<{}, {}>", storage_name(x.scalar_type()), pack), x,
                extent.blocks_of_packs(pack), kSsdThreads,
                SsdJoin{extent, given(decays), within.data_ptr(), across.data_ptr(), given(x),
                        given(y), skip.const_data_ptr<float>()});
  return y;
}

ScoresBackward masked_scores_backward_cuda(const Tensor& gradient, const Tensor& scores,
                                           const Decays& decays) {
  const int chunk = static_cast<int>(decays.chunk());
  const int64_t tiles = ssd_masked_tiles(chunk);
  const ScoresBackward result = empty_scores_backward(scores, decays, tiles);
  const SsdExtent extent = ssd_extent(decays, 0, scores.size(2));
  launch_kernel(
      kSsdFile,
      fmt::format("ssd_masked_backward<{}, {}>", storage_name(scores.scalar_type()), chunk), scores,
      extent.batch * extent.chunks * extent.groups * tiles, ssd_masked_threads(chunk),
      SsdMaskedBackward{extent, given(decays), scores.data_ptr(), gradient.data_ptr(),
                        result.scores.data_ptr(), result.rows.data_ptr<float>(),
                        result.columns.data_ptr<float>(), result.own.data_ptr<float>()});
  return result;
}

CarryBackward carry_backward_cuda(const Tensor& gradient, const Tensor& entering,
                                  const Decays& decays, const Tensor& dhT) {
  const Tensor end = dhT.contiguous(), dh0 = torch::empty_like(end);
  const int pack = pack_of({as_rows(gradient), as_rows(entering), as_rows(end), as_rows(dh0)});
  const SsdExtent extent = ssd_extent(decays, 0, 1, gradient.size(3), gradient.size(4));
  const int64_t warps = extent.warps_of_state(pack);
  const CarryBackward result{
      dh0, torch::empty({extent.batch, extent.chunks, extent.heads, warps}, decays.log.options())};
  launch_kernel(
      kSsdFile,
      fmt::format("ssd_carry_backward<{}, {}>", storage_name(gradient.scalar_type()), pack),
      gradient, blocks_of_warps(extent.batch * extent.heads * warps), kSsdThreads,
      SsdCarryBackward{extent, given(decays), end.const_data_ptr<float>(), entering.data_ptr(),
                       gradient.data_ptr(), dh0.data_ptr<float>(), result.decay.data_ptr<float>()});
  return result;
}

JoinBackward join_backward_cuda(const Tensor& within, const Tensor& arriving, const Tensor& across,
                                const Decays& decays, const Tensor& input, const Tensor& gradient,
                                const Tensor& d, const Tensor& dx) {
  const Tensor x = packed(input), dy = packed(gradient), skip = d.contiguous();
  const JoinBackward result{torch::empty_like(decays.log), torch::empty_like(decays.log),
                            torch::empty_like(decays.log)};
  const int pack = pack_of({within, arriving, across, x, dy, dx});
  const SsdExtent extent = ssd_extent(decays, x.size(1), across.size(2), x.size(3));
  launch_kernel(kSsdFile,
                fmt::format("ssd_join_backward<{}, {}, {}>", storage_name(x.scalar_type()), pack,
                            x.size(3) / pack),
                x, extent.blocks_of_packs(pack), kSsdThreads,
                SsdJoinBackward{extent, given(decays), within.data_ptr(), arriving.data_ptr(),
                                across.data_ptr(), given(x), given(dy), given(dx),
                                skip.const_data_ptr<float>(), result.across.data_ptr<float>(),
                                result.arriving.data_ptr<float>(), result.own.data_ptr<float>()});
  return result;
}

DecaysBackward decays_backward_cuda(const Decays& decays, const Tensor& a,
                                    const ScoresBackward& scores, const CarryBackward& carried,
                                    const JoinBackward& joined, int64_t steps) {
  const SsdExtent extent = ssd_extent(decays, steps);
  const Tensor rates = a.contiguous();
  // What join_backward's definition gives lies otherwise.
  const Tensor across = joined.across.contiguous(), arriving = joined.arriving.contiguous(),
               own = joined.own.contiguous();
  const Tensor ddt = torch::empty({extent.batch, steps, extent.heads}, decays.log.options());
  const Tensor sums =
      torch::empty({extent.batch * extent.chunks, 2, extent.heads}, decays.log.options());
  const auto floats = [](const Tensor& t) { return t.const_data_ptr<float>(); };
  launch_kernel(kSsdFile, "ssd_decays_backward", ddt, blocks_of_warps(extent.matrices()),
                kSsdThreads,
                SsdDecaysBackward{.extent = extent,
                                  .decays = given(decays),
                                  .a = floats(rates),
                                  .rows = floats(scores.rows),
                                  .columns = floats(scores.columns),
                                  .own = floats(scores.own),
                                  .column_parts = static_cast<int>(scores.columns.size(0)),
                                  .decay_parts = static_cast<int>(carried.decay.size(3)),
                                  .decay = floats(carried.decay),
                                  .of_across = floats(across),
                                  .of_arriving = floats(arriving),
                                  .of_own = floats(own),
                                  .ddt = ddt.data_ptr<float>(),
                                  .sums = sums.data_ptr<float>()});
  const Tensor added = sum_of_rows(sums, torch::kFloat);
  return {ddt, added[0], added[1]};
}

bool has_product_kernels(const Tensor& x, int64_t state) {
  return !ssd_stores_scores(x.options(), x.size(1), x.size(3), state) && access_width({x}) == 8;
}

Tensor in_packs(const Tensor& dy) {
  return access_width({dy}) == 8 ? dy : dy.clone(torch::MemoryFormat::Contiguous);
}

namespace {

void launch_output(SsdOutput problem, bool backward, const Tensor& on) {
  const SsdExtent& extent = problem.extent;
  launch_kernel("ssd/ssd_output_kernel.hpp",
                fmt::format("ssd_output<{}, {}, {}, {}>", extent.chunk, extent.channels,
                            extent.state, backward),
                on, extent.batch * extent.chunks * extent.groups * ssd_output_slices(extent),
                ssd_output_threads(extent.chunk), problem, 1,
                ssd_output_bytes(extent.chunk, extent.channels, extent.state, backward));
}

}  // namespace

std::pair<ScoresBackward, Tensor> scores_backward_cuda(const Tensor& x, const Tensor& dy,
                                                       const Tensor& scores, const Decays& decays) {
  const Tensor products = torch::empty_like(decays.log);
  const int chunk = static_cast<int>(decays.chunk());
  const int64_t blocks = ssd_scores_blocks(chunk);
  const ScoresBackward result = empty_scores_backward(scores, decays, blocks);
  const SsdExtent extent = ssd_extent(decays, x.size(1), scores.size(2), x.size(3));
  launch_kernel("ssd/ssd_scores_kernel.hpp",
                fmt::format("ssd_scores_backward<{}, {}>", chunk, extent.channels), x,
                extent.batch * extent.chunks * extent.groups * blocks, ssd_scores_threads(chunk),
                SsdScoresBackward{extent, given(decays), given(x), given(dy), scores.data_ptr(),
                                  result.scores.data_ptr(), result.rows.data_ptr<float>(),
                                  result.columns.data_ptr<float>(), result.own.data_ptr<float>(),
                                  products.data_ptr<float>()},
                1, ssd_scores_bytes(chunk, extent.channels));
  return {result, products};
}

Tensor output_cuda(const Tensor& scores, const Tensor& c, const Tensor& states,
                   const Decays& decays, const Tensor& x, const Tensor& d) {
  const Tensor y = torch::empty(x.sizes(), x.options()), skip = d.contiguous();
  launch_output({.extent = ssd_extent(decays, x.size(1), c.size(2), x.size(3), c.size(4)),
                 .decays = given(decays),
                 .scores = scores.data_ptr(),
                 .left = c.data_ptr(),
                 .states = states.data_ptr(),
                 .x = given(x),
                 .y = given(y),
                 .d = skip.const_data_ptr<float>(),
                 .c = nullptr,
                 .entering = nullptr,
                 .inputs = {},
                 .of_across = nullptr,
                 .of_arriving = nullptr},
                false, x);
  return y;
}

JoinBackward output_backward_cuda(const Tensor& transposed_scores, const Tensor& b, const Tensor& c,
                                  const Tensor& added, const Tensor& entering, const Decays& decays,
                                  const Tensor& x, const Tensor& dy, const Tensor& d,
                                  const Tensor& own, const Tensor& dx) {
  const Tensor skip = d.contiguous();
  const JoinBackward result{torch::empty_like(decays.log), torch::empty_like(decays.log), own};
  launch_output({.extent = ssd_extent(decays, x.size(1), c.size(2), x.size(3), c.size(4)),
                 .decays = given(decays),
                 .scores = transposed_scores.data_ptr(),
                 .left = b.data_ptr(),
                 .states = added.data_ptr(),
                 .x = given(dy),
                 .y = given(dx),
                 .d = skip.const_data_ptr<float>(),
                 .c = c.data_ptr(),
                 .entering = entering.data_ptr(),
                 .inputs = given(x),
                 .of_across = result.across.data_ptr<float>(),
                 .of_arriving = result.arriving.data_ptr<float>()},
                true, x);
  return result;
}

}  // namespace pararnn::ops::ssd_parts
