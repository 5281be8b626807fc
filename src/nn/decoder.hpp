// A model that reads a token of each of B rows at a time, from tensors that stay where they are: so
// that a step can be captured in a CUDA graph, and run again without the host.
#pragma once

#include <memory>

#include "nn/language_model.hpp"

namespace pararnn::nn {

class Decoder {
 public:
  virtual ~Decoder() = default;

  /// Tokens (B), int64, on the model's device: logits() are then those of the tokens after them.
  virtual void read(const torch::Tensor& tokens) = 0;
  /// (B,V); always the same tensor.
  virtual const torch::Tensor& logits() const = 0;
};

/// Goes on from the state of B rows, with room for the steps to come (LanguageModel's reserve), for
/// logits like `logits` (B,V). The model must stay, and its weights as they are.
std::unique_ptr<Decoder> make_decoder(LanguageModel& model, const LanguageModelState& state,
                                      const torch::Tensor& logits);

/// The same by the model's own modules, for any model on any device.
std::unique_ptr<Decoder> make_module_decoder(LanguageModel& model, const LanguageModelState& state,
                                             const torch::Tensor& logits);

}  // namespace pararnn::nn
