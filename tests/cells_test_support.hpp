// What the tests of cells share: a folder for files, caches and what the user trusts, all of its
// own, and cells to put in it.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

#include "base/temporary_folder.hpp"
#include "error_test_support.hpp"

namespace pararnn {

inline constexpr const char* kLeakyCell = R"(#include "pararnn/core/cell.hpp"
struct Leaky {
  static constexpr int kState = 1, kInputs = 2, kParams = 1;
  template <class T>
  PARARNN_FN static pararnn::Vec<T, 1> step(const pararnn::Vec<T, 1>& h,
                                            const pararnn::Vec<T, 2>& u,
                                            const pararnn::Vec<T, 1>& w) {
    const T rate = sigmoid(u[0]);
    return {h[0] + rate * (tanh(u[1] + w[0] * h[0]) - h[0])};
  }
};
)";

/// A variable of the environment for as long as this lives.
class WithVariable {
 public:
  WithVariable(const char* name, const std::string& value) : name_(name) {
    if (const char* before = std::getenv(name)) before_ = before, had_ = true;
    ::setenv(name, value.c_str(), 1);
  }
  ~WithVariable() { had_ ? ::setenv(name_, before_.c_str(), 1) : ::unsetenv(name_); }
  WithVariable(const WithVariable&) = delete;
  WithVariable& operator=(const WithVariable&) = delete;

 private:
  const char* name_;
  std::string before_;
  bool had_ = false;
};

class TestFolder : public TemporaryFolder {
 public:
  std::string write(const std::string& name, const std::string& text) const {
    const std::filesystem::path file = *this / name;
    std::filesystem::create_directories(file.parent_path());
    std::ofstream(file) << text;
    return file.string();
  }
};

/// `text` with `from` in place of `to`.
inline std::string replaced(std::string text, const std::string& from, const std::string& to) {
  const size_t at = text.find(from);
  EXPECT_NE(at, text.npos) << from;
  return at == text.npos ? text : text.replace(at, from.size(), to);
}

}  // namespace pararnn
