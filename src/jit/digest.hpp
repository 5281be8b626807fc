// A 128-bit digest of texts, for names and checksums of cached files: FNV-1a (Fowler, Noll and Vo).
// It tells apart what differs by accident, and is no defence against anyone.
#pragma once

#include <fmt/format.h>

#include <cstdint>
#include <string>
#include <string_view>

namespace pararnn::jit {

class Digest {
 public:
  /// Adds a text; its length counts, so ("ab", "c") and ("a", "bc") differ.
  Digest& add(std::string_view text) {
    for (size_t length = text.size(), i = 0; i < sizeof length; ++i) add_byte(length >> (8 * i));
    for (const char byte : text) add_byte(static_cast<unsigned char>(byte));
    return *this;
  }

  /// 32 hexadecimal digits.
  std::string text() const {
    return fmt::format("{:016x}{:016x}", static_cast<uint64_t>(state_ >> 64),
                       static_cast<uint64_t>(state_));
  }

 private:
  using Word = unsigned __int128;
  static constexpr Word kPrime = (Word{1} << 88) + 0x13b;

  void add_byte(uint64_t byte) { state_ = (state_ ^ (byte & 0xff)) * kPrime; }

  Word state_ = (Word{0x6c62272e07bb0142} << 64) + 0x62b821756295c58d;
};

}  // namespace pararnn::jit
