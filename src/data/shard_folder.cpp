#include "data/shard_folder.hpp"

#include <algorithm>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <nlohmann/json.hpp>
#include <optional>
#include <thread>

#include "base/error.hpp"
#include "base/output_file.hpp"
#include "data/corpus.hpp"
#include "data/folder_lock.hpp"
#include "data/mapped_file.hpp"
#include "data/sentencepiece_tokenizer.hpp"
#include "data/shard.hpp"
#include "data/token_source.hpp"

namespace pararnn::data {
namespace {

namespace fs = std::filesystem;

constexpr int kFolderFormat = 1;
constexpr int64_t kUnitBytes = 1 << 20;

/// A part of a document that is encoded on its own.
struct Unit {
  std::shared_ptr<const MappedFile> file;
  std::string_view text;
  bool begins_document;
};

/// Cuts documents into units of about kUnitBytes, at ends of segments, so that encoding unit by
/// unit gives what encoding whole documents gives.
class Units {
 public:
  explicit Units(const std::vector<Document>& documents) : documents_(documents) {}

  std::optional<Unit> next() {
    if (rest_.empty()) {
      if (document_ == documents_.size()) return std::nullopt;
      const Document& document = documents_[document_++];
      file_ = std::make_shared<const MappedFile>(document.path);
      require(file_->size() == document.file_size,
              "{} changed while it was being read; start again", document.path.string());
      text_ = rest_ = file_->read(document.begin, document.end - document.begin);
    }
    const bool begins_document = rest_.size() == text_.size();
    size_t size = 0;
    while (size < rest_.size() && size < kUnitBytes)
      size += first_segment(rest_.substr(size)).size();
    Unit unit = {file_, rest_.substr(0, size), begins_document};
    rest_.remove_prefix(size);
    return unit;
  }

 private:
  const std::vector<Document>& documents_;
  size_t document_ = 0;
  std::shared_ptr<const MappedFile> file_;
  std::string_view text_, rest_;  // of the current document
};

/// Writes the tokens of one side into shards, units in order.
class ShardSeries {
 public:
  ShardSeries(fs::path folder, std::string side, const Tokenizer& tokenizer, int64_t shard_tokens)
      : folder_(std::move(folder)),
        side_(std::move(side)),
        tokenizer_(tokenizer),
        shard_tokens_(shard_tokens) {}

  void append(const Unit& unit, std::span<const int32_t> tokens) {
    const bool first = names_.empty();
    if (first || writer_->tokens() >= shard_tokens_) open_next();
    if (unit.begins_document && !first) {
      const int32_t end = tokenizer_.end_of_document();
      writer_->append({&end, 1}, 0);
    }
    writer_->append(tokens, std::ssize(unit.text));
  }

  /// Names of the shards, now complete.
  std::vector<std::string> close() {
    if (writer_) writer_->close();
    return names_;
  }

 private:
  void open_next() {
    if (writer_) writer_->close();
    names_.push_back(fmt::format("{}-{:05}.shard", side_, names_.size()));
    writer_.emplace(folder_ / names_.back(), tokenizer_.vocabulary_size());
  }

  fs::path folder_;
  std::string side_;
  const Tokenizer& tokenizer_;
  int64_t shard_tokens_;
  std::vector<std::string> names_;
  std::optional<ShardWriter> writer_;
};

/// Encodes units on several threads and hands their tokens to `write` in the order of the units. A
/// thread takes a unit, encodes it, and waits for its turn to write, so no more units than threads
/// are in memory.
void encode_in_order(Units units, const Tokenizer& tokenizer, int threads,
                     const std::function<void(const Unit&, std::span<const int32_t>)>& write) {
  std::mutex mutex;
  std::condition_variable turn_changed;
  int64_t taken = 0, turn = 0;
  std::exception_ptr failure;

  const auto work = [&] {
    std::unique_lock lock(mutex);
    try {
      while (!failure) {
        const std::optional<Unit> unit = units.next();
        if (!unit) return;
        const int64_t place = taken++;
        lock.unlock();
        const std::vector<int32_t> tokens = tokenizer.encode(unit->text);
        lock.lock();
        turn_changed.wait(lock, [&] { return failure || turn == place; });
        if (failure) return;
        write(*unit, tokens);
        ++turn;
        turn_changed.notify_all();
      }
    } catch (...) {
      if (!lock.owns_lock()) lock.lock();
      if (!failure) failure = std::current_exception();
      turn_changed.notify_all();
    }
  };
  std::vector<std::jthread> workers;
  for (int i = 0; i < threads; ++i) workers.emplace_back(work);
  workers.clear();
  if (failure) std::rethrow_exception(failure);
}

/// The folder where the work is done, locked against a second process; removed at the end unless it
/// was renamed.
class FolderAside {
 public:
  explicit FolderAside(fs::path path)
      : path_(std::move(path)), lock_(std::in_place, path_, "writing") {
    clear_but_for_lock(path_);
  }
  ~FolderAside() {
    if (!renamed_) clear_but_for_lock(path_);
    lock_.reset();
    std::error_code ignored;
    if (!renamed_) fs::remove(path_, ignored);  // if it is empty: another process may have it now
  }
  FolderAside(const FolderAside&) = delete;
  FolderAside& operator=(const FolderAside&) = delete;

  const fs::path& path() const { return path_; }

  void rename(const fs::path& folder) {
    rename_folder(path_, folder);
    renamed_ = true;
    force_to_disk(fs::absolute(folder).parent_path());
  }

 private:
  fs::path path_;
  std::optional<FolderLock> lock_;
  bool renamed_ = false;
};

std::shared_ptr<const Tokenizer> learn_tokenizer(const Corpus& corpus,
                                                 const TokenizeOptions& options, int threads) {
  const auto source = make_byte_source(corpus.training, "the training text");
  std::vector<std::string> samples;
  visit_text(*source, *make_byte_tokenizer(), options.sample_bytes,
             [&](std::string_view text, bool) { samples.emplace_back(text); });
  return make_sentencepiece_tokenizer(train_sentencepiece(samples, options.vocabulary, threads));
}

}  // namespace

bool is_shard_folder(const fs::path& folder) {
  std::error_code ignored;
  return fs::exists(folder / "shards.json", ignored) ||
         fs::exists(folder / "training-00000.shard", ignored);
}

ShardFolder read_shard_folder(const fs::path& folder) {
  const fs::path path = folder / "shards.json";
  require(fs::exists(path),
          "{} is missing, without which the shards beside it are not complete; "
          "make them again with pararnn tokenize",
          path.string());
  const auto list = nlohmann::json::parse(read_file(path), nullptr, false);
  const auto paths = [&](const char* side) {
    std::vector<fs::path> result;
    for (const auto& name : list.at(side)) result.push_back(folder / name.get<std::string>());
    return result;
  };
  try {
    require(list.at("format") == kFolderFormat, "{} has the format {}, and this program reads {}",
            path.string(), list.at("format").dump(), kFolderFormat);
    return {paths("training"), paths("held_out")};
  } catch (const nlohmann::json::exception&) {
    throw Error(
        fmt::format("{} is damaged; make the shards again with pararnn tokenize", path.string()));
  }
}

void write_shard_folder(const fs::path& data, const fs::path& out, const TokenizeOptions& options) {
  const fs::path target = out.has_filename() ? out : out.parent_path();
  std::error_code error;
  require(!fs::exists(target, error) ||
              (fs::is_directory(target, error) && fs::is_empty(target, error)),
          "{} exists already; remove it, or choose another folder", target.string());
  require(!is_shard_folder(data), "{} holds shards already; give the text they were made from",
          data.string());
  const int cores = static_cast<int>(std::max(std::thread::hardware_concurrency(), 1u));
  const int threads = options.threads > 0 ? options.threads : cores;

  const Corpus corpus = open_corpus(data, options.held_out_share);
  FolderAside aside(fs::path(target) += ".partial");
  const auto tokenizer = learn_tokenizer(corpus, options, threads);
  save_tokenizer(*tokenizer, aside.path());

  const int64_t all = total_bytes(corpus.training) + total_bytes(corpus.held_out);
  int64_t done = 0;
  options.progress(done, all);
  const auto write_side = [&](const std::vector<Document>& documents, const std::string& side) {
    ShardSeries series(aside.path(), side, *tokenizer, options.shard_tokens);
    encode_in_order(Units(documents), *tokenizer, threads,
                    [&](const Unit& unit, std::span<const int32_t> tokens) {
                      series.append(unit, tokens);
                      done += std::ssize(unit.text);
                      options.progress(done, all);
                    });
    return series.close();
  };
  const nlohmann::ordered_json list = {{"format", kFolderFormat},
                                       {"training", write_side(corpus.training, "training")},
                                       {"held_out", write_side(corpus.held_out, "held_out")}};
  write_file(aside.path() / "shards.json", list.dump(2) + "\n");
  aside.rename(target);
}

}  // namespace pararnn::data
