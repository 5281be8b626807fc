// What the tests of training share, beside what they take from those of the data.
#pragma once

#include <unistd.h>

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
  const std::string sentence = error_of(action);
  EXPECT_EQ(sentence.find('\n'), std::string::npos) << sentence;
  for (const std::string_view word : words) {
    EXPECT_NE(sentence.find(word), std::string::npos)
        << '"' << sentence << "\" lacks \"" << word << '"';
  }
}

/// While alive, root is a user whom permissions bind, and to whom a folder belongs with all in it.
class Unprivileged {
 public:
  explicit Unprivileged(const fs::path& folder) : before_(::geteuid()) {
    if (before_ != 0) return;
    constexpr uid_t kNobody = 65534;
    EXPECT_EQ(::lchown(folder.c_str(), kNobody, static_cast<gid_t>(-1)), 0);
    for (const auto& entry : fs::recursive_directory_iterator(folder))
      EXPECT_EQ(::lchown(entry.path().c_str(), kNobody, static_cast<gid_t>(-1)), 0);
    EXPECT_EQ(::seteuid(kNobody), 0);
  }
  ~Unprivileged() {
    if (before_ == 0) {
      EXPECT_EQ(::seteuid(0), 0);
    }
  }
  Unprivileged(const Unprivileged&) = delete;
  Unprivileged& operator=(const Unprivileged&) = delete;

 private:
  uid_t before_;
};

}  // namespace pararnn::train
