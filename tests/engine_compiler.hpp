// The compiler as a test sees it: for what must not compile.
#pragma once

#include <gtest/gtest.h>

#include <array>
#include <cstdio>
#include <string>

namespace pararnn {

/// What the compiler says of a file with this text; empty if it compiles.
inline std::string compiler_says(const std::string& text) {
  const std::string command = std::string(PARARNN_CXX) + " -std=c++20 -fsyntax-only -I" +
                              PARARNN_SOURCE + "/include -x c++ - 2>&1 <<'END'\n" + text +
                              "\nEND\n";
  std::FILE* pipe = popen(command.c_str(), "r");
  std::string said;
  std::array<char, 4096> buffer;
  while (const std::size_t size = std::fread(buffer.data(), 1, buffer.size(), pipe)) {
    said.append(buffer.data(), size);
  }
  const int status = pclose(pipe);
  EXPECT_EQ(status == 0, said.empty()) << said;
  return said;
}

}  // namespace pararnn
