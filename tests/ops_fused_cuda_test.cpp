// The GPU's kernels of the parts of a model, on the host (cuda_on_host.hpp): each equals its
// definition, forward and backward.
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <torch/autograd.h>
#include <torch/types.h>
#include <torch/utils.h>

#include <functional>
#include <new>
#include <vector>

#include "gradient_test_support.hpp"
#include "ops/adamw/adamw.hpp"
#include "ops/causal_convolution/causal_convolution.hpp"
#include "ops/cross_entropy/cross_entropy.hpp"
#include "ops/cross_entropy/cross_entropy_cuda.hpp"
#include "ops/residual/residual.hpp"
#include "ops/rms_norm/rms_norm.hpp"
#include "ops/rotary/rotary.hpp"
#include "ops/sample/sample.hpp"
#include "ops/swiglu/swiglu.hpp"

// Redefines names of the C++ library, so it comes last.
#include "ops/adamw/adamw_kernel.hpp"
#include "ops/causal_convolution/causal_convolution_kernel.hpp"
#include "ops/cross_entropy/cross_entropy_kernel.hpp"
#include "ops/residual/residual_kernel.hpp"
#include "ops/rms_norm/rms_norm_kernel.hpp"
#include "ops/rotary/rotary_kernel.hpp"
#include "ops/row_sum/row_sum_kernel.hpp"
#include "ops/sample/sample_kernel.hpp"
#include "ops/swiglu/swiglu_kernel.hpp"

namespace pararnn::ops {
namespace {

using cuda::BFloat16;
using test::half_of_wider;
using torch::Tensor;

template <class Storage>
inline constexpr torch::ScalarType kDtype = kSame<Storage, float>      ? torch::kFloat
                                            : kSame<Storage, BFloat16> ? torch::kBFloat16
                                                                       : torch::kHalf;

template <class Problem>
void run(void (*kernel)(Problem), int blocks, int threads, const Problem& problem) {
  fibers::machine.run({.blocks = blocks, .threads = threads}, [&] { kernel(problem); });
}

/// Memory in which what is not written is found.
Tensor unwritten(torch::IntArrayRef shape, torch::ScalarType dtype) {
  return torch::full(shape, std::numeric_limits<double>::quiet_NaN(), dtype);
}

/// Relative to the largest number; `coarsest` of the dtypes that were stored on the way.
void expect_close(const Tensor& got, const Tensor& expected, const char* what,
                  torch::ScalarType coarsest = torch::kFloat) {
  const bool fine = got.scalar_type() == torch::kFloat && coarsest == torch::kFloat;
  const double tolerance = fine ? 2e-5 : 1e-2;
  const Tensor a = got.to(torch::kDouble), b = expected.to(torch::kDouble).view(got.sizes());
  const double error = (a - b).abs().max().item<double>(), scale = b.abs().max().item<double>();
  EXPECT_LE(error, tolerance * (1e-3 + scale)) << what;
}

std::vector<Tensor> gradients(const Tensor& y, const std::vector<Tensor>& of, const Tensor& dy) {
  return torch::autograd::grad({y}, of, {dy.to(y.scalar_type())});
}

Tensor leaf(const Tensor& t) { return t.detach().to(torch::kDouble).requires_grad_(); }

/// Random numbers, given a shape and a dtype.
using Draw = Tensor (*)(torch::IntArrayRef, torch::TensorOptions);

/// Numbers of which rows are so far apart that 32 bits do not count what lies between: addresses
/// without memory behind most of them.
Tensor far_apart(torch::IntArrayRef shape, torch::TensorOptions options) {
  constexpr int64_t kRow = (int64_t{1} << 31) + 64;
  std::vector<int64_t> strides(shape.size(), 1);
  int64_t rows = 1;
  for (size_t i = shape.size() - 1; i-- > 0; rows *= shape[i]) strides[i] = rows * kRow;
  const size_t bytes = static_cast<size_t>(rows * kRow) * options.dtype().itemsize();
  void* const memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  const auto unmap = [bytes](void* from) { munmap(from, bytes); };
  return torch::from_blob(memory, shape, strides, unmap, options)
      .copy_(torch::randn(shape, options));
}

template <class X, class Y, class P, int kWidth, int kPacks, int kThreads, bool kResidual,
          NormGate kGate>
void expect_norm(int64_t rows, int width, Draw draw = half_of_wider) {
  SCOPED_TRACE(testing::Message() << rows << " rows of " << width << ", " << kThreads << " threads"
                                  << (kResidual ? ", residual" : "") << ", gate " << int(kGate));
  using Share = RowShare<kWidth, kPacks, kThreads>;
  constexpr bool kGated = kGate != NormGate::kNone;
  constexpr int kBlocks = 3;
  const double epsilon = 1e-5;
  const Tensor x = draw({rows, width}, kDtype<X>);
  const Tensor branch = draw({rows, width}, kDtype<Y>);
  const Tensor gate = draw({rows, width}, kDtype<Y>);
  const Tensor weight = torch::randn(width).to(kDtype<P>),
               scale = torch::randn(width).to(kDtype<P>);
  const Tensor sum = unwritten({rows, width}, kDtype<X>), y = unwritten({rows, width}, kDtype<Y>);
  run(&rms_norm_forward<X, Y, P, kWidth, kPacks, kThreads, kResidual, kGate>, kBlocks,
      Share::kBlock,
      RmsNormForward{.rows = rows,
                     .width = width,
                     .epsilon = float(epsilon),
                     .x_stride = x.stride(0),
                     .branch_stride = branch.stride(0),
                     .gate_stride = gate.stride(0),
                     .x = x.data_ptr(),
                     .scale = scale.data_ptr(),
                     .branch = branch.data_ptr(),
                     .weight = weight.data_ptr(),
                     .gate = gate.data_ptr(),
                     .sum = sum.data_ptr(),
                     .y = y.data_ptr()});
  const Tensor xs = leaf(x), branches = leaf(branch), gates = leaf(gate), weights = leaf(weight),
               scales = leaf(scale);
  const std::optional<Tensor> maybe_gate = kGated ? std::make_optional(gates) : std::nullopt;
  const Tensor summed = kResidual ? add_scaled_definition(xs, scales, branches) : xs;
  const Tensor expected =
      rms_norm_definition(summed, weights, epsilon, torch::kDouble, maybe_gate, kGate);
  if (kResidual) expect_close(sum, summed.detach(), "sum");
  expect_close(y, expected.detach(), "y");

  const Tensor dy = draw({rows, width}, kDtype<Y>);
  const Tensor dsum = draw({rows, width}, kDtype<X>);
  const Tensor dx = unwritten({rows, width}, kDtype<X>),
               dgate = unwritten({rows, 2 * width}, kDtype<Y>).narrow(1, width, width);
  const Tensor dbranch = unwritten({rows, width}, kDtype<Y>);
  const Tensor sums = unwritten({kBlocks, kResidual ? 2 : 1, width}, torch::kFloat);
  const Tensor normed = kResidual ? sum : x;
  run(&rms_norm_backward<X, Y, P, kWidth, kPacks, kThreads, kResidual, kGate>, kBlocks,
      Share::kBlock,
      RmsNormBackward{.rows = rows,
                      .width = width,
                      .epsilon = float(epsilon),
                      .x_stride = normed.stride(0),
                      .branch_stride = branch.stride(0),
                      .gate_stride = gate.stride(0),
                      .dy_stride = dy.stride(0),
                      .dsum_stride = dsum.stride(0),
                      .dgate_stride = dgate.stride(0),
                      .x = normed.data_ptr(),
                      .scale = scale.data_ptr(),
                      .branch = branch.data_ptr(),
                      .weight = weight.data_ptr(),
                      .gate = gate.data_ptr(),
                      .dy = dy.data_ptr(),
                      .dsum = kResidual ? dsum.data_ptr() : nullptr,
                      .dx = dx.data_ptr(),
                      .dbranch = dbranch.data_ptr(),
                      .dgate = dgate.data_ptr(),
                      .sums = sums.data_ptr<float>()});
  const Tensor added = sums.sum(0);
  std::vector<Tensor> of{xs, weights}, results{dx, added[0]};
  Tensor value = (expected * dy.to(torch::kDouble)).sum();
  if (kResidual) {
    value = value + (summed * dsum.to(torch::kDouble)).sum();
    of.insert(of.end(), {scales, branches});
    results.insert(results.end(), {added[1], dbranch});
  }
  if (kGated) {
    of.push_back(gates);
    results.push_back(dgate);
  }
  const auto right = gradients(value, of, torch::ones({}));
  for (size_t i = 0; i < of.size(); ++i) {
    expect_close(results[i], right[i], testing::PrintToString(i).c_str(), kDtype<X>);
  }
}

TEST(FusedOnFibers, RmsNorm) {
  torch::manual_seed(1);
  // A row of one warp, and of several; rows that fill no block; widths that leave threads without.
  expect_norm<float, float, float, 4, 2, 32, false, NormGate::kNone>(11, 200);
  expect_norm<float, BFloat16, float, 4, 2, 32, false, NormGate::kAfter>(9, 256);
  expect_norm<float, BFloat16, float, 4, 2, 64, true, NormGate::kNone>(7, 400);
  expect_norm<BFloat16, BFloat16, BFloat16, 8, 1, 128, true, NormGate::kNone>(5, 1024);
  expect_norm<BFloat16, BFloat16, float, 8, 1, 256, true, NormGate::kNone>(4, 1800);
  expect_norm<BFloat16, BFloat16, float, 8, 1, 96, true, NormGate::kNone>(7, 768);
  expect_norm<BFloat16, BFloat16, BFloat16, 8, 3, 32, false, NormGate::kAfter>(13, 768);
  expect_norm<float, float, float, 1, 3, 32, true, NormGate::kNone>(6, 71);
  expect_norm<cuda::Float16, cuda::Float16, float, 2, 1, 32, false, NormGate::kAfter>(6, 34);
  expect_norm<float, float, float, 4, 2, 32, false, NormGate::kBefore>(11, 200);
  expect_norm<BFloat16, BFloat16, float, 8, 1, 96, false, NormGate::kBefore>(7, 768);
}

template <class X, class Y, class P, int kWidth, int kPacks, int kThreads>
void expect_residual(int64_t rows, int width, Draw draw = half_of_wider) {
  SCOPED_TRACE(testing::Message() << rows << " rows of " << width << ", " << kThreads
                                  << " threads");
  constexpr int kBlocks = 3, kBlock = RowShare<kWidth, kPacks, kThreads>::kBlock;
  const Tensor x = draw({rows, width}, kDtype<X>);
  const Tensor branch = draw({rows, width}, kDtype<Y>);
  const Tensor scale = torch::randn(width).to(kDtype<P>);
  const Tensor sum = unwritten({rows, width}, kDtype<X>);
  run(&residual_forward<X, Y, P, kWidth, kPacks, kThreads>, kBlocks, kBlock,
      ResidualForward{rows, width, x.stride(0), branch.stride(0), x.data_ptr(), scale.data_ptr(),
                      branch.data_ptr(), sum.data_ptr()});
  const Tensor xs = leaf(x), scales = leaf(scale), branches = leaf(branch);
  const Tensor expected = add_scaled_definition(xs, scales, branches);
  expect_close(sum, expected.detach(), "sum");
  const Tensor dsum = draw({rows, width}, kDtype<X>);
  const Tensor dbranch = unwritten({rows, width}, kDtype<Y>);
  const Tensor dscale = unwritten({kBlocks, width}, torch::kFloat);
  run(&residual_backward<X, Y, P, kWidth, kPacks, kThreads>, kBlocks, kBlock,
      ResidualBackward{rows, width, branch.stride(0), dsum.stride(0), scale.data_ptr(),
                       branch.data_ptr(), dsum.data_ptr(), dbranch.data_ptr(),
                       dscale.data_ptr<float>()});
  const auto right = gradients(expected, {scales, branches}, dsum);
  expect_close(dscale.sum(0), right[0], "dscale");
  expect_close(dbranch, right[1], "dbranch");
}

TEST(FusedOnFibers, Residual) {
  torch::manual_seed(5);
  expect_residual<float, float, float, 4, 2, 32>(11, 200);
  expect_residual<float, BFloat16, float, 4, 2, 64>(7, 400);
  expect_residual<BFloat16, BFloat16, float, 8, 1, 96>(7, 768);
  expect_residual<cuda::Float16, cuda::Float16, float, 2, 1, 32>(6, 34);
}

template <class Storage, int kWidth>
void expect_swiglu(int64_t rows, int width, Draw draw = half_of_wider) {
  const Tensor x = draw({rows, 2 * width}, kDtype<Storage>);
  const Tensor y = unwritten({rows, width}, kDtype<Storage>);
  run(&swiglu_forward<Storage, kWidth>, 3, kRowBlockThreads,
      SwigluForward{rows, width, x.stride(0), x.data_ptr(), y.data_ptr()});
  const Tensor xs = leaf(x), expected = swiglu_definition(xs);
  expect_close(y, expected.detach(), "y");
  const Tensor dy = draw({rows, width}, kDtype<Storage>);
  const Tensor dx = unwritten({rows, 2 * width}, kDtype<Storage>);
  run(&swiglu_backward<Storage, kWidth>, 3, kRowBlockThreads,
      SwigluBackward{rows, width, x.stride(0), dy.stride(0), x.data_ptr(), dy.data_ptr(),
                     dx.data_ptr()});
  expect_close(dx, gradients(expected, {xs}, dy)[0], "dx");
}

TEST(FusedOnFibers, Swiglu) {
  torch::manual_seed(2);
  expect_swiglu<float, 4>(7, 200);
  expect_swiglu<BFloat16, 8>(5, 2048);
  expect_swiglu<BFloat16, 1>(9, 33);
}

template <class Storage, class P, int kWidth, int kTaps, bool kReset = false>
void expect_convolution(int64_t batch, int64_t steps, int width, int64_t piece_steps,
                        Draw draw = half_of_wider) {
  SCOPED_TRACE(testing::Message() << batch << " x " << steps << " x " << width << ", taps " << kTaps
                                  << (kReset ? ", reset" : ""));
  const ConvolutionExtent extent{batch, steps, width, piece_steps,
                                 (steps + piece_steps - 1) / piece_steps};
  const int blocks = int(extent.blocks_of_pieces()) * extent.groups_of_channels(kWidth);
  const Tensor x = draw({batch, steps, width}, kDtype<Storage>);
  const Tensor taps = torch::randn({kTaps, width}).to(kDtype<P>);
  const Tensor before = torch::randn({batch, kTaps - 1, width}).to(kDtype<Storage>);
  const Tensor reset = kReset ? torch::rand({batch, steps}) < 0.2 : Tensor();
  const auto* bytes =
      kReset ? reinterpret_cast<const unsigned char*>(reset.data_ptr<bool>()) : nullptr;
  const Tensor bias = torch::randn({width}).to(kDtype<P>);
  const Tensor dy = draw({batch, steps, width}, kDtype<Storage>);
  // Alone, and with bias and silu.
  for (const bool silu : {false, true}) {
    SCOPED_TRACE(silu ? "silu" : "sum");
    const Tensor y = unwritten({batch, steps, width}, kDtype<Storage>);
    run(silu ? &convolution_forward<Storage, P, kWidth, kTaps, kReset, ConvolutionEnd::kSilu>
             : &convolution_forward<Storage, P, kWidth, kTaps, kReset>,
        blocks, kConvolutionThreads,
        ConvolutionForward{extent, x.stride(0), x.stride(1), x.data_ptr(), taps.data_ptr(),
                           before.data_ptr(), bytes, y.data_ptr(), bias.data_ptr()});
    const Tensor xs = leaf(x), weights = leaf(taps), earlier = leaf(before), biases = leaf(bias);
    const Tensor expected =
        causal_convolution_definition(xs, weights, earlier, reset, silu ? biases : Tensor());
    expect_close(y, expected.detach(), "y");

    const Tensor both = unwritten({batch, steps, 2 * width}, kDtype<Storage>);
    const Tensor dx = both.narrow(2, width, width);
    const Tensor dbefore = unwritten({batch, kTaps - 1, width}, kDtype<Storage>);
    const Tensor sums =
        unwritten({extent.blocks_of_pieces(), silu ? kTaps + 1 : kTaps, width}, torch::kFloat);
    run(silu ? &convolution_silu_backward<Storage, P, kWidth, kTaps, kReset>
             : &convolution_backward<Storage, P, kWidth, kTaps, kReset>,
        blocks, kConvolutionThreads,
        ConvolutionBackward{extent, x.stride(0), x.stride(1), dy.stride(0), dy.stride(1),
                            x.data_ptr(), taps.data_ptr(), before.data_ptr(), dy.data_ptr(), bytes,
                            dx.stride(0), dx.stride(1), dx.data_ptr(), dbefore.data_ptr(),
                            sums.data_ptr<float>(), bias.data_ptr()});
    std::vector<Tensor> of{xs, weights, earlier};
    if (silu) of.push_back(biases);
    const auto right = gradients(expected, of, dy);
    expect_close(dx, right[0], "dx");
    EXPECT_TRUE(both.narrow(2, 0, width).isnan().all().item<bool>());
    expect_close(sums.sum(0).narrow(0, 0, kTaps), right[1], "dtaps");
    if (kTaps > 1) expect_close(dbefore, right[2], "dbefore");
    if (silu) expect_close(sums.sum(0)[kTaps], right[3], "dbias");
  }
}

TEST(FusedOnFibers, Convolution) {
  torch::manual_seed(3);
  // Pieces that fill no block, and channels that fill no warp; a row shorter than the taps.
  expect_convolution<float, float, 4, 4>(2, 150, 12, 31);
  expect_convolution<float, float, 4, 4, true>(2, 150, 12, 31);
  expect_convolution<BFloat16, BFloat16, 8, 4>(3, 2, 64, 16);
  expect_convolution<BFloat16, float, 8, 4, true>(1, 70, 520, 17);
  expect_convolution<BFloat16, float, 8, 3, true>(2, 65, 40, 65);
  expect_convolution<float, float, 1, 1>(1, 64, 5, 16);
  expect_convolution<BFloat16, float, 1, 2, true>(2, 21, 5, 16);
  expect_convolution<float, BFloat16, 2, 7>(2, 5, 6, 16);
  expect_convolution<float, BFloat16, 2, 7, true>(2, 25, 6, 16);
}

TEST(FusedOnFibers, ConvolutionOfAnySizes) {
  torch::manual_seed(8);
  const auto up_to = [](int64_t most) { return torch::randint(1, most + 1, {}).item<int64_t>(); };
  static_for<8>([&](auto k) {
    for (int i = 0; i < 4; ++i) {
      // Also of one step, and pieces shorter than the taps.
      expect_convolution<float, float, 2, k + 1, true>(up_to(3), up_to(60), 2 * int(up_to(40)),
                                                       up_to(i % 2 ? 5 : 40));
    }
  });
}

template <class From, class To, int kWidth, int kWarps>
void expect_row_sum(int64_t rows, int64_t heads, int width, int64_t piece_rows) {
  // As the gradient of a block-diagonal product lies: head by head.
  const Tensor x = torch::randn({heads, rows, width}).to(kDtype<From>).transpose(0, 1);
  RowSum problem{.rows = rows,
                 .piece_rows = piece_rows,
                 .heads = heads,
                 .width = width,
                 .row_stride = x.stride(0),
                 .head_stride = x.stride(1),
                 .x = x.data_ptr(),
                 .y = nullptr};
  const Tensor y = unwritten({problem.pieces(), heads, width}, kDtype<To>);
  problem.y = y.data_ptr();
  run(&sum_rows<From, To, kWidth, kWarps>, int(problem.pieces() * heads) * problem.groups(kWidth),
      kWarps * 32, problem);
  expect_close(y.to(torch::kDouble).sum(0).to(kDtype<To>), x.to(torch::kDouble).sum(0), "sum");
}

TEST(FusedOnFibers, RowSum) {
  torch::manual_seed(4);
  expect_row_sum<float, float, 1, 4>(70, 2, 45, 70);
  expect_row_sum<float, BFloat16, 1, 32>(5, 1, 33, 5);
  expect_row_sum<BFloat16, float, 8, 8>(150, 3, 576, 40);
  expect_row_sum<cuda::Float16, float, 2, 8>(20, 1, 6, 7);
}

template <class Storage, int kWidth, int kPairs>
void expect_rotary(int64_t batch, int64_t steps, int64_t heads, int64_t pairs, int64_t from) {
  SCOPED_TRACE(testing::Message() << pairs << " pairs from position " << from);
  const int64_t channels = 2 * pairs;
  const Tensor product =
      torch::randn({batch, steps, (2 * heads + 1) * channels}).to(kDtype<Storage>);
  const Tensor q = product.narrow(2, 0, heads * channels).view({batch, steps, heads, channels});
  const Tensor k =
      product.narrow(2, 2 * heads * channels, channels).view({batch, steps, 1, channels});
  const Tensor start = torch::arange(batch) * 3 + from;
  const Tensor positions =
      positions_of(steps, torch::kCPU, start, torch::rand({batch, steps}) < 0.1);
  const double base = 10000;
  const Tensor v = product.narrow(2, heads * channels, channels).view(k.sizes());
  const auto rotate = [&](int direction, const Tensor& a, const Tensor& b, const Tensor& c,
                          const Tensor& to_a, const Tensor& to_b, const Tensor& to_c) {
    const auto place = [](const Tensor& x) {
      return RotaryPlace{x.stride(0), x.stride(1), x.stride(2), x.data_ptr()};
    };
    const auto of = [&](const Tensor& x, const Tensor& y) {
      return RotaryTensor{int(x.size(2)), place(x), place(y)};
    };
    Rotary problem{.batch = batch,
                   .steps = steps,
                   .pairs = int(pairs),
                   .direction = direction,
                   .position_batch_stride = positions.stride(0),
                   .position_step_stride = positions.stride(1),
                   .positions = reinterpret_cast<const long long*>(positions.data_ptr<int64_t>()),
                   .tensors = {of(a, to_a), of(b, to_b), of(c, to_c)},
                   .turns = {}};
    set_turns(problem.turns, problem.pairs, base);
    const int64_t tokens = std::max<int64_t>(1, kRotaryThreads / kPairs);
    run(&rotate_pairs<Storage, kWidth, kPairs>, int((batch * steps + tokens - 1) / tokens),
        kRotaryThreads, problem);
  };
  const auto empty_like = [](const Tensor& x) { return unwritten(x.sizes(), kDtype<Storage>); };
  const Tensor rotated_q = empty_like(q), rotated_k = empty_like(k), same_v = empty_like(v);
  rotate(1, q, k, v, rotated_q, rotated_k, same_v);
  EXPECT_TRUE(torch::equal(same_v, v));
  const auto [exact_q, exact_k] =
      rotary_definition(q.to(torch::kDouble), k.to(torch::kDouble), positions, base);
  const double tolerance = kSame<Storage, float> ? 1e-6 : 1e-2;
  const auto expect_near = [&](const Tensor& got, const Tensor& exact, const char* what) {
    EXPECT_LE((got.to(torch::kDouble) - exact).abs().max().item<double>(),
              tolerance * exact.abs().max().item<double>())
        << what;
  };
  expect_near(rotated_q, exact_q, "queries");
  expect_near(rotated_k, exact_k, "keys");
  // Back in their place.
  const Tensor before = product.clone();
  q.copy_(rotated_q);
  k.copy_(rotated_k);
  rotate(-1, q, k, v, q, k, v);
  expect_near(product, before.to(torch::kDouble), "turned back");
}

TEST(FusedOnFibers, Rotary) {
  torch::manual_seed(4);
  for (const int64_t from : std::vector<int64_t>{0, 1'000'000, 4'000'000'000}) {
    expect_rotary<float, 4, 32>(2, 7, 3, 32, from);
    expect_rotary<BFloat16, 8, 64>(1, 5, 2, 40, from);
    expect_rotary<float, 1, 4>(2, 3, 2, 3, from);
    expect_rotary<cuda::Float16, 4, 256>(1, 2, 1, 140, from);
  }
}

TEST(FusedOnFibers, RowsFartherApartThan32BitsCount) {
  torch::manual_seed(6);
  expect_norm<BFloat16, BFloat16, float, 4, 1, 32, true, NormGate::kNone>(3, 100, far_apart);
  expect_norm<BFloat16, BFloat16, float, 4, 1, 32, false, NormGate::kAfter>(3, 100, far_apart);
  expect_residual<BFloat16, BFloat16, float, 4, 1, 32>(3, 100, far_apart);
  expect_swiglu<BFloat16, 4>(3, 100, far_apart);
  expect_convolution<BFloat16, float, 4, 4>(2, 3, 100, 16, far_apart);
}

/// Rows of random logits as the kernel takes them, with `space` behind each.
template <class Storage>
Tensor random_logits(int64_t rows, int64_t width) {
  const int64_t stride = logits_stride(width);
  return (3 * torch::randn({rows, stride}) + 1).to(kDtype<Storage>).narrow(1, 0, width);
}

/// Runs cross_entropy_rows on the logits: (cross-entropies, squared log-partitions).
template <class Storage, int kThreads, int kPacks, bool kGradient>
Tensor run_cross_entropy(const Tensor& logits, const Tensor& targets, double z_loss) {
  const Tensor losses = unwritten({2, logits.size(0)}, torch::kFloat);
  run(&cross_entropy_rows<Storage, kThreads, kPacks, kGradient>, int(logits.size(0)), kThreads,
      CrossEntropyRows{.width = int(logits.size(1)),
                       .z_loss = float(z_loss),
                       .stride = logits.stride(0),
                       .logits = logits.data_ptr(),
                       .targets = reinterpret_cast<const long long*>(targets.data_ptr<int64_t>()),
                       .cross_entropies = losses[0].data_ptr<float>(),
                       .squared_log_partitions = losses[1].data_ptr<float>()});
  return losses;
}

template <class Storage, int kThreads, int kPacks>
void expect_cross_entropy(int64_t rows, int64_t width, double z_loss) {
  SCOPED_TRACE(testing::Message() << rows << " rows of " << width << ", " << kThreads
                                  << " threads, " << kPacks << " packs, z-loss " << z_loss);
  const Tensor logits = random_logits<Storage>(rows, width);
  const Tensor targets = torch::randint(width, {rows}, torch::kLong);
  targets[0] = width - 1;
  const Tensor x = leaf(logits);
  const Tensor partitions = x.logsumexp(1);
  const Tensor expected = torch::stack(
      {partitions - x.gather(1, targets.unsqueeze(1)).squeeze(1), partitions.square()});

  const Tensor before = logits.clone();
  const Tensor alone = run_cross_entropy<Storage, kThreads, kPacks, false>(logits, targets, z_loss);
  expect_close(alone, expected.detach(), "losses");
  EXPECT_TRUE(torch::equal(logits, before));

  const Tensor losses = run_cross_entropy<Storage, kThreads, kPacks, true>(logits, targets, z_loss);
  EXPECT_TRUE(torch::equal(losses, alone));
  const Tensor dx =
      gradients(expected, {x},
                torch::tensor({1.0, z_loss}, torch::kDouble).unsqueeze(1).expand_as(expected))[0];
  expect_close(logits.contiguous(), dx, "gradient");
}

TEST(FusedOnFibers, CrossEntropy) {
  torch::manual_seed(4);
  // Rows held whole, rows that leave threads without, and rows of which a part is read again; with
  // a last pack that is whole or cut.
  expect_cross_entropy<float, 64, 1>(3, 1, 0.1);
  expect_cross_entropy<float, 64, 2>(4, 257, 0);
  expect_cross_entropy<float, 128, 1>(3, 1000, 0.1);
  expect_cross_entropy<BFloat16, 64, 1>(4, 257, 0.1);
  expect_cross_entropy<BFloat16, 64, 1>(3, 4093, 0.1);
  expect_cross_entropy<BFloat16, 512, 2>(2, 8192, 0);
  expect_cross_entropy<BFloat16, 512, 2>(2, 20011, 0.1);
  expect_cross_entropy<cuda::Float16, 128, 3>(2, 3000, 0.1);
}

TEST(FusedOnFibers, CrossEntropyOfWhatIsNoNumber) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  const auto run_row = [](const Tensor& logits, int64_t target) {
    const Tensor targets = torch::tensor({target}, torch::kLong);
    return run_cross_entropy<float, 64, 1, true>(logits, targets, 0)[0].item<float>();
  };
  for (const float bad : {kInfinity, std::numeric_limits<float>::quiet_NaN()}) {
    const Tensor logits = random_logits<float>(1, 300);
    logits[0][200] = bad;
    EXPECT_TRUE(std::isnan(run_row(logits, 5)));
    EXPECT_TRUE(logits.isnan().all().item<bool>());
  }
  for (const int64_t target : {-1, 300, 303, 1 << 30}) {
    const Tensor logits = random_logits<float>(1, 300);
    EXPECT_TRUE(std::isnan(run_row(logits, target)));
    EXPECT_TRUE(logits.isnan().all().item<bool>());
  }
  // -∞ is the logit of what cannot be; and no size is too large.
  const Tensor logits = torch::full({1, 300}, -kInfinity);
  logits[0][7] = -2e30;
  logits[0][250] = 1e30;
  EXPECT_EQ(run_row(logits.clone(), 250), 0);
  EXPECT_FLOAT_EQ(run_row(logits.clone(), 7), 3e30f);
  EXPECT_EQ(run_row(logits, 8), kInfinity);
  EXPECT_EQ(logits.abs().sum().item<float>(), 2);
}

template <class Storage, int kWidth>
void expect_scaled(int64_t count) {
  const Tensor gradient = torch::randn(count).to(kDtype<Storage>), before = gradient.clone();
  const auto scale = [&](float factor) {
    run(&scale_gradient<Storage, kWidth>, 3, kRowBlockThreads,
        GradientScaling{count, &factor, gradient.data_ptr()});
  };
  scale(1);
  EXPECT_TRUE(torch::equal(gradient, before));
  scale(0.25);
  EXPECT_TRUE(torch::equal(gradient, before * 0.25));
}

TEST(FusedOnFibers, ScaledGradient) {
  torch::manual_seed(5);
  expect_scaled<float, 4>(4000);
  expect_scaled<float, 1>(5);
  expect_scaled<BFloat16, 8>(800);
  expect_scaled<cuda::Float16, 2>(1234);
}

/// Tensors of these sizes, of which each launch has all; the others are not there.
template <class W, int kWidth>
void expect_adamw(std::initializer_list<int64_t> sizes, bool finite) {
  SCOPED_TRACE(testing::Message() << kDtype<W> << ", " << kWidth << " at once");
  const AdamWOptions options{.clip = 2};
  const double rate = 0.01, norm = 3;
  std::vector<AdamWTensors> tensors, expected;
  const AdamWScalars scalars{float(options.clip / norm), float(rate / (1 - options.beta1)),
                             float(1 / std::sqrt(1 - options.beta2)),
                             float(rate * options.weight_decay), float(finite)};
  AdamWProblem problem{.scalars = &scalars,
                       .change1 = float(1 - options.beta1),
                       .change2 = float(1 - options.beta2),
                       .epsilon = float(options.epsilon),
                       .tensors = {}};
  for (AdamWEntry& entry : problem.tensors) entry.first_block = std::numeric_limits<int>::max();
  int blocks = 0;
  for (const int64_t size : sizes) {
    const Tensor master = torch::randn(size), copy = master.clone();
    const Tensor first = torch::randn(size), second = torch::rand(size);
    const Tensor weight = kSame<W, float> ? master : master.to(kDtype<W>);
    const bool decays = tensors.size() % 2 == 0;
    tensors.push_back({weight, torch::randn(size).to(kDtype<W>), master, first, second, decays});
    expected.push_back({kSame<W, float> ? copy : weight.clone(), tensors.back().gradient, copy,
                        first.clone(), second.clone(), decays});
    problem.tensors[tensors.size() - 1] = {weight.data_ptr(),
                                           tensors.back().gradient.data_ptr(),
                                           master.data_ptr<float>(),
                                           first.data_ptr<float>(),
                                           second.data_ptr<float>(),
                                           size,
                                           blocks,
                                           decays};
    blocks += int((size + kAdamWNumbers - 1) / kAdamWNumbers);
  }
  run(&adamw_update<W, kWidth>, blocks, kAdamWThreads, problem);
  adamw_definition(expected, options, torch::tensor(rate, torch::kDouble), torch::tensor(norm),
                   torch::tensor(finite), torch::zeros({}));
  for (size_t i = 0; i < tensors.size(); ++i) {
    const auto& [weight, gradient, master, first, second, decays] = tensors[i];
    EXPECT_TRUE(torch::allclose(master, expected[i].master, 1e-5, 1e-6)) << i;
    EXPECT_TRUE(torch::allclose(first, expected[i].first_moment, 1e-5, 1e-6)) << i;
    EXPECT_TRUE(torch::allclose(second, expected[i].second_moment, 1e-5, 1e-6)) << i;
    EXPECT_TRUE(torch::equal(weight, master.to(weight.scalar_type()))) << i;
    EXPECT_TRUE(finite || torch::equal(master, expected[i].master)) << i;
  }
}

TEST(FusedOnFibers, AdamW) {
  torch::manual_seed(4);
  for (const bool finite : {true, false}) {
    expect_adamw<float, 4>({1, 8192, 3, 8191, 8193, 20'002, 768}, finite);
    expect_adamw<BFloat16, 4>({4, 9001, 8192, 5}, finite);
    expect_adamw<BFloat16, 1>({17'000, 33}, finite);
    expect_adamw<cuda::Float16, 4>({100}, finite);
  }
}

/// Rows that have drawn nothing yet.
SampleState fresh_rows(int64_t rows, int64_t remembered) {
  return {.seeds = torch::arange(rows) + 5,
          .positions = torch::zeros({rows}, torch::kLong),
          .tokens = torch::full({rows}, -7, torch::kLong),
          .drawn = torch::full({remembered, rows}, -7, torch::kInt)};
}

template <int kPacks, int kSplit>
void expect_sample(const Tensor& logits, float temperature, float top_p, int draws = 1) {
  SCOPED_TRACE(testing::Message() << kPacks << " packs, temperature " << temperature << ", top-p "
                                  << top_p);
  SampleState got = fresh_rows(logits.size(0), 2), expected = fresh_rows(logits.size(0), 2);
  for (int draw = 0; draw < draws; ++draw) {
    sample_definition(logits, temperature, top_p, expected);
    const SampleProblem problem = {
        .rows = logits.size(0),
        .vocabulary = int(logits.size(1)),
        .temperature = temperature,
        .top_p = top_p,
        .logits = logits.data_ptr<float>(),
        .seeds = reinterpret_cast<long long*>(got.seeds.data_ptr<int64_t>()),
        .positions = reinterpret_cast<long long*>(got.positions.data_ptr<int64_t>()),
        .tokens = reinterpret_cast<long long*>(got.tokens.data_ptr<int64_t>()),
        .drawn = got.drawn.data_ptr<int32_t>(),
        .remembered = got.drawn.size(0)};
    fibers::machine.run({.blocks = int(logits.size(0)) * kSplit,
                         .threads = kSampleThreads,
                         .cooperative = kSplit > 1},
                        [&] { sample_tokens<kPacks, kSplit>(problem); });
    EXPECT_TRUE(torch::equal(got.tokens, expected.tokens)) << got.tokens << expected.tokens;
    EXPECT_TRUE(torch::equal(got.drawn, expected.drawn));
    EXPECT_TRUE(torch::equal(got.positions, expected.positions));
  }
}

TEST(FusedOnFibers, Sample) {
  torch::manual_seed(4);
  const Tensor logits = 3 * torch::randn({2, 1500});
  expect_sample<2, 3>(logits, 0, 1);
  expect_sample<6, 1>(logits, 1, 1, 3);
  expect_sample<3, 2>(logits, 0.7f, 0.9f, 3);
  expect_sample<1, 2>(logits.narrow(1, 0, 70).contiguous(), 2, 1e-6f);
  // Many of one weight: those with the lowest numbers are kept.
  expect_sample<3, 2>(logits.narrow(0, 0, 1).round(), 1, 0.6f, 3);
  expect_sample<1, 1>(torch::zeros({1, 40}), 1, 0.31f, 10);
  const Tensor wrong = torch::randn({3, 40});
  wrong[0][39] = std::nan("");
  wrong[1][3] = INFINITY;
  wrong[2].fill_(-INFINITY);
  wrong[2][7] = 0;  // the only one that can come
  expect_sample<1, 1>(wrong, 1, 0.8f);
}

}  // namespace
}  // namespace pararnn::ops
