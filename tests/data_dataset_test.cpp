#include "data/dataset.hpp"

#include <unistd.h>

#include <optional>

#include "data/baselines.hpp"
#include "data/folder_lock.hpp"
#include "data/shard_folder.hpp"
#include "data_test_support.hpp"

namespace pararnn::data {
namespace {

namespace fs = std::filesystem;

void write_corpus(const fs::path& folder, int64_t files, int64_t most_bytes) {
  Random random(1);
  for (int64_t i = 0; i < files; ++i) {
    write(folder / ("part" + std::to_string(i % 3)) / std::to_string(i),
          random_text(random, 1 + random_below(random, most_bytes)) +
              "\xff caf\xc3\xa9 \xe2\x96\x81\n");
  }
}

TokenizeOptions small_options() {
  TokenizeOptions options;
  options.vocabulary = 400;
  options.held_out_share = 0.2;
  return options;
}

/// The documents of a row of tokens, as text.
std::vector<std::string> documents_of(const TokenSource& source, const Tokenizer& tokenizer) {
  std::vector<std::string> documents;
  visit_text(source, tokenizer, source.size() + (1 << 16),
             [&](std::string_view text, bool continues) {
               if (!continues) documents.emplace_back();
               documents.back() += text;
             });
  return documents;
}

TEST(Dataset, TokenizedTextIsTheTextOnBothSides) {
  const TemporaryFolder folder;
  write_corpus(folder / "text", 40, 5000);
  write_shard_folder(folder / "text", folder / "tokens", small_options());
  const Dataset text = open_dataset(folder / "text", {0.2}),
                tokens = open_dataset(folder / "tokens");
  EXPECT_EQ(tokens.tokenizer->vocabulary_size(), 400);
  for (const auto side : {&Dataset::training, &Dataset::held_out}) {
    EXPECT_EQ(documents_of(*(tokens.*side), *tokens.tokenizer),
              documents_of(*(text.*side), *text.tokenizer));
    EXPECT_EQ((tokens.*side)->bytes(), (text.*side)->bytes());
    EXPECT_LT((tokens.*side)->size(), (text.*side)->size());
  }
  const auto of_text = measure_baselines(text), of_tokens = measure_baselines(tokens);
  for (size_t i = 0; i < of_text.size(); ++i)
    EXPECT_EQ(of_text[i].bits_per_byte, of_tokens[i].bits_per_byte);
}

TEST(Dataset, TokensAreThoseOfWholeDocumentsWhateverTheThreadsAndShards) {
  const TemporaryFolder folder;
  write_corpus(folder / "text", 3, 2'000'000);  // documents of more than a unit
  TokenizeOptions options = small_options();
  options.sample_bytes = 1 << 16;
  options.threads = 1;
  write_shard_folder(folder / "text", folder / "one", options);
  options.threads = 3;
  options.shard_tokens = 300'000;
  write_shard_folder(folder / "text", folder / "three", options);

  EXPECT_EQ(read_shard_folder(folder / "one").training.size(), 1u);
  EXPECT_GT(read_shard_folder(folder / "three").training.size(), 1u);
  const Dataset one = open_dataset(folder / "one"), three = open_dataset(folder / "three");
  const Dataset text = open_dataset(folder / "text", {0.2});
  std::vector<int32_t> expected;
  for (const std::string& document : documents_of(*text.training, *text.tokenizer)) {
    if (!expected.empty()) expected.push_back(one.tokenizer->end_of_document());
    const auto tokens = one.tokenizer->encode(document);
    expected.insert(expected.end(), tokens.begin(), tokens.end());
  }
  EXPECT_EQ(read_all(*one.training), expected);
  EXPECT_EQ(read_all(*three.training), expected);
}

TEST(Dataset, TellsTheProgressToTheEnd) {
  const TemporaryFolder folder;
  write_corpus(folder / "text", 10, 5000);
  TokenizeOptions options = small_options();
  std::vector<int64_t> reports;
  int64_t all = 0;
  options.progress = [&](int64_t done, int64_t of) {
    reports.push_back(done);
    all = of;
  };
  write_shard_folder(folder / "text", folder / "tokens", options);
  EXPECT_TRUE(std::is_sorted(reports.begin(), reports.end()));
  EXPECT_EQ(reports.front(), 0);
  EXPECT_EQ(reports.back(), all);
}

TEST(Dataset, WhatAnInterruptedRunLeftIsCleared) {
  const TemporaryFolder folder;
  write_corpus(folder / "text", 10, 5000);
  write(folder / "tokens.partial/training-00007.shard", "half a shard");
  EXPECT_FALSE(is_shard_folder(folder / "tokens"));
  write_shard_folder(folder / "text", folder / "tokens/", small_options());
  EXPECT_FALSE(fs::exists(folder / "tokens.partial"));
  EXPECT_FALSE(fs::exists(folder / "tokens/training-00007.shard"));
  EXPECT_TRUE(is_shard_folder(folder / "tokens"));
}

TEST(Dataset, AFailedRunLeavesNothing) {
  const TemporaryFolder folder;
  write_corpus(folder / "text", 10, 5000);
  TokenizeOptions options = small_options();
  options.vocabulary = 1'000'000;
  EXPECT_NE(error_of([&] {
              write_shard_folder(folder / "text", folder / "tokens", options);
            }).find("at most"),
            std::string::npos);
  options = small_options();
  options.progress = [&](int64_t done, int64_t all) { require(done < all, "stopped at the end"); };
  EXPECT_EQ(error_of([&] { write_shard_folder(folder / "text", folder / "tokens", options); }),
            "stopped at the end");
  EXPECT_FALSE(fs::exists(folder / "tokens"));
  EXPECT_FALSE(fs::exists(folder / "tokens.partial"));
}

TEST(Dataset, WritesOverNothingAndBesideNobody) {
  const TemporaryFolder folder;
  write_corpus(folder / "text", 10, 5000);
  write(folder / "mine/letter", "keep me");
  const auto sentence = [&](const fs::path& data, const fs::path& out) {
    return error_of([&] { write_shard_folder(data, out, small_options()); });
  };
  EXPECT_NE(sentence(folder / "text", folder / "mine").find("exists already"), std::string::npos);
  EXPECT_NE(sentence(folder / "text", folder / "mine/letter").find("exists already"),
            std::string::npos);
  EXPECT_EQ(read(folder / "mine/letter"), "keep me");
  EXPECT_NE(sentence(folder / "text", folder / "mine/letter/below").find("letter"),
            std::string::npos);

  std::optional<FolderLock> other(std::in_place, folder / "busy.partial", "writing");
  EXPECT_NE(
      sentence(folder / "text", folder / "busy").find("process " + std::to_string(::getpid())),
      std::string::npos);
  other.reset();
  write_shard_folder(folder / "text", folder / "busy", small_options());
  EXPECT_FALSE(fs::exists(folder / "busy/.lock"));
  EXPECT_FALSE(fs::exists(folder / "busy.partial"));

  write_shard_folder(folder / "text", folder / "tokens", small_options());
  EXPECT_NE(sentence(folder / "tokens", folder / "again").find("holds shards already"),
            std::string::npos);
}

TEST(Dataset, DamageAnywhereInTheFolderIsAnError) {
  const TemporaryFolder folder;
  write_corpus(folder / "text", 10, 5000);
  write_shard_folder(folder / "text", folder / "tokens", small_options());
  for (const auto& entry : fs::directory_iterator(folder / "tokens")) {
    const std::string right = read(entry.path());
    for (const size_t kept : {size_t{0}, right.size() / 2}) {
      write(entry.path(), right.substr(0, kept));
      EXPECT_NE(error_of([&] { open_dataset(folder / "tokens"); }).find(entry.path().filename()),
                std::string::npos);
    }
    fs::remove(entry.path());
    EXPECT_NE(error_of([&] { open_dataset(folder / "tokens"); }).find(entry.path().filename()),
              std::string::npos);
    write(entry.path(), right);
  }
  for (const char* list :
       {"[]", "{\"format\": 2, \"training\": [], \"held_out\": []}", "{\"format\": 1}",
        "{\"format\": 1, \"training\": [3], \"held_out\": 0}"}) {
    write(folder / "tokens/shards.json", list);
    EXPECT_NE(error_of([&] { open_dataset(folder / "tokens"); }).find("shards.json"),
              std::string::npos);
  }
}

TEST(Dataset, TheFingerprintFollowsTheContentNotThePlace) {
  const TemporaryFolder folder;
  write_corpus(folder / "text", 10, 5000);
  fs::copy(folder / "text", folder / "copy", fs::copy_options::recursive);
  EXPECT_EQ(open_dataset(folder / "text").fingerprint, open_dataset(folder / "copy").fingerprint);
  write_shard_folder(folder / "text", folder / "tokens", small_options());
  write_shard_folder(folder / "copy", folder / "copied_tokens", small_options());
  const std::string fingerprint = open_dataset(folder / "tokens").fingerprint;
  EXPECT_EQ(open_dataset(folder / "copied_tokens").fingerprint, fingerprint);

  write(folder / "copy/part0/new", "more text");
  EXPECT_NE(open_dataset(folder / "text").fingerprint, open_dataset(folder / "copy").fingerprint);
  write_shard_folder(folder / "copy", folder / "other_tokens", small_options());
  EXPECT_NE(open_dataset(folder / "other_tokens").fingerprint, fingerprint);
}

TEST(Dataset, TheChecksumOfContentHangsOnEveryByte) {
  const TemporaryFolder folder;
  Random random(5);
  std::string text = random_text(random, 9'000'000);  // several pieces
  write(folder / "text/long", text);
  write_corpus(folder / "text", 10, 5000);
  fs::copy(folder / "text", folder / "copy", fs::copy_options::recursive);
  const Dataset dataset = open_dataset(folder / "text");
  const std::string right = checksum_of_content(dataset);
  EXPECT_EQ(checksum_of_content(open_dataset(folder / "copy")), right);
  for (int i = 0; i < 20; ++i) {
    const auto place = static_cast<size_t>(random_below(random, std::ssize(text)));
    text[place] ^= 1;
    write(folder / "text/long", text);
    EXPECT_NE(checksum_of_content(open_dataset(folder / "text")), right) << place;
    text[place] ^= 1;
  }
  write(folder / "text/long", text);
  EXPECT_EQ(checksum_of_content(open_dataset(folder / "text")), right);
  write(folder / "text/long", text + "x");
  EXPECT_NE(error_of([&] { checksum_of_content(dataset); }).find("long"), std::string::npos);

  // Of shards, it is that of the tokenizer.
  write_corpus(folder / "small", 10, 5000);
  write_shard_folder(folder / "small", folder / "tokens", small_options());
  fs::copy(folder / "tokens", folder / "other", fs::copy_options::recursive);
  write_shard_folder(folder / "small/part0", folder / "others", small_options());
  const std::string of_shards = checksum_of_content(open_dataset(folder / "tokens"));
  EXPECT_EQ(checksum_of_content(open_dataset(folder / "other")), of_shards);
  for (const char* file : {"tokenizer.json", "tokenizer.model"}) {
    fs::copy(folder / "others" / file, folder / "other" / file,
             fs::copy_options::overwrite_existing);
  }
  const Dataset other = open_dataset(folder / "other");
  EXPECT_EQ(other.fingerprint, open_dataset(folder / "tokens").fingerprint);
  EXPECT_NE(checksum_of_content(other), of_shards);
}

}  // namespace
}  // namespace pararnn::data
