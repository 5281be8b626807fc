// What a model counts, reckoned from its config alone: its parameters, part by part, and the
// operations of a step.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "nn/config.hpp"

namespace pararnn::train {

/// Parameters of one kind.
struct ParameterPart {
  std::string name;
  double count;
};

/// The parameters of a model: "embedding", the mixers by their names in its pattern, "MLPs", "norms
/// and scales" (of blocks, and the last norm) and, where it is not the embedding, "output". Of a
/// valid config, whose cells are looked up. Counts are a double: they may be beyond 64 bits.
std::vector<ParameterPart> parameters_by_part(const nn::ModelConfig& config);

/// Numbers in all parameters of a model.
double parameter_count(const nn::ModelConfig& config);

/// Floating-point operations of a step for each token of rows of that length: six for a parameter
/// (Kaplan et al., arXiv:2001.08361), the embedding's counted too, and three times what the mixers
/// say of their own. What a cell computes between the products is less than a thousandth of it and
/// not counted.
double operations_per_token(const nn::ModelConfig& config, int64_t length);

}  // namespace pararnn::train
