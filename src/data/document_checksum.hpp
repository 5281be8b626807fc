// A hash of every byte of documents.
#pragma once

#include <cstdint>
#include <span>

#include "data/corpus.hpp"

namespace pararnn::data {

/// Hash of the bytes of all the documents, in their order. Reads on every core. Error if one cannot
/// be read, or has another size than it had.
uint64_t checksum_of_documents(std::span<const Document> documents);

}  // namespace pararnn::data
