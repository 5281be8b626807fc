// What the tests of training share, beside what they take from those of the data.
#pragma once

#include <initializer_list>
#include <string_view>

#include "data_test_support.hpp"

namespace pararnn::train {

namespace fs = std::filesystem;
using data::read;
using data::write;

/// Runs `action`, which must throw an Error: one line that contains all of `words`.
template <class Action>
void expect_error(Action action, std::initializer_list<std::string_view> words) {
  const std::string sentence = data::error_of(action);
  EXPECT_EQ(sentence.find('\n'), std::string::npos) << sentence;
  for (const std::string_view word : words) {
    EXPECT_NE(sentence.find(word), std::string::npos)
        << '"' << sentence << "\" lacks \"" << word << '"';
  }
}

}  // namespace pararnn::train
