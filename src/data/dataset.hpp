// A dataset is what a model is trained and measured on: a tokenizer and two rows of tokens, one to
// train on and one held out. It opens from a text file or a folder of text files, read as bytes, or
// from a folder of shards that `pararnn tokenize` made.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "data/corpus.hpp"
#include "data/token_source.hpp"
#include "data/tokenizer.hpp"

namespace pararnn::data {

struct DatasetOptions {
  double held_out_share = kHeldOutShare;  // of text files; shards were divided when they were made
};

struct Dataset {
  std::shared_ptr<const Tokenizer> tokenizer;
  std::shared_ptr<const TokenSource> training, held_out;
  std::vector<Document> documents;  // both sides, in order; none of shards
  std::string fingerprint;  // the same for the same files, divided in the same way; of a text hangs
                            // on the files' names, sizes and beginnings alone
  std::string description;  // one line for the user
};

/// The same for the same content, another (almost surely) if one byte of it changed. Reads a whole
/// text, on every core: as fast as the disk, or 2 GB/s a core. Shards are not read: their
/// fingerprint hangs on the checksums in them, which each token is compared with before it is used.
std::string checksum_of_content(const Dataset& dataset);

/// Error if there is nothing to train on at `data`, or something there cannot be read or is
/// damaged. The held-out row may be empty: with a share of 0, or of a tiny text.
Dataset open_dataset(const std::filesystem::path& data, const DatasetOptions& options = {});

}  // namespace pararnn::data
