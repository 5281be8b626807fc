// A dataset is what a model is trained and measured on: a tokenizer and two rows of tokens, one to
// train on and one held out. It opens from a text file or a folder of text files, read as bytes, or
// from a folder of shards that `pararnn tokenize` made.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>

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
  std::string fingerprint;  // the same for the same files, divided in the same way; another (almost
                            // surely) if not
  std::string description;  // one line for the user
};

/// Error if there is nothing to train on at `data`, or something there cannot be read or is
/// damaged. The held-out row may be empty: with a share of 0, or of a tiny text.
Dataset open_dataset(const std::filesystem::path& data, const DatasetOptions& options = {});

}  // namespace pararnn::data
