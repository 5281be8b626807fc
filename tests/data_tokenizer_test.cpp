#include "data/tokenizer.hpp"

#include "data/sentencepiece_tokenizer.hpp"
#include "data/utf8.hpp"
#include "data_test_support.hpp"

namespace pararnn::data {
namespace {

std::string learned_model() {
  Random random(1);
  static const std::string model = train_sentencepiece({random_text(random, 50'000)}, 400, 1);
  return model;
}

std::vector<std::shared_ptr<const Tokenizer>> all_tokenizers() {
  return {make_byte_tokenizer(), make_sentencepiece_tokenizer(learned_model())};
}

/// Text that a tokenizer may trip over: valid and broken UTF-8, its own marks and names of pieces,
/// control characters.
std::string random_nasty_text(Random& random) {
  static const std::vector<std::string> kParts = {"abc",
                                                  " ",
                                                  "   ",
                                                  "\n",
                                                  "\r\n",
                                                  "\t",
                                                  std::string(1, '\0'),
                                                  "<0x41>",
                                                  "<unk>",
                                                  "</s>",
                                                  "<s>",
                                                  "\xe2\x96\x81",
                                                  "\xe2\x81\x87",
                                                  "\xef\xbf\xbd",
                                                  "\xc3\xa9",
                                                  "\xf0\x9f\x99\x82",
                                                  "\xe2\x96",
                                                  "\xed\xa0\x80",
                                                  "\xc0\x80",
                                                  "\xf4\x90\x80\x80",
                                                  "\xff",
                                                  "e\xcc\x81",
                                                  "\xef\xbb\xbf",
                                                  "\xe4\xb8\xad\xe6\x96\x87"};
  std::string text;
  for (int64_t parts = random_below(random, 60); parts > 0; --parts) {
    text += random_below(random, 8) == 0
                ? random_bytes(random, random_below(random, 5))
                : kParts[static_cast<size_t>(random_below(random, std::ssize(kParts)))];
  }
  return text;
}

TEST(Tokenizer, DecodesWhatItEncodes) {
  Random random(2);
  for (const auto& tokenizer : all_tokenizers()) {
    for (int trial = 0; trial < 300; ++trial) {
      for (const std::string& text :
           {random_nasty_text(random), random_bytes(random, random_below(random, 300)),
            random_text(random, 200)}) {
        EXPECT_EQ(tokenizer->decode(tokenizer->encode(text)), text);
      }
    }
    const std::string long_line = random_bytes(random, 20'000) + std::string(20'000, 'a');
    EXPECT_EQ(tokenizer->decode(tokenizer->encode(long_line)), long_line);
  }
}

TEST(Tokenizer, TokensAreInTheVocabularyAndTextNeverHoldsTheEnd) {
  Random random(3);
  for (const auto& tokenizer : all_tokenizers()) {
    for (int trial = 0; trial < 100; ++trial) {
      for (const int32_t token : tokenizer->encode(random_nasty_text(random))) {
        EXPECT_GE(token, 0);
        EXPECT_LT(token, tokenizer->vocabulary_size());
        EXPECT_NE(token, tokenizer->end_of_document());
      }
    }
  }
}

TEST(Tokenizer, DecodesTokenByToken) {
  Random random(4);
  for (const auto& tokenizer : all_tokenizers()) {
    const std::string text = random_nasty_text(random) + random_text(random, 500);
    std::string joined;
    for (const int32_t token : tokenizer->encode(text)) joined += tokenizer->decode({&token, 1});
    EXPECT_EQ(joined, text);
  }
}

TEST(Tokenizer, TheEndOfADocumentHasNoText) {
  for (const auto& tokenizer : all_tokenizers()) {
    const int32_t end = tokenizer->end_of_document();
    EXPECT_EQ(tokenizer->decode({&end, 1}), "");
  }
}

TEST(Tokenizer, RefusesTokensOutsideTheVocabulary) {
  for (const auto& tokenizer : all_tokenizers()) {
    for (const int64_t wrong : {int64_t{-1}, tokenizer->vocabulary_size()}) {
      const auto token = static_cast<int32_t>(wrong);
      EXPECT_NE(error_of([&] {
                  tokenizer->decode({&token, 1});
                }).find(std::to_string(wrong)),
                std::string::npos);
    }
  }
}

TEST(Tokenizer, SurvivesBeingSaved) {
  Random random(5);
  for (const auto& tokenizer : all_tokenizers()) {
    const TemporaryFolder folder;
    save_tokenizer(*tokenizer, folder.path());
    const auto loaded = load_tokenizer(folder.path());
    EXPECT_EQ(loaded->name(), tokenizer->name());
    EXPECT_EQ(loaded->vocabulary_size(), tokenizer->vocabulary_size());
    EXPECT_EQ(loaded->end_of_document(), tokenizer->end_of_document());
    const std::string text = random_nasty_text(random) + random_text(random, 500);
    EXPECT_EQ(loaded->encode(text), tokenizer->encode(text));
  }
}

TEST(Tokenizer, DamageIsAnErrorThatNamesTheFile) {
  Random random(6);
  const TemporaryFolder folder;
  save_tokenizer(*make_sentencepiece_tokenizer(learned_model()), folder.path());
  const std::string description = read(folder / "tokenizer.json");
  const std::string model = read(folder / "tokenizer.model");
  for (int trial = 0; trial < 100; ++trial) {
    std::string damaged = model;
    const auto at = static_cast<size_t>(random_below(random, std::ssize(model)));
    if (trial % 2 == 0) {
      damaged.resize(at);
    } else {
      damaged[at] = static_cast<char>(damaged[at] ^ (1 + random_below(random, 255)));
    }
    write(folder / "tokenizer.model", damaged);
    EXPECT_NE(error_of([&] { load_tokenizer(folder.path()); }).find("tokenizer.model"),
              std::string::npos);
  }
  write(folder / "tokenizer.model", model);
  for (size_t kept = 0; kept + 2 < description.size(); ++kept) {
    write(folder / "tokenizer.json", description.substr(0, kept));
    EXPECT_NE(error_of([&] { load_tokenizer(folder.path()); }).find("tokenizer.json"),
              std::string::npos);
  }
  std::filesystem::remove(folder / "tokenizer.json");
  EXPECT_NE(error_of([&] { load_tokenizer(folder.path()); }).find("tokenizer.json"),
            std::string::npos);
}

TEST(SentencePiece, EncodingSegmentBySegmentIsEncodingTheWhole) {
  Random random(7);
  const auto tokenizer = make_sentencepiece_tokenizer(learned_model());
  for (int trial = 0; trial < 20; ++trial) {
    const std::string text =
        random_nasty_text(random) + random_text(random, 3000) + random_bytes(random, 10'000);
    std::vector<int32_t> tokens;
    for (std::string_view rest = text; !rest.empty();
         rest.remove_prefix(first_segment(rest).size())) {
      const std::vector<int32_t> more = tokenizer->encode(first_segment(rest));
      tokens.insert(tokens.end(), more.begin(), more.end());
    }
    EXPECT_EQ(tokens, tokenizer->encode(text));
  }
}

TEST(SentencePiece, ALargerVocabularyShortensText) {
  Random random(1);
  const std::string text = random_text(random, 50'000);
  int64_t tokens = std::ssize(text);
  for (const int64_t vocabulary : {300, 400, 800}) {
    const auto tokenizer = make_sentencepiece_tokenizer(train_sentencepiece({text}, vocabulary, 1));
    EXPECT_EQ(tokenizer->vocabulary_size(), vocabulary);
    const int64_t fewer = std::ssize(tokenizer->encode(text));
    EXPECT_LT(fewer, tokens);
    tokens = fewer;
  }
}

TEST(SentencePiece, SaysWhichVocabulariesTheTextAllows) {
  const std::vector<std::string> samples = {"abab abab abab\n", "ab ba\n"};
  EXPECT_NE(error_of([&] { train_sentencepiece(samples, 5000, 1); }).find("at most"),
            std::string::npos);
  EXPECT_NE(error_of([&] { train_sentencepiece(samples, 100, 1); }).find("at least"),
            std::string::npos);
  EXPECT_NE(error_of([&] { train_sentencepiece({"\xff\xfe"}, 300, 1); }).find("UTF-8"),
            std::string::npos);
  EXPECT_NE(error_of([&] { make_sentencepiece_tokenizer("not a model"); }).find("SentencePiece"),
            std::string::npos);
}

/// Bytes of a code point by the definition of UTF-8.
std::string utf8(uint32_t code) {
  const auto tail = [&](int shift) { return static_cast<char>(0x80 | ((code >> shift) & 0x3f)); };
  if (code < 0x80) return {static_cast<char>(code)};
  if (code < 0x800) return {static_cast<char>(0xc0 | code >> 6), tail(0)};
  if (code < 0x10000) return {static_cast<char>(0xe0 | code >> 12), tail(6), tail(0)};
  return {static_cast<char>(0xf0 | code >> 18), tail(12), tail(6), tail(0)};
}

TEST(Utf8, AcceptsEveryCodePointWholeAndNothingElse) {
  for (uint32_t code = 0; code < 0x120000; ++code) {
    const std::string character = utf8(code);
    const bool valid = code <= 0x10ffff && (code < 0xd800 || code > 0xdfff);
    ASSERT_EQ(utf8_character(character + "x"), valid ? character.size() : 0) << code;
    ASSERT_EQ(is_utf8("x" + character), valid) << code;
    ASSERT_EQ(utf8_character(character.substr(0, character.size() - 1)), 0u) << code;
  }
}

TEST(Utf8, ABoundaryCutsNoCharacter) {
  Random random(8);
  for (int trial = 0; trial < 200; ++trial) {
    std::string text;
    for (int i = 0; i < 20; ++i) text += utf8(static_cast<uint32_t>(random_below(random, 0xd800)));
    for (size_t wanted = 4; wanted <= text.size(); ++wanted) {
      const size_t boundary = utf8_boundary(text, wanted);
      EXPECT_LE(boundary, wanted);
      EXPECT_GT(boundary + 4, wanted);
      size_t at = 0;
      while (at < boundary) at += utf8_character(std::string_view(text).substr(at));
      EXPECT_EQ(at, boundary);
    }
  }
}

}  // namespace
}  // namespace pararnn::data
