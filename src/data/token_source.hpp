// A token source is a long row of tokens with random access: documents one after the other, a token
// that ends a document between them. Text is read through memory maps and the place of a token
// found by bisection, so neither the length of the text nor the number of files costs more than the
// list of the files. Sources do not change and may be read by several threads.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "data/corpus.hpp"
#include "data/tokenizer.hpp"

namespace pararnn::data {

class TokenSource {
 public:
  virtual ~TokenSource() = default;

  /// Number of tokens.
  virtual int64_t size() const = 0;
  /// Bytes of text that the tokens stand for.
  virtual int64_t bytes() const = 0;
  /// What the tokens are, for messages: "the training text of /data/books".
  virtual std::string name() const = 0;

  /// Tokens [begin, begin + out.size()). Error if these are not all there, or if the files under it
  /// are damaged.
  void read(int64_t begin, std::span<int32_t> out) const;

 private:
  virtual void read_checked(int64_t begin, std::span<int32_t> out) const = 0;
};

/// The bytes of documents as the byte tokenizer's tokens.
std::shared_ptr<const TokenSource> make_byte_source(std::vector<Document> documents,
                                                    std::string name);

/// Calls `visit` with the text of the source, in order and in parts of bounded size; `continues`
/// says that the part follows the one before inside a document. Of a source above `most_tokens`,
/// evenly spread parts of about that many tokens in all.
void visit_text(const TokenSource& source, const Tokenizer& tokenizer, int64_t most_tokens,
                const std::function<void(std::string_view text, bool continues)>& visit);

}  // namespace pararnn::data
