// Byte-pair encoding by the SentencePiece library (Kudo and Richardson 2018), set up to lose
// nothing: no normalisation, no added space, whitespace pieces allowed, and bytes for what no piece
// covers. What the library would not give back is spelled in byte tokens before it sees it: what is
// not valid UTF-8, zero bytes, and U+2581, by which it marks spaces. A text is encoded line by
// line, so that a document can be encoded in parts.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "data/tokenizer.hpp"

namespace pararnn::data {

/// From the serialised model of train_sentencepiece. Error if it is damaged or not lossless.
std::shared_ptr<const Tokenizer> make_sentencepiece_tokenizer(const std::string& model);

/// Learns a vocabulary of exactly `vocabulary` pieces from samples of text, which are all held in
/// memory, and returns the serialised model. Error if the samples are too small, or their alphabet
/// too large, for that vocabulary.
std::string train_sentencepiece(const std::vector<std::string>& samples, int64_t vocabulary,
                                int threads);

/// The first part of a text that is encoded on its own: to the end of its first line, at most 4096
/// bytes. Encoding part by part gives what encoding the whole gives.
std::string_view first_segment(std::string_view text);

}  // namespace pararnn::data
