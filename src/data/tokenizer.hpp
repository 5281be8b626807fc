// A tokenizer turns text (any bytes, valid UTF-8 or not) into tokens 0..vocabulary-1 and back,
// without loss: decode(encode(x)) == x for every x. Decoding is token by token: the text of a row
// of tokens is the texts of its tokens one after the other, so output can be streamed. Beside the
// tokens of text there is one that ends a document. A tokenizer is stored in a folder as
// tokenizer.json, with the model beside it if it has one.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace pararnn::data {

class Tokenizer {
 public:
  virtual ~Tokenizer() = default;

  virtual int64_t vocabulary_size() const = 0;
  virtual std::vector<int32_t> encode(std::string_view text) const = 0;
  /// Error if a token is outside the vocabulary. The end of a document has no text.
  virtual std::string decode(std::span<const int32_t> tokens) const = 0;
  /// "bytes" or "sentencepiece".
  virtual std::string name() const = 0;
  virtual int32_t end_of_document() const = 0;
  /// What load_tokenizer needs beside the name; empty for bytes.
  virtual std::string model() const { return {}; }
};

/// One token a byte, and the end of a document: a vocabulary of 257.
inline constexpr int32_t kByteEndOfDocument = 256;
std::shared_ptr<const Tokenizer> make_byte_tokenizer();

/// Writes the tokenizer into an existing folder.
void save_tokenizer(const Tokenizer& tokenizer, const std::filesystem::path& folder);

/// Error if the folder holds no tokenizer, or a damaged one.
std::shared_ptr<const Tokenizer> load_tokenizer(const std::filesystem::path& folder);

}  // namespace pararnn::data
