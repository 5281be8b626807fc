// The folder that `pararnn tokenize` makes: shards.json, which lists the shards of each side and is
// there only once everything is; the tokenizer; and the shards, training-00000.shard,
// held_out-00000.shard and on.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <vector>

#include "data/corpus.hpp"

namespace pararnn::data {

struct ShardFolder {
  std::vector<std::filesystem::path> training, held_out;
};

/// Whether the folder was made by write_shard_folder, complete or not.
bool is_shard_folder(const std::filesystem::path& folder);

/// Error if shards.json is missing or damaged.
ShardFolder read_shard_folder(const std::filesystem::path& folder);

struct TokenizeOptions {
  int64_t vocabulary = 8192;
  double held_out_share = kHeldOutShare;
  /// Bytes of training text, evenly spread, that the vocabulary is learned from.
  int64_t sample_bytes = 16'000'000;
  /// 0: one for each core.
  int threads = 0;
  /// Tokens of a full shard, about.
  int64_t shard_tokens = 1 << 28;
  /// Told the bytes encoded so far, 0 first, and of how many; by one thread at a time.
  std::function<void(int64_t done, int64_t all)> progress = [](int64_t, int64_t) {};
};

/// Learns a SentencePiece vocabulary from the training text of `data` and writes the text as shards
/// into the folder `out`, which must be new or empty. The work is done in the folder `out`.partial,
/// which is renamed when it is complete; what an interrupted run left there is cleared first. The
/// shards do not depend on the number of threads.
void write_shard_folder(const std::filesystem::path& data, const std::filesystem::path& out,
                        const TokenizeOptions& options);

}  // namespace pararnn::data
