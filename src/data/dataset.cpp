#include "data/dataset.hpp"

#include "base/error.hpp"
#include "base/hash.hpp"
#include "data/corpus.hpp"
#include "data/document_checksum.hpp"
#include "data/shard.hpp"
#include "data/shard_folder.hpp"

namespace pararnn::data {
namespace {

std::string format_bytes(int64_t bytes) {
  return bytes < 1'000'000 ? fmt::format("{} bytes", bytes)
                           : fmt::format("{:.2f} MB", static_cast<double>(bytes) * 1e-6);
}

std::string describe(const Dataset& dataset) {
  return fmt::format("{} of text to train on, {} held out", format_bytes(dataset.training->bytes()),
                     format_bytes(dataset.held_out->bytes()));
}

Dataset open_text(const std::filesystem::path& data, double held_out_share) {
  Corpus corpus = open_corpus(data, held_out_share);
  Dataset dataset;
  dataset.tokenizer = make_byte_tokenizer();
  dataset.documents = corpus.training;
  dataset.documents.insert(dataset.documents.end(), corpus.held_out.begin(), corpus.held_out.end());
  dataset.training =
      make_byte_source(std::move(corpus.training), "the training text of " + data.string());
  dataset.held_out =
      make_byte_source(std::move(corpus.held_out), "the held-out text of " + data.string());
  dataset.fingerprint = fmt::format("{:016x}", corpus.fingerprint);
  dataset.description =
      fmt::format("{}: {} text file{} as bytes ({} binary or empty skipped), {}", data.string(),
                  corpus.files, corpus.files == 1 ? "" : "s", corpus.skipped, describe(dataset));
  return dataset;
}

Dataset open_tokenized(const std::filesystem::path& data) {
  const ShardFolder folder = read_shard_folder(data);
  Dataset dataset;
  dataset.tokenizer = load_tokenizer(data);
  const int64_t vocabulary = dataset.tokenizer->vocabulary_size();
  uint64_t fingerprint = 0;
  dataset.training = open_shards(folder.training, vocabulary,
                                 "the training tokens of " + data.string(), fingerprint);
  dataset.held_out = open_shards(folder.held_out, vocabulary,
                                 "the held-out tokens of " + data.string(), fingerprint);
  dataset.fingerprint = fmt::format("{:016x}", fingerprint);
  dataset.description = fmt::format("{}: {} tokens of a vocabulary of {}, {}", data.string(),
                                    dataset.training->size() + dataset.held_out->size(), vocabulary,
                                    describe(dataset));
  return dataset;
}

}  // namespace

std::string checksum_of_content(const Dataset& dataset) {
  return fmt::format(
      "{:016x}", hash_bytes(dataset.tokenizer->model(), checksum_of_documents(dataset.documents)));
}

Dataset open_dataset(const std::filesystem::path& data, const DatasetOptions& options) {
  return is_shard_folder(data) ? open_tokenized(data) : open_text(data, options.held_out_share);
}

}  // namespace pararnn::data
