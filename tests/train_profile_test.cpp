// Where the time of a step goes: every nanosecond is counted once, under the part it belongs to.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "train/profile.hpp"
#include "train/run_log.hpp"
#include "train/trainer.hpp"
#include "train_test_support.hpp"

namespace pararnn::train {
namespace {

nlohmann::json read_json(const std::filesystem::path& path) {
  std::ifstream file(path);
  return nlohmann::json::parse(file);
}

double calls_of(const std::vector<ProfiledTime>& times, const std::string& name) {
  for (const ProfiledTime& time : times) {
    if (time.name == name) return time.calls;
  }
  return 0;
}

TEST(Profile, NamesOfKernelsAndOperatorsBelongToParts) {
  EXPECT_EQ(part_of("void pararnn::cuda::forward_speculative<pararnn::Gru>(long)"), "scan");
  EXPECT_EQ(part_of("pararnn::_scan_forward"), "scan");
  EXPECT_EQ(part_of("nvjet_tst_128x256_64x4_1x2_h_bz_coopA_NTT"), "products");
  EXPECT_EQ(part_of("aten::addmm"), "products");
  EXPECT_EQ(part_of("void pararnn::ops::rms_norm_forward<pararnn::cuda::BFloat16, 8>(...)"),
            "fused");
  EXPECT_EQ(part_of("ncclDevKernel_AllReduce_Sum_bf16_RING_LL"), "communication");
  EXPECT_EQ(part_of("void pytorch_flash::flash_fwd_kernel<...>"), "attention");
  EXPECT_EQ(part_of("void at::native::multi_tensor_apply_kernel<...FusedAdamMathFunctor...>"),
            "optimizer");
  EXPECT_EQ(part_of("Memcpy HtoD (Pinned -> Device)"), "copies");
  EXPECT_EQ(part_of("void at::native::vectorized_elementwise_kernel<4, ...>"), "other");
}

TEST(Profile, EveryCallIsCountedOnceAndTheTimesMakeUpTheStep) {
  const TemporaryFolder folder;
  const torch::Tensor a = torch::randn({64, 64});
  Profiler profiler(torch::kCPU);
  constexpr int kSteps = 3, kProducts = 5;
  for (int i = 0; i < kSteps * kProducts; ++i) torch::linear(a, a).relu();
  const Profile profile = profiler.stop(kSteps, folder / "trace.json");

  EXPECT_DOUBLE_EQ(calls_of(profile.parts, "products"), kProducts);
  double sum = 0;
  for (const ProfiledTime& part : profile.parts) sum += part.seconds;
  EXPECT_NEAR(sum, profile.seconds, 1e-6 + 0.01 * profile.seconds);
  EXPECT_EQ(profile.parts.back().name, "idle");
  EXPECT_NE(profile.table().find("products"), std::string::npos);
  EXPECT_TRUE(read_json(folder / "trace.json").contains("traceEvents"));
}

TEST(Profile, OneThatIsNotStoppedLeavesNothingRunning) {
  { const Profiler forgotten(torch::kCPU); }
  const TemporaryFolder folder;
  Profiler profiler(torch::kCPU);
  EXPECT_EQ(calls_of(profiler.stop(1, folder / "trace.json").parts, "products"), 0);
}

}  // namespace
}  // namespace pararnn::train
