// The sentences of errors, for tests of all layers.
#pragma once

#include <gtest/gtest.h>

#include <string>

#include "pararnn/error.hpp"

namespace pararnn {

/// The sentence of the Error that `action` throws; a failure if it throws none.
template <class Action>
std::string error_of(Action&& action) {
  try {
    action();
  } catch (const Error& error) {
    return error.what();
  }
  ADD_FAILURE() << "no Error was thrown";
  return "";
}

inline void expect_holds(const std::string& sentence, const std::string& part) {
  EXPECT_NE(sentence.find(part), std::string::npos)
      << "'" << sentence << "' should hold '" << part << "'";
}

}  // namespace pararnn
