#include "data/token_source.hpp"

#include <sys/resource.h>

#include "data_test_support.hpp"

namespace pararnn::data {
namespace {

namespace fs = std::filesystem;

Document whole_file(const fs::path& path) {
  const auto size = static_cast<int64_t>(fs::file_size(path));
  return {path, size, 0, size};
}

struct Row {
  std::vector<Document> documents;
  std::vector<std::string> texts;
  std::vector<int32_t> tokens;
};

/// Random documents, parts of files, and the row they make by the definition: texts with an end
/// between.
Row random_row(Random& random, const TemporaryFolder& folder, int64_t count) {
  Row row;
  for (int64_t i = 0; i < count; ++i) {
    const std::string bytes = random_bytes(random, 1 + random_below(random, 50));
    const fs::path path = folder / std::to_string(i);
    write(path, bytes);
    Document document = whole_file(path);
    document.begin = random_below(random, document.file_size);
    document.end = document.begin + random_below(random, document.file_size - document.begin + 1);
    row.documents.push_back(document);
    row.texts.push_back(bytes.substr(static_cast<size_t>(document.begin),
                                     static_cast<size_t>(document.end - document.begin)));
    if (i > 0) row.tokens.push_back(kByteEndOfDocument);
    for (const char byte : row.texts.back()) row.tokens.push_back(static_cast<uint8_t>(byte));
  }
  return row;
}

TEST(ByteSource, IsTheDocumentsWithAnEndBetween) {
  Random random(1);
  for (const int64_t documents : {0, 1, 2, 10, 500}) {  // 500: more than are kept mapped
    const TemporaryFolder folder;
    const Row row = random_row(random, folder, documents);
    const auto source = make_byte_source(row.documents, "a row");
    ASSERT_EQ(source->size(), std::ssize(row.tokens));
    EXPECT_EQ(source->bytes(), total_bytes(row.documents));
    for (int trial = 0; trial < 300; ++trial) {
      const int64_t begin = random_below(random, source->size() + 1);
      const int64_t count = random_below(random, source->size() - begin + 1);
      std::vector<int32_t> out(static_cast<size_t>(count));
      source->read(begin, out);
      ASSERT_EQ(out, std::vector<int32_t>(row.tokens.begin() + begin,
                                          row.tokens.begin() + begin + count));
    }
  }
}

TEST(ByteSource, RefusesToReadOutside) {
  Random random(2);
  const TemporaryFolder folder;
  const auto source = make_byte_source(random_row(random, folder, 3).documents, "a row");
  std::vector<int32_t> out(2);
  for (const int64_t begin : {int64_t{-1}, source->size() - 1, source->size(), int64_t{1} << 62}) {
    EXPECT_NE(error_of([&] { source->read(begin, out); }).find("a row"), std::string::npos);
  }
}

TEST(ByteSource, AFileThatChangesUnderItIsAnError) {
  const TemporaryFolder folder;
  write(folder / "text", std::string(100'000, 'a'));
  std::vector<int32_t> out(10);

  const auto not_yet_mapped = make_byte_source({whole_file(folder / "text")}, "a row");
  const auto mapped = make_byte_source({whole_file(folder / "text")}, "a row");
  mapped->read(0, out);
  fs::resize_file(folder / "text", 50'000);
  for (const auto& source : {mapped, not_yet_mapped}) {
    EXPECT_NE(error_of([&] { source->read(90'000, out); }).find("text"), std::string::npos);
  }
  fs::remove(folder / "text");
  const auto removed = make_byte_source({{folder / "text", 50'000, 0, 50'000}}, "a row");
  EXPECT_NE(error_of([&] { removed->read(0, out); }).find("No such file"), std::string::npos);
}

TEST(ByteSource, ReadsATextLargerThanMemory) {
  const TemporaryFolder folder;
  constexpr int64_t kSize = int64_t{1} << 40;  // a hole, but for what is written at its ends
  write(folder / "text", "begin");
  fs::resize_file(folder / "text", kSize - 3);
  std::ofstream(folder / "text", std::ios::app) << "end";
  const auto source = make_byte_source({whole_file(folder / "text")}, "a row");
  EXPECT_EQ(source->size(), kSize);
  std::vector<int32_t> out(3);
  source->read(kSize - 3, out);
  EXPECT_EQ(make_byte_tokenizer()->decode(out), "end");
  Random random(3);
  for (int trial = 0; trial < 100; ++trial) {
    source->read(5 + random_below(random, kSize - 11), out);
    EXPECT_EQ(out, (std::vector<int32_t>{0, 0, 0}));
  }
  rusage usage;
  ASSERT_EQ(::getrusage(RUSAGE_SELF, &usage), 0);
  EXPECT_LT(usage.ru_maxrss, 1 << 20);  // KiB
}

TEST(VisitText, GivesTheDocumentsInPartsThatSayWhatTheyContinue) {
  Random random(4);
  for (int trial = 0; trial < 10; ++trial) {
    const TemporaryFolder folder;
    std::vector<Document> documents;
    std::vector<std::string> texts;
    for (int64_t i = 0; i < 6; ++i) {  // about the length of a part, and some to a byte
      texts.push_back(
          random_text(random, (1 << 16) - 3 + random_below(random, i % 2 == 0 ? 6 : 200'000)));
      write(folder / std::to_string(i), texts.back());
      documents.push_back(whole_file(folder / std::to_string(i)));
    }
    const auto source = make_byte_source(documents, "a row");
    std::vector<std::string> visited;
    visit_text(*source, *make_byte_tokenizer(), source->size() + (1 << 16),
               [&](std::string_view text, bool continues) {
                 if (!continues) visited.emplace_back();
                 ASSERT_FALSE(visited.empty());
                 visited.back() += text;
               });
    EXPECT_EQ(visited, texts);
  }
}

TEST(VisitText, OfALongTextTakesEvenlySpreadParts) {
  const TemporaryFolder folder;
  std::string text;
  for (int part = 0; part < 64; ++part) text += std::string(1 << 16, static_cast<char>('0' + part));
  write(folder / "text", text);
  const auto source = make_byte_source({whole_file(folder / "text")}, "a row");
  for (const int64_t parts : {1, 4, 16, 32}) {
    std::string first_letters;
    visit_text(*source, *make_byte_tokenizer(), parts << 16,
               [&](std::string_view part, bool continues) {
                 EXPECT_FALSE(continues);
                 first_letters += part[0];
               });
    ASSERT_EQ(std::ssize(first_letters), parts);
    for (int64_t i = 0; i < parts; ++i)
      EXPECT_EQ(first_letters[static_cast<size_t>(i)], '0' + 64 / parts * i);
  }
}

}  // namespace
}  // namespace pararnn::data
