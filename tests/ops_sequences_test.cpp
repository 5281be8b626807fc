// Sequences packed in one row, and flags that reset the state, by the operators on each device:
// each sequence is as if it were alone. Skipped on a GPU without one.
#include <ATen/cuda/CUDAContext.h>
#include <ATen/cuda/CUDAGraph.h>
#include <c10/cuda/CUDAGuard.h>
#include <torch/cuda.h>

#include <numeric>
#include <random>

#include "ops_test_support.hpp"

namespace pararnn {
namespace {

class OpsSequencesCuda : public testing::Test {
 protected:
  void SetUp() override {
    if (!torch::cuda::is_available()) GTEST_SKIP() << "there is no GPU";
  }
};

constexpr int64_t kLengths[] = {0, 1, 40, 0, 0, 7, 130, 1, 1, 64, 16, 300, 0};

Tensor offsets_of(const std::vector<int64_t>& lengths) {
  std::vector<int> offsets = {0};
  for (const int64_t length : lengths) offsets.push_back(offsets.back() + int(length));
  return torch::tensor(offsets, torch::kInt);
}

/// Arguments of one row, with states for each of its sequences.
struct PackedArguments {
  Arguments arguments;
  Tensor dy, dhT, cu_seqlens;
  std::vector<int64_t> lengths;
};

PackedArguments packed_arguments(const CellDefinition& cell, std::vector<int64_t> lengths,
                                 int64_t D, torch::ScalarType type, uint64_t seed) {
  const int64_t T = std::accumulate(lengths.begin(), lengths.end(), int64_t{0});
  PackedArguments p;
  p.arguments = random_arguments(cell, 1, T, D, type, seed);
  p.dy = torch::randn({1, T, D}).to(type);
  const auto arithmetic = p.arguments.w.scalar_type();
  const int64_t N = std::ssize(lengths);
  p.arguments.h0 = 0.1 + torch::rand({N, cell.state, D}, arithmetic);
  p.dhT = torch::randn({N, cell.state, D}, arithmetic);
  p.cu_seqlens = offsets_of(lengths);
  p.lengths = std::move(lengths);
  return p;
}

Results run_on(const torch::Device& device, const CellDefinition& cell, const Arguments& a,
               const Tensor& dy, const Tensor& dhT, const ScanOptions& options,
               const ScanSequences& sequences = {}) {
  const auto leaf = [&](const Tensor& t) { return t.detach().to(device).requires_grad_(); };
  const auto there = [&](const std::optional<Tensor>& t) {
    return t ? std::make_optional(t->to(device)) : std::nullopt;
  };
  const Tensor u = leaf(a.u), w = leaf(a.w), h0 = leaf(a.h0);
  const auto [y, hT] =
      scan(u, w, h0, cell.key(), options, {there(sequences.cu_seqlens), there(sequences.reset)});
  const auto g = torch::autograd::grad({y, hT}, {u, w, h0}, {dy.to(device), dhT.to(device)});
  return {y.detach().cpu(), hT.detach().cpu(), g[0].cpu(), g[1].cpu(), g[2].cpu()};
}

/// Each sequence by itself.
Results run_separately(const torch::Device& device, const CellDefinition& cell,
                       const PackedArguments& p, const ScanOptions& options) {
  std::vector<Tensor> y, hT, du, dh0;
  Tensor dw = torch::zeros_like(p.arguments.w);
  int64_t begin = 0;
  for (int64_t n = 0; n < std::ssize(p.lengths); begin += p.lengths[n++]) {
    const auto steps = [&](const Tensor& t) { return t.narrow(1, begin, p.lengths[n]); };
    const auto state = [&](const Tensor& t) { return t.narrow(0, n, 1); };
    const Results r =
        run_on(device, cell, {steps(p.arguments.u), p.arguments.w, state(p.arguments.h0)},
               steps(p.dy), state(p.dhT), options);
    y.push_back(r.y), hT.push_back(r.hT), du.push_back(r.du), dh0.push_back(r.dh0);
    dw += r.dw;
  }
  return {torch::cat(y, 1), torch::cat(hT), torch::cat(du, 1), dw, torch::cat(dh0)};
}

void packed_equals_separate(const torch::Device& device) {
  uint64_t seed = 0;
  for (const CellDefinition& cell : built_in_cells()) {
    for (const int64_t D : {1, 33, 64}) {
      for (const auto type : {torch::kFloat32, torch::kFloat64}) {
        // A GPU's kernels of doubles take seconds to compile, and are tested on the host.
        if (device.is_cuda() && type == torch::kFloat64 && cell.name != "gru") continue;
        const auto p =
            packed_arguments(cell, {std::begin(kLengths), std::end(kLengths)}, D, type, ++seed);
        const Results expected = run_separately(device, cell, p, {"sequential"});
        for (const char* plan : kPlans) {
          SCOPED_TRACE(fmt::format("{} D{} {}", cell.name, D, plan));
          const Results got = run_on(device, cell, p.arguments, p.dy, p.dhT,
                                     {plan, plan == kPlans[0] ? 0 : 48}, {p.cu_seqlens, {}});
          expect_close(got, expected, type == torch::kFloat64 ? 1e-10 : 5e-5);
        }
      }
    }
  }
}

TEST(OpsSequences, PackedEqualsSeparate) { packed_equals_separate(torch::kCPU); }
TEST_F(OpsSequencesCuda, PackedEqualsSeparate) { packed_equals_separate(torch::kCUDA); }

void halves_are_the_rounding_of_singles(const torch::Device& device) {
  for (const char* name : {"gru", "lstm"}) {
    const CellDefinition& cell = find_cell(name);
    for (const int64_t D : {33, 34}) {
      for (const char* plan : {"sequential", "speculative", "newton"}) {
        auto p = packed_arguments(cell, {std::begin(kLengths), std::end(kLengths)}, D,
                                  torch::kBFloat16, 3);
        const ScanOptions options{plan, 64, 32};
        const Results half =
            run_on(device, cell, p.arguments, p.dy, p.dhT, options, {p.cu_seqlens, {}});
        p.arguments.u = p.arguments.u.to(torch::kFloat32);
        const Results single = run_on(device, cell, p.arguments, p.dy.to(torch::kFloat32), p.dhT,
                                      options, {p.cu_seqlens, {}});
        SCOPED_TRACE(fmt::format("{} D{} {}", name, D, plan));
        expect_close(half, single, 1.0 / 256);
      }
    }
  }
}

TEST(OpsSequences, HalvesAreTheRoundingOfSingles) {
  halves_are_the_rounding_of_singles(torch::kCPU);
}
TEST_F(OpsSequencesCuda, HalvesAreTheRoundingOfSingles) {
  halves_are_the_rounding_of_singles(torch::kCUDA);
}

void resets_begin_with_zero(const torch::Device& device) {
  for (const CellDefinition& cell : built_in_cells()) {
    const int64_t B = 3, T = 210, D = 21;
    const Arguments a = random_arguments(cell, B, T, D, torch::kFloat64, 5);
    const Tensor dy = torch::randn({B, T, D}, torch::kFloat64), dhT = torch::randn_like(a.h0);
    Tensor reset = torch::rand({B, T}) < 0.03;
    reset[1][0] = true;
    reset[1][T - 1] = true;
    // Row by row, as sequences of which the first alone has an initial state.
    std::vector<Tensor> y, hT, du, dh0;
    Tensor dw = torch::zeros_like(a.w);
    for (int64_t b = 0; b < B; ++b) {
      std::vector<int64_t> lengths = {0};
      for (int64_t t = 0; t < T; ++t) {
        if (reset[b][t].item<bool>()) lengths.push_back(0);
        ++lengths.back();
      }
      const int64_t N = std::ssize(lengths);
      const auto row = [&](const Tensor& t) { return t.narrow(0, b, 1); };
      Tensor h0 = torch::zeros({N, cell.state, D}, torch::kFloat64), gh = torch::zeros_like(h0);
      h0[0] = a.h0[b];
      gh[N - 1] = dhT[b];
      const Results r = run_on(device, cell, {row(a.u), a.w, h0}, row(dy), gh, {"sequential"},
                               {offsets_of(lengths), {}});
      y.push_back(r.y), hT.push_back(r.hT.narrow(0, N - 1, 1)), du.push_back(r.du);
      dh0.push_back(r.dh0.narrow(0, 0, 1));
      dw += r.dw;
    }
    const Results expected{torch::cat(y), torch::cat(hT), torch::cat(du), dw, torch::cat(dh0)};
    for (const char* plan : kPlans) {
      SCOPED_TRACE(cell.name + " " + plan);
      expect_close(run_on(device, cell, a, dy, dhT, {plan, 32}, {{}, reset}), expected, 1e-10);
    }
  }
}

TEST(OpsSequences, ResetsBeginWithZero) { resets_begin_with_zero(torch::kCPU); }
TEST_F(OpsSequencesCuda, ResetsBeginWithZero) { resets_begin_with_zero(torch::kCUDA); }

void many_sequences(const torch::Device& device) {
  const CellDefinition& cell = find_cell("gru");
  std::mt19937 generator(1);
  std::vector<int64_t> lengths(70'000);
  for (int64_t& length : lengths) length = int64_t(generator() % 11);
  const auto p = packed_arguments(cell, lengths, 2, torch::kFloat64, 9);
  const auto data = [](const Tensor& t) { return t.data_ptr<double>(); };
  const Tensor offsets = p.cu_seqlens;
  const Arguments& a = p.arguments;
  const Sequences sequences{offsets.const_data_ptr<int>(), std::ssize(lengths), nullptr};
  const Shape shape{1, a.u.size(1), 2};
  Results expected{torch::empty_like(p.dy), torch::empty_like(a.h0), torch::empty_like(a.u),
                   torch::empty_like(a.w), torch::empty_like(a.h0)};
  const CellReference& loops = cell_reference(cell);
  loops.double_forward(shape, data(a.u), data(a.w), data(a.h0), data(expected.y), data(expected.hT),
                       nullptr, sequences);
  loops.double_backward(shape, data(a.u), data(a.w), data(a.h0), data(p.dy), data(p.dhT),
                        data(expected.du), data(expected.dw), data(expected.dh0), sequences);
  expect_close(run_on(device, cell, a, p.dy, p.dhT, {}, {offsets, {}}), expected, 1e-9);
}

TEST(OpsSequences, SeventyThousandOfThem) { many_sequences(torch::kCPU); }
TEST_F(OpsSequencesCuda, SeventyThousandOfThem) { many_sequences(torch::kCUDA); }

void not_a_number_stays(const torch::Device& device) {
  for (const CellDefinition& cell : built_in_cells()) {
    for (const char* plan : kPlans) {
      for (const double special : {double(NAN), double(INFINITY)}) {
        auto p = packed_arguments(cell, {90, 60, 0, 150}, 9, torch::kFloat64, 11);
        const Results expected =
            run_on(device, cell, p.arguments, p.dy, p.dhT, {"sequential"}, {p.cu_seqlens, {}});
        p.arguments.u[0][120] = special;
        p.dy[0][130] = special;
        const Results got =
            run_on(device, cell, p.arguments, p.dy, p.dhT, {plan, 32, 16}, {p.cu_seqlens, {}});
        SCOPED_TRACE(cell.name + " " + plan);
        for (const auto& [begin, end] : {std::pair{0, 90}, std::pair{150, 300}}) {
          expect_close(got.y.slice(1, begin, end), expected.y.slice(1, begin, end), 1e-9, "y");
          expect_close(got.du.slice(1, begin, end), expected.du.slice(1, begin, end), 1e-9, "du");
        }
        for (const int n : {0, 2, 3}) {
          expect_close(got.hT[n], expected.hT[n], 1e-9, "hT");
          expect_close(got.dh0[n], expected.dh0[n], 1e-9, "dh0");
        }
      }
    }
  }
}

TEST(OpsSequences, NotANumberStaysInItsSequence) { not_a_number_stays(torch::kCPU); }
TEST_F(OpsSequencesCuda, NotANumberStaysInItsSequence) { not_a_number_stays(torch::kCUDA); }

TEST(OpsSequences, GradientsEqualFiniteDifferences) {
  for (const CellDefinition& cell : built_in_cells()) {
    const auto p = packed_arguments(cell, {5, 0, 30, 1, 14}, 5, torch::kFloat64, 11);
    const ScanOptions options{"newton", 16};
    const ScanSequences sequences{p.cu_seqlens, {}};
    const Arguments& a = p.arguments;
    const Results g = run_on(torch::kCPU, cell, a, p.dy, p.dhT, options, sequences);
    const Arguments along{torch::randn_like(a.u), torch::randn_like(a.w), torch::randn_like(a.h0)};
    const auto value_at = [&](double x) {
      const auto [y, hT] = scan(a.u + x * along.u, a.w + x * along.w, a.h0 + x * along.h0,
                                cell.key(), options, sequences);
      return ((y * p.dy).sum() + (hT * p.dhT).sum()).item<double>();
    };
    const double x = 1e-5, difference = (value_at(x) - value_at(-x)) / (2 * x);
    const double derivative =
        ((g.du * along.u).sum() + (g.dw * along.w).sum() + (g.dh0 * along.h0).sum()).item<double>();
    EXPECT_NEAR(derivative, difference, 1e-6 * (1 + std::abs(difference))) << cell.name;
  }
}

TEST(OpsSequences, WrongOnesAreToldByName) {
  const CellDefinition& cell = find_cell("gru");
  const Arguments a = random_arguments(cell, 1, 10, 3, torch::kFloat32, 1);
  const auto sentence = [&](const ScanSequences& sequences, const Arguments& of) {
    return sentence_of([&] { scan(of.u, of.w, std::nullopt, "gru", {}, sequences); });
  };
  const auto offsets = [](std::vector<int> values) { return torch::tensor(values, torch::kInt); };
  const auto expect = [&](const ScanSequences& sequences, const std::string& words) {
    EXPECT_NE(sentence(sequences, a).find(words), std::string::npos)
        << sentence(sequences, a) << " lacks " << words;
  };
  EXPECT_EQ(sentence({offsets({0, 4, 10}), {}}, a), "");
  expect({offsets({0, 4, 9}), {}}, "cu_seqlens ends with 9, but should end with 10");
  expect({offsets({1, 4, 10}), {}}, "cu_seqlens begins with 1, but should begin with 0");
  expect({offsets({0, 7, 4, 10}), {}}, "cu_seqlens falls from 7 to 4");
  expect({torch::tensor({0L, 10L}), {}}, "cu_seqlens has dtype Long, but should be int32");
  expect({offsets({0}), {}}, "cu_seqlens has shape (1)");
  expect({offsets({0, 10}).view({1, 2}), {}}, "cu_seqlens has shape (1,2)");
  expect({{}, torch::zeros({1, 10})}, "reset has dtype Float, but should be bool");
  expect({{}, torch::zeros({1, 9}, torch::kBool)}, "reset has shape (1,9)");
  expect({offsets({0, 10}), torch::zeros({1, 10}, torch::kBool)}, "cu_seqlens and reset");
  const Arguments rows = random_arguments(cell, 2, 10, 3, torch::kFloat32, 1);
  EXPECT_NE(sentence({offsets({0, 10}), {}}, rows).find("B = 1"), std::string::npos);
}

TEST_F(OpsSequencesCuda, WrongOffsetsGiveNotANumber) {
  const CellDefinition& cell = find_cell("gru");
  const auto p = packed_arguments(cell, {50, 30, 120}, 9, torch::kFloat32, 11);
  for (const std::vector<int>& wrong :
       {std::vector<int>{0, 80, 50, 200}, {1, 50, 80, 200}, {0, 50, 80, 199}, {0, 50, 80, 300}}) {
    for (const char* plan : kPlans) {
      const Results r = run_on(torch::kCUDA, cell, p.arguments, p.dy, p.dhT, {plan, 32},
                               {torch::tensor(wrong, torch::kInt), {}});
      EXPECT_TRUE(r.y.isnan().all().item<bool>());
      EXPECT_TRUE(r.hT.isnan().all().item<bool>());
      EXPECT_TRUE(r.du.isnan().all().item<bool>());
      EXPECT_TRUE(r.dw.isnan().all().item<bool>());
      EXPECT_TRUE(r.dh0.isnan().all().item<bool>());
    }
  }
}

// The lengths are read on the device alone: a graph that was captured goes on with others.
TEST_F(OpsSequencesCuda, LengthsMayChangeInACapturedGraph) {
  const CellDefinition& cell = find_cell("lstm");
  const auto p = packed_arguments(cell, {50, 30, 120}, 34, torch::kFloat32, 12);
  const ScanOptions options{"speculative", 32, 32};
  const c10::cuda::CUDAStreamGuard guard(c10::cuda::getStreamFromPool());
  const auto there = [](const Tensor& t) { return t.to(torch::kCUDA); };
  const Tensor u = there(p.arguments.u), w = there(p.arguments.w), h0 = there(p.arguments.h0);
  const Tensor offsets = there(p.cu_seqlens);
  const auto run = [&] { return scan(u, w, h0, cell.key(), options, {offsets, {}}); };
  run();
  at::cuda::CUDAGraph graph;
  graph.capture_begin();
  const auto [y, hT] = run();
  graph.capture_end();
  for (const std::vector<int>& lengths : {std::vector<int>{0, 50, 80, 200}, {0, 0, 199, 200}}) {
    offsets.copy_(torch::tensor(lengths, torch::kInt));
    graph.replay();
    const auto [y_expected, hT_expected] =
        scan(p.arguments.u, p.arguments.w, p.arguments.h0, cell.key(), options,
             {torch::tensor(lengths, torch::kInt), {}});
    expect_close(y.cpu(), y_expected, 5e-5, "y");
    expect_close(hT.cpu(), hT_expected, 5e-5, "hT");
  }
}

}  // namespace
}  // namespace pararnn
