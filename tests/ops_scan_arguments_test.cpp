// What the operators refuse: each wrong argument gets one sentence that names it, of one type, and
// nothing is read or written beyond a tensor's end. The internal operators are public to Python, so
// they refuse as much.
#include <torch/autograd.h>

#include <limits>

#include "ops/scan/scan_kernels.hpp"
#include "ops_test_support.hpp"

namespace pararnn {
namespace {

using Optional = std::optional<Tensor>;

void expect(const std::string& sentence, std::initializer_list<const char*> words) {
  ASSERT_NE(sentence, "");
  EXPECT_EQ(sentence.find('\n'), std::string::npos) << sentence;
  for (const char* word : words) {
    EXPECT_NE(sentence.find(word), std::string::npos) << sentence << "\nlacks " << word;
  }
}

/// The sentence of the Error that a call ends in.
std::string refused(const std::function<void()>& call) {
  try {
    call();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

TEST(ScanArguments, WrongArgumentsAreToldByName) {
  const Arguments a = random_arguments(find_cell("gru"), 2, 5, 4, torch::kFloat32, 24);
  const auto told = [&](const Tensor& u, const Tensor& w, const Optional& h0,
                        const std::string& cell, const ScanOptions& options = {}) {
    return sentence_of([&] { scan(u, w, h0, cell, options); });
  };
  expect(told(a.u, a.w, a.h0, "grue"), {"'grue'", "gru", "lstm"});
  expect(told(a.u, a.w, a.h0, "lstm"), {"u", "(2,5,3,4)", "U = 4"});
  expect(told(a.u[0], a.w, a.h0, "gru"), {"u", "(5,3,4)", "(B,T,U,D)"});
  expect(told(a.u, a.w.slice(1, 0, 3), a.h0, "gru"), {"w", "(3,3)", "(3,4)"});
  expect(told(a.u, a.w, a.h0.slice(0, 0, 1), "gru"), {"h0", "(1,1,4)", "(2,1,4)"});
  expect(told(a.u.to(torch::kInt), a.w, a.h0, "gru"), {"u", "Int", "float32"});
  expect(told(a.u, a.w.to(torch::kLong), a.h0, "gru"), {"w", "Long"});
  expect(told(a.u, a.w, a.h0.to(torch::kBool), "gru"), {"h0", "Bool"});
  expect(told(a.u, a.w.to(torch::kMeta), a.h0, "gru"), {"w", "meta", "cpu"});
  expect(sentence_of([&] { step(a.u[0][0], a.w, a.h0, "gru"); }), {"step", "u", "(3,4)"});
  const Tensor w = a.w.detach().requires_grad_();
  expect(sentence_of([&] {
           const auto [y, hT] = scan(a.u, w, a.h0, "gru");
           torch::autograd::grad({y.sum()}, {w}, {}, true, /*create_graph=*/true);
         }),
         {"second derivative"});
}

TEST(ScanArguments, EveryOptionIsChecked) {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  const Arguments a = random_arguments(find_cell("gru"), 2, 50, 4, torch::kFloat32, 25);
  const Tensor empty = a.u.narrow(1, 0, 0), checkpoints = torch::zeros({2, 4, 1, 4}),
               dy = torch::zeros({2, 50, 4}), dhT = torch::zeros({2, 1, 4});
  struct Case {
    ScanOptions options;
    std::initializer_list<const char*> words;
  };
  const Case cases[] = {
      {{"fast"}, {"'fast'", "auto, planner, sequential, speculative, newton"}},
      {{""}, {"''", "newton"}},
      {{"newton", -3}, {"chunk is -3", "0 for"}},
      {{"sequential", -3}, {"chunk is -3"}},
      {{"newton", 16, -2}, {"burn_in is -2", "-1 for"}},
      {{"newton", 16, std::numeric_limits<int64_t>::min()}, {"burn_in is -9223372036854775808"}},
      {{"newton", 16, 16, kInfinity}, {"tolerance is inf", "up to 0.1", "0 for"}},
      {{"newton", 16, 16, 0.2}, {"tolerance is 0.2"}},
      {{"newton", 16, 16, NAN}, {"tolerance is nan"}},
      {{"newton", 16, 16, -1e-6}, {"tolerance is -1e-06"}},
  };
  const auto meta = [](const Tensor& t) { return t.to(torch::kMeta); };
  for (const auto& [options, words] : cases) {
    expect(refused([&] { scan(a.u, a.w, a.h0, "gru", options); }), words);
    expect(refused([&] { scan(empty, a.w, a.h0, "gru", options); }), words);
    expect(refused([&] { scan(meta(a.u), meta(a.w), meta(a.h0), "gru", options); }), words);
    expect(refused([&] { call_scan_forward(a.u, a.w, a.h0, "gru", options, 16); }), words);
    expect(refused([&] { call_scan_backward(a.u, a.w, checkpoints, dy, dhT, "gru", options); }),
           words);
    expect(refused([&] {
             call_scan_backward(meta(a.u), meta(a.w), meta(checkpoints), meta(dy), meta(dhT), "gru",
                                options);
           }),
           words);
  }
}

TEST(ScanArguments, LengthsMayBeLongerThanTheSequence) {
  constexpr int64_t kLongest = std::numeric_limits<int64_t>::max();
  const CellDefinition& cell = find_cell("gru");
  const Arguments a = random_arguments(cell, 2, 200, 4, torch::kFloat64, 26);
  const Tensor dy = torch::randn({2, 200, 4}, torch::kFloat64), dhT = torch::randn_like(a.h0);
  const Results expected = reference(cell, a, dy, dhT);
  for (const char* plan : kPlans) {
    for (const auto& [chunk, burn_in] : {std::pair<int64_t, int64_t>{kLongest, -1},
                                         {kLongest - 20, kLongest},
                                         {48, kLongest},
                                         {48, kLongest - 20}}) {
      expect_close(run(cell, a, dy, dhT, {plan, chunk, burn_in}), expected, 1e-11);
    }
  }
}

TEST(ScanArguments, MoreNumbersThanMemoryHoldsAreRefused) {
  constexpr int64_t kMany = int64_t{1} << 30;
  const Tensor w = torch::zeros({3, 1});
  const auto told = [&](std::initializer_list<int64_t> shape) {
    const Tensor u = torch::zeros({1}).expand(torch::IntArrayRef(shape));
    return refused([&] { scan(u, w, std::nullopt, "gru"); });
  };
  expect(told({1, 1, kMany, 3, kMany}), {"u has shape (1,1,1073741824,3,1073741824)", "memory"});
  expect(told({kMany, kMany, 1, 3, 1}), {"u has shape", "memory"});
  expect(told({1 << 20, 1 << 20, 1, 3, 1 << 20}), {"u has shape", "memory"});
  expect(refused([&] {
           scan(torch::zeros({0, kMany, 3, kMany}), w, std::nullopt, "gru");
         }),
         {"u has shape", "memory"});
}

TEST(ScanArguments, TheForwardOperatorRefusesWhatItCannotRead) {
  const Arguments a = random_arguments(find_cell("lstm"), 2, 50, 4, torch::kFloat64, 27);
  const auto told = [&](const Tensor& u, const Tensor& w, const Optional& h0, int64_t interval) {
    return refused([&] { call_scan_forward(u, w, h0, "lstm", {}, interval); });
  };
  for (const int64_t interval :
       {int64_t{-1}, int64_t{1}, int64_t{8}, int64_t{1000}, std::numeric_limits<int64_t>::max()}) {
    expect(told(a.u, a.w, a.h0, interval), {"checkpoint_interval is", "16"});
  }
  expect(told(a.u, a.w.slice(1, 0, 3), a.h0, 0), {"w has shape"});
  expect(told(a.u, a.w, a.h0.slice(1, 0, 1), 0), {"h0 has shape (2,1,4)", "(2,2,4)"});
  expect(refused([&] { scan(a.u.to_sparse(), a.w, a.h0, "lstm"); }), {"u is sparse"});
  // Other dtypes and strides of w and h0 are converted.
  const auto scattered = [](const Tensor& t) {
    return t.transpose(0, 1).contiguous().transpose(0, 1);
  };
  const Tensor y = std::get<0>(call_scan_forward(a.u, a.w, a.h0, "lstm", {}, 0));
  EXPECT_TRUE(torch::equal(
      std::get<0>(call_scan_forward(a.u, scattered(a.w), scattered(a.h0), "lstm", {}, 0)), y));
  const Tensor w = a.w.to(torch::kBFloat16), h0 = a.h0.to(torch::kFloat32);
  const auto [y1, hT, checkpoints, remembers] = call_scan_forward(a.u, w, h0, "lstm", {}, 16);
  EXPECT_TRUE(
      torch::equal(y1, std::get<0>(call_scan_forward(a.u, w.to(torch::kFloat64),
                                                     h0.to(torch::kFloat64), "lstm", {}, 0))));
  EXPECT_EQ(hT.scalar_type(), torch::kFloat64);
  EXPECT_EQ(checkpoints.scalar_type(), torch::kFloat64);
}

TEST(ScanArguments, TheBackwardOperatorRefusesWhatItCannotRead) {
  const Arguments a = random_arguments(find_cell("lstm"), 2, 50, 4, torch::kBFloat16, 28);
  const Tensor checkpoints = std::get<2>(call_scan_forward(a.u, a.w, a.h0, "lstm", {}, 16));
  const Tensor dy = torch::randn({2, 50, 4}, torch::kBFloat16), dhT = torch::randn({2, 2, 4});
  const auto [du, dw, dh0] = call_scan_backward(a.u, a.w, checkpoints, dy, dhT, "lstm", {});
  for (const bool on_meta : {false, true}) {
    const auto told = [&](const Tensor& kept, const Tensor& dy_, const Tensor& dhT_) {
      const auto place = [&](const Tensor& t) { return on_meta ? t.to(torch::kMeta) : t; };
      return refused([&] {
        call_scan_backward(place(a.u), place(a.w), place(kept), place(dy_), place(dhT_), "lstm",
                           {});
      });
    };
    expect(told(checkpoints.slice(1, 0, 1), dy, dhT), {"checkpoints has shape (2,1,2,4)"});
    expect(told(checkpoints.slice(3, 0, 1), dy, dhT), {"checkpoints has shape", "(2,4,2,4)"});
    expect(told(checkpoints[0], dy, dhT), {"checkpoints has shape"});
    expect(told(torch::empty({0}), dy, dhT), {"checkpoints has shape (0)"});
    expect(told(checkpoints.to(torch::kBFloat16), dy, dhT), {"checkpoints", "BFloat16", "Float"});
    expect(told(checkpoints.to(torch::kInt), dy, dhT), {"checkpoints", "Int"});
    expect(told(checkpoints, dy.slice(1, 0, 49), dhT), {"dy has shape (2,49,4)", "(2,50,4)"});
    expect(told(checkpoints, dy[0], dhT), {"dy has shape (50,4)"});
    expect(told(checkpoints, dy.to(torch::kFloat32), dhT), {"dy has dtype Float", "BFloat16"});
    expect(told(checkpoints, dy, dhT.slice(2, 0, 3)), {"dhT has shape (2,2,3)", "(2,2,4)"});
    expect(told(checkpoints, dy, dhT.to(torch::kBool)), {"dhT has dtype Bool"});
  }
  expect(refused([&] {
           call_scan_backward(a.u, a.w, checkpoints.to(torch::kMeta), dy, dhT, "lstm", {});
         }),
         {"checkpoints is on meta", "cpu"});
  // Any strides, and another dtype of dhT and w, are read as they are.
  const auto scattered = [](const Tensor& t) {
    return t.transpose(0, 1).contiguous().transpose(0, 1);
  };
  const auto [du1, dw1, dh1] =
      call_scan_backward(a.u, scattered(a.w), scattered(checkpoints), scattered(dy),
                         dhT.to(torch::kFloat64), "lstm", {});
  EXPECT_TRUE(torch::equal(du1, du));
  EXPECT_TRUE(torch::equal(dw1, dw));
  EXPECT_TRUE(torch::equal(dh1, dh0));
}

TEST(ScanArguments, WeightsOfEveryDtypeAreConverted) {
  const CellDefinition& cell = find_cell("gru");
  Arguments a = random_arguments(cell, 2, 50, 4, torch::kBFloat16, 29);
  a.w = a.w.to(torch::kBFloat16);
  const Tensor dy = torch::randn({2, 50, 4}, torch::kBFloat16), dhT = torch::randn_like(a.h0);
  const Results half = run(cell, a, dy, dhT);
  const Results single = run(cell, {a.u, a.w.to(torch::kFloat32), a.h0}, dy, dhT);
  EXPECT_EQ(half.dw.scalar_type(), torch::kBFloat16);
  EXPECT_TRUE(torch::equal(half.y, single.y));
  EXPECT_TRUE(torch::equal(half.dw, single.dw.to(torch::kBFloat16)));
}

TEST(ScanArguments, TheInternalOperatorsCarryNoTangents) {
  const Arguments a = random_arguments(find_cell("gru"), 2, 20, 4, torch::kFloat64, 30);
  const Tensor checkpoints = std::get<2>(call_scan_forward(a.u, a.w, a.h0, "gru", {}, 16));
  const Tensor dy = torch::randn({2, 20, 4}, torch::kFloat64), dhT = torch::randn_like(a.h0);
  const uint64_t level = torch::autograd::forward_ad::enter_dual_level();
  {
    const auto dual = [&](const Tensor& t) {
      return at::_make_dual(t, torch::ones_like(t), static_cast<int64_t>(level));
    };
    for (const bool grad : {false, true}) {
      const torch::AutoGradMode mode(grad);
      EXPECT_ANY_THROW(call_scan_forward(dual(a.u), a.w, a.h0, "gru", {}, 0));
      EXPECT_ANY_THROW(call_scan_backward(a.u, a.w, checkpoints, dual(dy), dhT, "gru", {}));
    }
  }
  torch::autograd::forward_ad::exit_dual_level(level);
  EXPECT_NO_THROW(scan(a.u, a.w, a.h0, "gru"));
}

}  // namespace
}  // namespace pararnn
