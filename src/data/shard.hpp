// A shard is a file of tokens, made once and mapped for training:
//
//   header | tokens, 2 or 4 bytes each | zeros to a multiple of 4 | CRC-32 of each 64 KiB of tokens
//
// all little-endian. The header carries its own CRC-32 and that of the list of checksums, both
// checked when the shard is opened, as is the size of the file; a block of tokens is checked when
// it is first read. So damage anywhere is an Error before a wrong token leaves, and opening costs
// 1/16384 of the file.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/output_file.hpp"
#include "data/token_source.hpp"

namespace pararnn::data {

struct ShardHeader {
  char magic[8] = {'p', 'a', 'r', 'a', 'r', 'n', 'n', '\0'};
  uint32_t version = 1;
  uint32_t token_bytes = 0;  // 2 or 4
  uint64_t tokens = 0;
  uint64_t text_bytes = 0;     // that the tokens stand for
  uint64_t vocabulary = 0;     // tokens lie below it
  uint32_t checksums_crc = 0;  // CRC-32 of the list of checksums
  uint32_t header_crc = 0;     // CRC-32 of what stands before it
};
static_assert(sizeof(ShardHeader) == 48);

/// Writes one shard.
class ShardWriter {
 public:
  ShardWriter(const std::filesystem::path& path, int64_t vocabulary);

  /// Tokens that stand for `text_bytes` bytes of text.
  void append(std::span<const int32_t> tokens, int64_t text_bytes);
  int64_t tokens() const { return static_cast<int64_t>(header_.tokens); }
  /// A shard that is not closed is not there.
  void close();

 private:
  void add_token_bytes(std::string_view bytes);
  void end_block();

  OutputFile file_;
  ShardHeader header_;
  std::vector<uint32_t> checksums_;
  uint32_t block_crc_ = 0;
  int64_t block_bytes_ = 0;  // so far of the block that block_crc_ is of
};

/// The tokens of shards, one after the other. Error if one is missing, damaged, or not of this
/// vocabulary. The hash of the headers, which stands for the content, is chained to `fingerprint`.
std::shared_ptr<const TokenSource> open_shards(const std::vector<std::filesystem::path>& paths,
                                               int64_t vocabulary, std::string name,
                                               uint64_t& fingerprint);

}  // namespace pararnn::data
