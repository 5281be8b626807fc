// The map that forgets, against a list of the keys in the order of their last use.
#include "base/lru_map.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <random>
#include <stdexcept>
#include <vector>

namespace pararnn {
namespace {

TEST(LruMap, KeepsTheKeysThatWereUsedLast) {
  constexpr size_t kCapacity = 8;
  LruMap<int, int> map(kCapacity);
  std::vector<int> used;  // the latest first
  std::mt19937 random(1);
  for (int i = 0; i < 10000; ++i) {
    const int key = std::uniform_int_distribution(0, 11)(random);
    const auto known = std::find(used.begin(), used.end(), key);
    const bool expected = known != used.end();
    if (expected) used.erase(known);
    used.insert(used.begin(), key);
    if (used.size() > kCapacity) used.pop_back();
    bool made = false;
    const int value = map.find_or_make(key, [&] {
      made = true;
      return 7 * key;
    });
    ASSERT_EQ(value, 7 * key);
    ASSERT_EQ(made, !expected) << key;
    ASSERT_EQ(map.size(), used.size());
  }
}

TEST(LruMap, GivesUpWhatItForgetsAndNothingElse) {
  LruMap<int, std::shared_ptr<int>> map(2);
  const auto make = [](int value) { return [value] { return std::make_shared<int>(value); }; };
  const std::shared_ptr<int> held = map.find_or_make(1, make(1));  // in use while it is forgotten
  const std::weak_ptr<int> first = held, second = map.find_or_make(2, make(2));
  map.find_or_make(1, make(-1));
  map.find_or_make(3, make(3));
  EXPECT_TRUE(second.expired());
  map.find_or_make(4, make(4));
  EXPECT_EQ(held.use_count(), 1);
  EXPECT_EQ(*held, 1);
}

TEST(LruMap, WhatCannotBeMadeLeavesItAsItWas) {
  LruMap<int, int> map(2);
  map.find_or_make(1, [] { return 1; });
  EXPECT_THROW(map.find_or_make(2, []() -> int { throw std::runtime_error("no"); }),
               std::runtime_error);
  EXPECT_EQ(map.size(), 1u);
  EXPECT_EQ(map.find_or_make(2, [] { return 22; }), 22);
}

}  // namespace
}  // namespace pararnn
