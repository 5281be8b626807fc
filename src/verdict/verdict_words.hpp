// The sentences in which a verdict's report on the terminal and its page agree.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace pararnn {

/// A label and what there is to say of it, a line or more.
struct VerdictFact {
  std::string label;
  std::vector<std::string> lines;
};

/// What a verdict says in words: the cell, its derivatives, the engine, a step, kernels, cost. A
/// section that is not available says why.
std::vector<VerdictFact> verdict_facts(const nlohmann::json& verdict);

/// Why a section is not available, in a line that is not too long; empty if it is.
std::string why_not_available(const nlohmann::json& section);

/// "1 step", "2 steps"
std::string counted(int64_t count, const char* what);

/// "weights ±1, gate bias 4"
std::string regime_words(const nlohmann::json& regime);

}  // namespace pararnn
