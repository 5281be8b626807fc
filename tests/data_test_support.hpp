// What the tests of the data layer share: a folder that goes away with the test, and random texts.
#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <random>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.hpp"
#include "base/temporary_folder.hpp"
#include "data/token_source.hpp"
#include "error_test_support.hpp"

namespace pararnn::data {

inline void write(const std::filesystem::path& path, std::string_view content) {
  std::filesystem::create_directories(path.parent_path());
  std::ofstream(path, std::ios::binary) << content;
}

inline std::string read(const std::filesystem::path& path) {
  std::ostringstream content;
  content << std::ifstream(path, std::ios::binary).rdbuf();
  return content.str();
}

inline std::vector<int32_t> read_all(const TokenSource& source) {
  std::vector<int32_t> tokens(static_cast<size_t>(source.size()));
  source.read(0, tokens);
  return tokens;
}

using Random = std::mt19937_64;

inline int64_t random_below(Random& random, int64_t bound) {
  return std::uniform_int_distribution<int64_t>(0, bound - 1)(random);
}

inline std::string random_bytes(Random& random, int64_t count) {
  std::string bytes;
  for (int64_t i = 0; i < count; ++i) bytes.push_back(static_cast<char>(random_below(random, 256)));
  return bytes;
}

/// Lines of words of a few letters, as text has them: repetitive enough to learn from, never
/// binary.
inline std::string random_text(Random& random, int64_t count) {
  std::string text;
  while (static_cast<int64_t>(text.size()) < count) {
    const int64_t letters = 1 + random_below(random, 6);
    for (int64_t i = 0; i < letters; ++i) {
      text.push_back(
          static_cast<char>('a' + std::min(random_below(random, 12), random_below(random, 12))));
    }
    text.push_back(random_below(random, 8) == 0 ? '\n' : ' ');
  }
  text.resize(static_cast<size_t>(count));
  return text;
}

}  // namespace pararnn::data
