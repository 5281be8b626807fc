// The GPU's kernels between the products of the state-space recurrence, on the host
// (cuda_on_host.hpp): each equals its definition in LibTorch's operations.
#include <gtest/gtest.h>
#include <torch/types.h>
#include <torch/utils.h>

#include "ops/ssd/ssd_parts.hpp"

// Redefines names of the C++ library, so it comes last.
#include "ops/ssd/ssd_kernel.hpp"
#include "ops/ssd/ssd_output_kernel.hpp"
#include "ops/ssd/ssd_scores_kernel.hpp"

namespace pararnn::ops {
namespace {

using cuda::BFloat16;
using ssd_parts::Decays;
using torch::Tensor;

/// Sizes, of which P is in packs of kWidth.
struct SsdCase {
  int64_t batch, steps, chunk, heads, groups, channels, state;
  double anew = 0;

  int64_t chunks() const { return (steps + chunk - 1) / chunk; }
  SsdExtent extent() const {
    return {batch, steps, chunks(), int(heads), int(groups), int(chunk), int(channels), int(state)};
  }
};

template <class Storage>
struct SsdOnFibers {
  static constexpr auto kDtype = kSame<Storage, float> ? torch::kFloat : torch::kBFloat16;
  static constexpr double kTolerance = kSame<Storage, float> ? 2e-5 : 1e-2;

  SsdCase c;
  Tensor dt, a, d;
  Decays decays;

  explicit SsdOnFibers(const SsdCase& given) : c(given) {
    // A part of a wider tensor.
    dt = torch::rand({c.batch, c.steps, c.heads + 3}).narrow(2, 2, c.heads);
    a = -torch::rand({c.heads});
    d = torch::randn({c.heads});
    const Tensor reset = c.anew > 0 ? torch::rand({c.batch, c.steps}) < c.anew : Tensor();
    decays = ssd_parts::decays_of(dt, a, reset, c.chunk);
  }

  static Tensor numbers(torch::IntArrayRef shape) { return torch::randn(shape).to(kDtype); }
  static Tensor unwritten(torch::IntArrayRef shape, torch::ScalarType dtype = kDtype) {
    return torch::full(shape, std::numeric_limits<double>::quiet_NaN(), dtype);
  }
  Tensor floats() const { return unwritten(decays.log.sizes(), torch::kFloat); }
  Tensor parts_of_floats(int64_t parts) const {
    auto sizes = decays.log.sizes().vec();
    sizes.insert(sizes.begin(), parts);
    return unwritten(sizes, torch::kFloat);
  }
  /// (B,T,H,P), a part of a wider tensor.
  Tensor steps() const {
    const int64_t width = c.heads * c.channels;
    return numbers({c.batch, c.steps, 2 * width})
        .narrow(2, width, width)
        .unflatten(2, {c.heads, c.channels});
  }
  Tensor by_head() const { return numbers({c.batch, c.chunks(), c.heads, c.chunk, c.channels}); }
  Tensor by_group() const {
    return numbers({c.batch, c.chunks(), c.groups, c.chunk, c.heads / c.groups, c.channels});
  }
  Tensor states() const { return numbers({c.batch, c.chunks(), c.heads, c.channels, c.state}); }
  Tensor state() const { return torch::randn({c.batch, c.heads, c.channels, c.state}); }
  Tensor scores(int64_t of) const { return numbers({c.batch, c.chunks(), of, c.chunk, c.chunk}); }

  SsdDecays given() const {
    return {decays.step.data_ptr<float>(), decays.log.data_ptr<float>(),
            decays.segment.defined() ? decays.segment.data_ptr<int>() : nullptr};
  }
  static SsdSteps given(const Tensor& x) {
    return {x.stride(0), x.stride(1), x.stride(2), x.data_ptr()};
  }

  template <class Problem>
  static void run(void (*kernel)(Problem), int64_t blocks, const Problem& problem,
                  int threads = kSsdThreads) {
    fibers::machine.run({.blocks = int(blocks), .threads = threads}, [&] { kernel(problem); });
  }
  int64_t warps(int64_t count) const { return (count + kSsdWarps - 1) / kSsdWarps; }

  static void expect_close(const Tensor& got, const Tensor& expected, const char* what) {
    ASSERT_EQ(got.sizes(), expected.sizes()) << what;
    const Tensor exact = expected.to(torch::kDouble);
    const double error = (got.to(torch::kDouble) - exact).abs().max().item<double>();
    EXPECT_LE(error, kTolerance * (1e-3 + exact.abs().max().item<double>())) << what;
  }

  void expect_decays() const {
    const Tensor step = floats(), log = floats();
    run(&ssd_decays, warps(c.extent().matrices()),
        SsdDecaysOf{c.extent(), dt.stride(0), dt.stride(1), dt.stride(2), dt.data_ptr<float>(),
                    a.data_ptr<float>(), step.data_ptr<float>(), log.data_ptr<float>()});
    expect_close(step, decays.step, "step");
    expect_close(log, decays.log, "log");
  }

  template <int kChunk>
  void expect_masked() const {
    const Tensor s = scores(c.groups), masked = unwritten(scores(c.heads).sizes());
    run(&ssd_masked<Storage, kChunk>, c.extent().matrices(),
        SsdMasked{c.extent(), given(), s.data_ptr(), masked.data_ptr()});
    expect_close(masked, ssd_parts::masked_scores(s, decays), "masked scores");

    const Tensor gradient = scores(c.heads), expected_masked = gradient.clone();
    const auto right = ssd_parts::masked_scores_backward(expected_masked, s, decays);
    const int64_t tiles = ssd_masked_tiles(kChunk);
    const Tensor ds = unwritten(s.sizes()), rows = floats(), own = floats();
    const Tensor columns = parts_of_floats(tiles);
    run(&ssd_masked_backward<Storage, kChunk>, c.batch * c.chunks() * c.groups * tiles,
        SsdMaskedBackward{c.extent(), given(), s.data_ptr(), gradient.data_ptr(), ds.data_ptr(),
                          rows.data_ptr<float>(), columns.data_ptr<float>(), own.data_ptr<float>()},
        ssd_masked_threads(kChunk));
    expect_close(gradient, expected_masked, "masked scores again");
    expect_close(ds, right.scores, "gradient of the scores");
    expect_close(rows, right.rows, "rows");
    expect_close(columns.sum(0), right.columns.sum(0), "columns");
    expect_close(own, right.own, "own");
  }

  template <int kWidth>
  void expect_pack() const {
    const Tensor x = steps();
    for (const SsdScale scale : {SsdScale::kToEnd, SsdScale::kFromStart}) {
      const Tensor head = unwritten(by_head().sizes()), group = unwritten(by_group().sizes());
      run(&ssd_pack<Storage, kWidth>, c.extent().blocks_of_packs(kWidth),
          SsdPack{c.extent(), given(), scale, given(x), head.data_ptr(), group.data_ptr()});
      const auto right = ssd_parts::pack(x, decays, scale, c.groups);
      EXPECT_TRUE(torch::equal(head, right.by_head));
      expect_close(group, right.scaled, "scaled");
    }
  }

  template <int kWidth>
  void expect_join() const {
    const Tensor within = by_head(), across = by_group(), arriving = by_group(), x = steps();
    const Tensor y = unwritten(x.sizes());
    run(&ssd_join<Storage, kWidth>, c.extent().blocks_of_packs(kWidth),
        SsdJoin{c.extent(), given(), within.data_ptr(), across.data_ptr(), given(x), given(y),
                d.data_ptr<float>()});
    expect_close(y, ssd_parts::join(within, across, decays, x, d), "y");

    const Tensor dy = steps(), dx = unwritten(x.sizes()), expected_dx = unwritten(x.sizes());
    const auto right =
        ssd_parts::join_backward(within, arriving, across, decays, x, dy, d, expected_dx);
    const Tensor of_across = floats(), of_arriving = floats(), own = floats();
    const auto kernel = c.channels == kWidth ? &ssd_join_backward<Storage, kWidth, 1>
                                             : &ssd_join_backward<Storage, kWidth, 4>;
    ASSERT_TRUE(c.channels == kWidth || c.channels == 4 * kWidth);
    run(kernel, c.extent().blocks_of_packs(kWidth),
        SsdJoinBackward{c.extent(), given(), within.data_ptr(), arriving.data_ptr(),
                        across.data_ptr(), given(x), given(dy), given(dx), d.data_ptr<float>(),
                        of_across.data_ptr<float>(), of_arriving.data_ptr<float>(),
                        own.data_ptr<float>()});
    expect_close(dx, expected_dx, "dx");
    expect_close(of_across, right.across, "dy · across");
    expect_close(of_arriving, right.arriving, "x · arriving");
    expect_close(own, right.own, "dy · x");
  }

  template <int kWidth>
  void expect_carry() const {
    const Tensor h0 = state(), hT = torch::full_like(h0, NAN), added = states(),
                 entering = added.clone();
    const int64_t of_state = c.extent().warps_of_state(kWidth);
    const int64_t blocks = warps(c.batch * c.heads * of_state);
    run(&ssd_carry<Storage, kWidth>, blocks,
        SsdCarry{c.extent(), given(), h0.data_ptr<float>(), added.data_ptr(),
                 hT.data_ptr<float>()});
    expect_close(hT, ssd_parts::carry(entering, decays, h0), "hT");
    expect_close(added, entering, "states that enter");

    const Tensor dhT = state(), dh0 = torch::full_like(h0, NAN), gradient = states(),
                 expected = gradient.clone();
    const Tensor decay = unwritten({c.batch, c.chunks(), c.heads, of_state}, torch::kFloat);
    run(&ssd_carry_backward<Storage, kWidth>, blocks,
        SsdCarryBackward{c.extent(), given(), dhT.data_ptr<float>(), entering.data_ptr(),
                         gradient.data_ptr(), dh0.data_ptr<float>(), decay.data_ptr<float>()});
    const auto right = ssd_parts::carry_backward(expected, entering, decays, dhT);
    expect_close(dh0, right.h0, "dh0");
    expect_close(gradient, expected, "gradient of what chunks add");
    expect_close(decay.sum(-1), right.decay.sum(-1), "gradient of whole decays");
  }

  /// The kernels of y and dx, against what the products and join give in float.
  template <int kChunk, int kChannels, int kState>
  void expect_output() const {
    const auto in_float = [](const Tensor& t) { return t.to(torch::kFloat); };
    const auto product = [&](const Tensor& u, const Tensor& v) {
      return at::matmul(in_float(u), in_float(v));
    };
    const auto of_group = [&](const Tensor& s) {
      return s.view({c.batch, c.chunks(), c.groups, -1, c.state});
    };
    const auto by_heads = [&](const Tensor& t) { return t.unflatten(4, {-1, c.channels}); };
    const Tensor b = numbers({c.batch, c.chunks(), c.groups, c.chunk, c.state});
    const Tensor queries = torch::randn(b.sizes()).to(kDtype), x = steps(), dy = steps();
    const Tensor score = product(queries, b.mT()).to(kDtype), entering = states(), added = states();
    const Tensor masked = ssd_parts::masked_scores(in_float(score), decays);
    const auto in_heads = [&](const Tensor& t) {
      return ssd_parts::pack(in_float(t), decays, SsdScale::kToEnd, c.groups).by_head;
    };
    const Tensor across = by_heads(product(queries, of_group(entering).mT())),
                 arriving = by_heads(product(b, of_group(added).mT()));
    const Tensor expected =
        ssd_parts::join(at::matmul(masked, in_heads(x)), across, decays, in_float(x), d);
    const int64_t blocks = c.batch * c.chunks() * c.groups * ssd_output_slices(c.extent());
    const Tensor y = unwritten(x.sizes());
    SsdOutput problem{};
    problem.extent = c.extent();
    problem.decays = given();
    problem.scores = score.data_ptr();
    problem.left = queries.data_ptr();
    problem.states = entering.data_ptr();
    problem.x = given(x);
    problem.y = given(y);
    problem.d = d.data_ptr<float>();
    run(&ssd_output<kChunk, kChannels, kState, false>, blocks, problem, ssd_output_threads(kChunk));
    expect_close(y, expected, "y");

    const Tensor expected_dx = torch::empty(x.sizes()), dx = unwritten(x.sizes());
    const auto right =
        ssd_parts::join_backward(at::matmul(masked.mT(), in_heads(dy)), arriving, across, decays,
                                 in_float(x), in_float(dy), d, expected_dx);
    const Tensor of_across = floats(), of_arriving = floats();
    const Tensor turned = score.mT().contiguous();
    problem.scores = turned.data_ptr();
    problem.left = b.data_ptr();
    problem.states = added.data_ptr();
    problem.x = given(dy);
    problem.y = given(dx);
    problem.c = queries.data_ptr();
    problem.entering = entering.data_ptr();
    problem.inputs = given(x);
    problem.of_across = of_across.data_ptr<float>();
    problem.of_arriving = of_arriving.data_ptr<float>();
    run(&ssd_output<kChunk, kChannels, kState, true>, blocks, problem, ssd_output_threads(kChunk));
    expect_close(dx, expected_dx, "dx");
    expect_close(of_across, right.across, "dy · across");
    expect_close(of_arriving, right.arriving, "x · arriving");
  }

  /// The kernel of the scores' gradient, against the product and its definition in float.
  template <int kChunk, int kChannels>
  void expect_scores_backward() const {
    const Tensor x = steps(), dy = steps(), score = scores(c.groups);
    const auto in_heads = [&](const Tensor& t) {
      return ssd_parts::pack(t.to(torch::kFloat), decays, SsdScale::kToEnd, c.groups).by_head;
    };
    const auto right = ssd_parts::masked_scores_backward(at::matmul(in_heads(dy), in_heads(x).mT()),
                                                         score.to(torch::kFloat), decays);
    const Tensor dots = (in_heads(dy) * in_heads(x)).sum(-1);
    const int64_t blocks = ssd_scores_blocks(kChunk);
    const Tensor ds = unwritten(score.sizes()), rows = floats(), own = floats(),
                 products = floats(), columns = parts_of_floats(blocks);
    run(&ssd_scores_backward<kChunk, kChannels>, c.batch * c.chunks() * c.groups * blocks,
        SsdScoresBackward{c.extent(), given(), given(x), given(dy), score.data_ptr(), ds.data_ptr(),
                          rows.data_ptr<float>(), columns.data_ptr<float>(), own.data_ptr<float>(),
                          products.data_ptr<float>()},
        ssd_scores_threads(kChunk));
    expect_close(ds, right.scores, "gradient of the scores");
    // Of numbers in float, sums in float.
    for (const auto& [got, expected, what] : {std::tuple{rows, right.rows, "rows"},
                                              {columns.sum(0), right.columns.sum(0), "columns"},
                                              {own, right.own, "own"},
                                              {products, dots, "dy · x"}}) {
      const double largest = expected.abs().max().template item<double>();
      EXPECT_TRUE(torch::allclose(got, expected, 1e-4, 1e-4 * largest)) << what;
    }
  }

  void expect_decays_backward() const {
    const auto random = [&] { return torch::randn(decays.log.sizes()); };
    auto parts = decays.log.sizes().vec();
    parts.insert(parts.begin(), 3);
    const ssd_parts::ScoresBackward of_scores{{}, random(), torch::randn(parts), random()};
    const ssd_parts::CarryBackward carried{{}, torch::randn({c.batch, c.chunks(), c.heads, 45})};
    const ssd_parts::JoinBackward joined{random(), random(), random()};
    const Tensor ddt = unwritten({c.batch, c.steps, c.heads}, torch::kFloat);
    const Tensor sums = unwritten({c.batch * c.chunks(), 2, c.heads}, torch::kFloat);
    const auto in = [](const Tensor& t) { return t.data_ptr<float>(); };
    run(&ssd_decays_backward, warps(c.extent().matrices()),
        SsdDecaysBackward{c.extent(), given(), in(a), in(of_scores.rows), in(of_scores.columns),
                          in(of_scores.own), 3, 45, in(carried.decay), in(joined.across),
                          in(joined.arriving), in(joined.own), in(ddt), in(sums)});
    const auto right = ssd_parts::decays_backward(decays, a, of_scores, carried, joined, c.steps);
    expect_close(ddt, right.dt, "ddt");
    expect_close(sums.sum(0)[0], right.a, "da");
    expect_close(sums.sum(0)[1], right.d, "dd");
  }
};

TEST(SsdKernelsOnFibers, EqualTheirDefinitions) {
  torch::manual_seed(1);
  for (const double anew : {0.0, 0.1}) {
    {
      // A last chunk that is cut; two groups; channels that fill no block.
      const SsdOnFibers<float> ssd({2, 75, 32, 4, 2, 16, 6, anew});
      ssd.expect_decays();
      ssd.expect_masked<32>();
      ssd.expect_pack<4>();
      ssd.expect_join<4>();
      ssd.expect_carry<4>();
      ssd.expect_decays_backward();
    }
    {
      const SsdOnFibers<BFloat16> ssd({1, 160, 128, 3, 1, 32, 16, anew});
      ssd.expect_decays();
      ssd.expect_masked<128>();
      ssd.expect_pack<8>();
      ssd.expect_join<8>();
      ssd.expect_carry<8>();
      ssd.expect_decays_backward();
    }
    {
      // More heads than a block has threads; odd sizes; many short chunks.
      const SsdOnFibers<BFloat16> ssd({1, 100, 16, 140, 1, 1, 5, anew});
      ssd.expect_decays();
      ssd.expect_masked<16>();
      ssd.expect_pack<1>();
      ssd.expect_join<1>();
      ssd.expect_carry<1>();
      ssd.expect_decays_backward();
    }
    {
      const SsdOnFibers<BFloat16> ssd({1, 300, 128, 3, 1, 64, 128, anew});
      ssd.expect_output<128, 64, 128>();
      ssd.expect_scores_backward<128, 64>();
    }
    {
      // More heads than a block has, in groups; steps that fill no chunk.
      const SsdOnFibers<BFloat16> ssd({2, 75, 32, 10, 2, 32, 32, anew});
      ssd.expect_output<32, 32, 32>();
      ssd.expect_scores_backward<32, 32>();
    }
    {
      const SsdOnFibers<BFloat16> ssd({1, 40, 64, 1, 1, 64, 64, anew});
      ssd.expect_output<64, 64, 64>();
      ssd.expect_scores_backward<64, 64>();
    }
    const SsdOnFibers<float> ssd({1, 64, 64, 2, 2, 4, 4, anew});
    ssd.expect_masked<64>();
    ssd.expect_join<1>();
  }
}

}  // namespace
}  // namespace pararnn::ops
