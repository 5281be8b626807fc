// The cells of examples/cells through the operators, each from its file as a user gives it, on the
// CPU and on a GPU where there is one: equal to their loops for every plan, forward and backward.
#include <gtest/gtest.h>
#include <torch/cuda.h>

#include <filesystem>
#include <future>

#include "cells/cpu_kernels.hpp"
#include "engine_test_support.hpp"
#include "ops_test_support.hpp"

namespace pararnn {
namespace {

namespace fs = std::filesystem;

std::vector<std::string> catalogue_files() {
  std::vector<std::string> files;
  for (const auto& entry : fs::directory_iterator(PARARNN_SOURCE "/examples/cells")) {
    files.push_back(entry.path().string());
  }
  std::ranges::sort(files);
  return files;
}

class CatalogueOnGpu : public testing::Test {
 protected:
  void SetUp() override {
    if (!torch::cuda::is_available()) GTEST_SKIP() << "no GPU here";
  }
};

/// Compiles what the test will ask for, on all cores.
void compile_all(const std::vector<std::string>& files) {
  static const bool done = [&] {
    std::vector<std::future<void>> compiling;
    for (const std::string& file : files) {
      compiling.push_back(
          std::async(std::launch::async, [file] { cpu_kernels<float>(find_cell(file)); }));
    }
    for (auto& each : compiling) each.get();
    return true;
  }();
  (void)done;
}

Arguments to(const Arguments& a, const torch::Device& device) {
  return {a.u.to(device), a.w.to(device), a.h0.to(device)};
}

void expect_the_loops(const torch::Device& device) {
  const std::vector<std::string> files = catalogue_files();
  ASSERT_GE(files.size(), 11u);
  compile_all(files);
  uint64_t seed = 100;
  for (const std::string& file : files) {
    const CellDefinition& cell = find_cell(file);
    EXPECT_EQ(cell.name, fs::path(file).stem().string());
    EXPECT_FALSE(cell.summary.empty()) << file;
    // Its trajectory is right step by step, and far from any other rounding's; the engine's tests
    // look at that.
    if (cell.name == "logistic_map") continue;
    const Arguments a = random_arguments(cell, 2, 200, 6, torch::kFloat32, ++seed, 0.5);
    const Tensor dy = torch::randn({2, 200, 6}), dhT = torch::randn_like(a.h0);
    const auto& loops = test::cell_under_test<double>(cell.name);
    const Results expected = reference(loops.loop, loops.loop_backward, a, dy, dhT);
    for (const char* plan : kPlans) {
      SCOPED_TRACE(fmt::format("{} {} {}", cell.name, device.str(), plan));
      Results got = run(cell, to(a, device), dy.to(device), dhT.to(device), ScanOptions{plan, 48});
      for (Tensor* t : {&got.y, &got.hT, &got.du, &got.dw, &got.dh0}) *t = t->cpu();
      expect_close(got, expected, 2e-5);
    }
  }
}

void expect_one_correction_of_a_linear_recurrence(const torch::Device& device) {
  const CellDefinition& cell = find_cell(PARARNN_SOURCE "/examples/cells/min_gru.hpp");
  Arguments a = random_arguments(cell, 1, 512, 8, torch::kFloat32, 7);
  a.u.select(2, cell.memory_input) += 6 * cell.memory_direction;  // remembers beyond a burn-in
  a = to(a, device);
  scan(a.u, a.w, a.h0, cell.key(), ScanOptions{"newton", 64, 0});
  const ScanStatistics found = last_scan_statistics().first;
  EXPECT_EQ(found.plan, "newton");
  EXPECT_EQ(found.newton_iterations, 1);
  EXPECT_EQ(found.columns_repaired, 0);
  EXPECT_LE(found.largest_mismatch, 1e-6);
}

void expect_a_chaotic_cell_to_run_in_sequence(const torch::Device& device) {
  const CellDefinition& cell = find_cell(PARARNN_SOURCE "/examples/cells/logistic_map.hpp");
  const Arguments a = to(random_arguments(cell, 1, 2048, 4, torch::kFloat32, 8), device);
  const auto [y, hT] = scan(a.u, a.w, a.h0, cell.key(), ScanOptions{"speculative", 64});
  const ScanStatistics found = last_scan_statistics().first;
  EXPECT_EQ(found.columns_corrected, 4);
  EXPECT_GT(found.columns_repaired, 0);
  EXPECT_LE(found.largest_mismatch, 1e-6);
}

TEST(Catalogue, EqualsTheLoop) { expect_the_loops(torch::kCPU); }
TEST(Catalogue, ALinearRecurrenceNeedsOneCorrection) {
  expect_one_correction_of_a_linear_recurrence(torch::kCPU);
}
TEST(Catalogue, AChaoticCellRunsInSequence) {
  expect_a_chaotic_cell_to_run_in_sequence(torch::kCPU);
}
TEST_F(CatalogueOnGpu, EqualsTheLoop) { expect_the_loops(torch::kCUDA); }
TEST_F(CatalogueOnGpu, ALinearRecurrenceNeedsOneCorrection) {
  expect_one_correction_of_a_linear_recurrence(torch::kCUDA);
}
TEST_F(CatalogueOnGpu, AChaoticCellRunsInSequence) {
  expect_a_chaotic_cell_to_run_in_sequence(torch::kCUDA);
}

}  // namespace
}  // namespace pararnn
