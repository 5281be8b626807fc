// What a language model has to beat: the bits per byte of the held-out text under models that count
// bytes, and under gzip. The byte model of order k predicts a byte from the k bytes before it in
// the document, mixing its counts with the model of order k-1 by the rule of Witten and Bell
// (1991):
//
//   P_k(b | context) = (count(context b) + kinds(context) P_{k-1}(b | shorter context)) /
//   (total(context) + kinds(context))
//
// where kinds is how many different bytes followed the context in the training text, and P_{-1} =
// 1/256.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "data/dataset.hpp"

namespace pararnn::data {

inline constexpr int kOrders = 4;  // byte models of order 0, 1, 2, 3

/// Counts strings of up to 4 bytes, and predicts the next byte of a document from them.
class ByteModel {
 public:
  ByteModel();

  /// The last bytes of a document so far.
  struct Context {
    uint32_t bytes = 0;  // the latest lowest
    int length = 0;      // how many of them count, at most 3
    void append(uint8_t byte);
  };

  /// Counts the bytes of `text`, which follows `context` in its document, and moves the context on.
  void learn(std::string_view text, Context& context);

  /// P_0 .. P_3 of `byte` after `context`.
  std::array<double, kOrders> probabilities(Context context, uint8_t byte) const;

 private:
  // A string of n bytes is both what was seen after its first n-1 bytes and a context of its own.
  struct String {
    uint64_t key = 0;    // its length and bytes; 0 marks a free place, as no string has
    uint32_t count = 0;  // times it was seen
    uint32_t total = 0;  // times a byte followed it
    uint32_t kinds = 0;  // different bytes that followed it
  };

  static uint64_t key(uint32_t bytes, int length);
  size_t place(uint64_t key) const;
  void grow();

  std::vector<String> table_;  // open addressing; a power of two, at most half full
  size_t used_ = 0;
};

struct Baseline {
  std::string name;  // "order-0" .. "order-3", "gzip"
  double bits_per_byte;
};

/// Baselines on the held-out text of a dataset, whatever its tokenizer. Of texts above
/// `most_tokens` evenly spread parts of about that many tokens are used. Empty if there is no
/// held-out text.
std::vector<Baseline> measure_baselines(const Dataset& dataset, int64_t most_tokens = 1 << 26);

}  // namespace pararnn::data
