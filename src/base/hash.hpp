// Hashes that are the same on every machine and in every run: held-out files, shuffles and
// fingerprints hang on them. Not for secrets.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace pararnn {

/// Spreads every bit of `x` over the whole word, one to one (the finaliser of splitmix64, Steele et
/// al. 2014).
constexpr uint64_t mix(uint64_t x) {
  x += 0x9e3779b97f4a7c15;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
  return x ^ (x >> 31);
}

/// Hash of a string of bytes (FNV-1a, spread by mix); a hash as `seed` chains it to what was hashed
/// before.
constexpr uint64_t hash_bytes(std::string_view bytes, uint64_t seed = 0) {
  uint64_t hash = 0xcbf29ce484222325 ^ seed;
  for (const char byte : bytes) hash = (hash ^ static_cast<uint8_t>(byte)) * 0x100000001b3;
  return mix(hash);
}

/// The hash of a file's bytes as it stands beside the file's name: 16 hexadecimal digits.
inline std::string checksum_of(std::string_view bytes) {
  std::string digits(16, '0');
  uint64_t hash = hash_bytes(bytes);
  for (size_t i = digits.size(); i-- > 0; hash >>= 4) digits[i] = "0123456789abcdef"[hash & 15];
  return digits;
}

}  // namespace pararnn
