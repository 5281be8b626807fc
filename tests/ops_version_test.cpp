#include "kernels/version.hpp"

#include <fmt/ranges.h>
#include <gtest/gtest.h>
#include <torch/version.h>

#include <fstream>
#include <set>
#include <string>

#include "cells/cpu_kernels.hpp"

namespace pararnn {
namespace {

TEST(Version, NamesLibTorchAndTheInstructionSet) {
  EXPECT_NE(version().find("LibTorch " TORCH_VERSION), std::string::npos) << version();
  EXPECT_NE(version().find(instruction_set()), std::string::npos) << version();
}

TEST(Version, OneOpenMpRuntimeIsLoaded) {
  std::ifstream maps("/proc/self/maps");
  std::set<std::string> runtimes;
  for (std::string line; std::getline(maps, line);) {
    if (auto at = line.find('/'); at != line.npos && line.find("libgomp") != line.npos) {
      runtimes.insert(line.substr(at));
    }
  }
  EXPECT_EQ(runtimes.size(), 1u) << fmt::format("{}", fmt::join(runtimes, ", "));
}

}  // namespace
}  // namespace pararnn
