// How well a model predicts a text it was not trained on. The text is cut into windows that each
// begin with an empty state; a window longer than a piece is read piece by piece with the state
// carried on, so a context of any length costs the memory of one piece, and in layers of attention
// that of the keys and values before it.
#pragma once

#include <cstdint>

#include "data/token_source.hpp"
#include "data/tokenizer.hpp"
#include "nn/language_model.hpp"

namespace pararnn::train {

struct EvaluationOptions {
  int64_t batch = 16;      // windows read side by side
  int64_t length = 256;    // tokens in a piece
  int64_t context = 0;     // tokens in a window; 0: one piece
  bool documents = false;  // the state begins anew at each token that ends a document
  int64_t tokens =
      0;  // about how many tokens to predict, in windows spread evenly over the text; 0: all
};

/// Sums over the predicted tokens. `bytes` is the length of the text that they stand for, so that
/// bits per byte can be compared between tokenizers.
struct Score {
  double nats = 0;
  int64_t tokens = 0, bytes = 0;
  double seconds = 0;

  double loss() const { return nats / static_cast<double>(tokens); }  // nats per token
  double perplexity() const;
  double bits_per_byte() const;
};

/// Computes on the model's device. Throws Error if the source has fewer than two tokens.
Score evaluate(nn::LanguageModel& model, const data::TokenSource& source,
               const data::Tokenizer& tokenizer, const EvaluationOptions& options);

}  // namespace pararnn::train
