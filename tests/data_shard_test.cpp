#include "data/shard.hpp"

#include "data_test_support.hpp"

namespace pararnn::data {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kNarrow = 1000, kWide = 100'000;  // vocabularies of 2 and of 4 bytes a token

std::vector<int32_t> random_tokens(Random& random, int64_t count, int64_t vocabulary) {
  std::vector<int32_t> tokens;
  for (int64_t i = 0; i < count; ++i)
    tokens.push_back(static_cast<int32_t>(random_below(random, vocabulary)));
  return tokens;
}

/// Writes tokens in appends of random lengths.
void write_shard(Random& random, const fs::path& path, std::span<const int32_t> tokens,
                 int64_t vocabulary) {
  ShardWriter writer(path, vocabulary);
  while (!tokens.empty()) {
    const auto count = static_cast<size_t>(1 + random_below(random, std::ssize(tokens)));
    writer.append(tokens.first(count), 3 * static_cast<int64_t>(count));
    tokens = tokens.subspan(count);
  }
  writer.close();
}

std::shared_ptr<const TokenSource> open(const std::vector<fs::path>& paths, int64_t vocabulary) {
  uint64_t fingerprint = 0;
  return open_shards(paths, vocabulary, "shards", fingerprint);
}

TEST(Shard, ReadsBackWhatWasWritten) {
  Random random(1);
  for (const int64_t vocabulary : {kNarrow, int64_t{1} << 16, kWide}) {
    for (int trial = 0; trial < 10; ++trial) {
      const TemporaryFolder folder;
      std::vector<int32_t> row;
      std::vector<fs::path> paths;
      for (int64_t shards = random_below(random, 5); shards >= 0; --shards) {
        const auto tokens = random_tokens(
            random, random_below(random, 2) * random_below(random, 100'000), vocabulary);
        paths.push_back(folder / std::to_string(shards));
        write_shard(random, paths.back(), tokens, vocabulary);
        row.insert(row.end(), tokens.begin(), tokens.end());
      }
      const auto source = open(paths, vocabulary);
      ASSERT_EQ(source->size(), std::ssize(row));
      EXPECT_EQ(source->bytes(), 3 * std::ssize(row));
      for (int read = 0; read < 50; ++read) {
        const int64_t begin = random_below(random, source->size() + 1);
        const int64_t count = random_below(random, source->size() - begin + 1);
        std::vector<int32_t> out(static_cast<size_t>(count));
        source->read(begin, out);
        ASSERT_EQ(out, std::vector<int32_t>(row.begin() + begin, row.begin() + begin + count));
      }
      EXPECT_EQ(read_all(*source), row);
    }
  }
}

/// The Error that opening and reading all of a shard with this content gives.
std::string error_of_content(const fs::path& path, const std::string& content) {
  write(path, content);
  const std::string words = error_of([&] { read_all(*open({path}, kNarrow)); });
  EXPECT_NE(words.find(path.string()), std::string::npos) << words;
  EXPECT_EQ(words.find('\n'), std::string::npos) << words;
  return words;
}

TEST(Shard, AnyDamagedByteIsAnError) {
  Random random(2);
  const TemporaryFolder folder;
  const fs::path path = folder / "shard";
  write_shard(random, path, random_tokens(random, 70'001, kNarrow), kNarrow);
  const std::string right = read(path);
  const auto damage = [&](size_t at) {
    std::string wrong = right;
    wrong[at] = static_cast<char>(wrong[at] ^ (1 + random_below(random, 255)));
    error_of_content(path, wrong);
  };
  for (size_t at = 0; at < sizeof(ShardHeader); ++at) {
    for (int trial = 0; trial < 4; ++trial) damage(at);
  }
  for (int trial = 0; trial < 100; ++trial) {
    const size_t padding = right.size() - 4 * 3 - 2;  // the only bytes that mean nothing
    const auto at = static_cast<size_t>(random_below(random, std::ssize(right)));
    if (at < padding || at >= padding + 2) damage(at);
  }
}

TEST(Shard, AnyTruncationOrExtensionIsAnError) {
  Random random(3);
  const TemporaryFolder folder;
  const fs::path path = folder / "shard";
  write_shard(random, path, random_tokens(random, 40'000, kNarrow), kNarrow);
  const std::string right = read(path);
  for (size_t kept = 0; kept <= 200; ++kept) error_of_content(path, right.substr(0, kept));
  for (int trial = 0; trial < 100; ++trial) {
    error_of_content(path,
                     right.substr(0, static_cast<size_t>(random_below(random, std::ssize(right)))));
  }
  error_of_content(path, right + "x");
  error_of_content(path, right + std::string(1 << 16, '\0'));
}

TEST(Shard, AShardThatWasNotClosedIsNotThere) {
  Random random(4);
  const TemporaryFolder folder;
  { ShardWriter(folder / "shard", kNarrow).append(random_tokens(random, 1'000'000, kNarrow), 1); }
  EXPECT_FALSE(fs::exists(folder / "shard"));
}

TEST(Shard, AMissingShardOrAnotherVocabularyIsAnError) {
  Random random(5);
  const TemporaryFolder folder;
  write_shard(random, folder / "shard", random_tokens(random, 100, kNarrow), kNarrow);
  EXPECT_NE(error_of([&] {
              open({folder / "shard", folder / "next"}, kNarrow);
            }).find("next"),
            std::string::npos);
  EXPECT_NE(error_of([&] { open({folder / "shard"}, kNarrow + 1); }).find("vocabulary"),
            std::string::npos);
}

}  // namespace
}  // namespace pararnn::data
