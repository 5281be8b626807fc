// The sections of a verdict, one function each. They may throw; the verdict then says why.
#pragma once

#include <nlohmann/json.hpp>

#include "verdict/cell_contract.hpp"
#include "verdict/verdict.hpp"

namespace pararnn {

/// The grid of weights and gate biases that the verdict looks at, as `pararnn check --grid` does.
inline constexpr double kWeightScales[] = {0.5, 1, 2, 4, 8};
inline constexpr double kGateBiases[] = {-8, -4, 0, 4, 8};

/// Weights up to 1 and no gate bias: what the conclusion is drawn from.
inline constexpr Regime kModerate = {1, 0};

/// All of it; see verdict(). The sections that need the operators fail for a cell that they do not
/// have.
nlohmann::json verdict_on(const CellContract& cell, const VerdictOptions& options);

nlohmann::json contract_section(const CellContract& cell);
nlohmann::json derivatives_section(const CellContract& cell);
nlohmann::json forgetting_section(const CellContract& cell);
nlohmann::json newton_section(const CellContract& cell);
nlohmann::json lyapunov_section(const CellContract& cell);

/// The operators against the plain loop, over the grid, on each device.
nlohmann::json engine_section(const CellContract& cell, const VerdictOptions& options);

/// Operations of a step; registers and spills of the kernels for a GPU.
nlohmann::json kernels_section(const CellContract& cell, const VerdictOptions& options);

/// The time of a step on each device, beside that of the built-in gru.
nlohmann::json cost_section(const CellContract& cell, const VerdictOptions& options);

/// What the other sections come to, by the criteria of verdict.hpp.
nlohmann::json conclusion_section(const nlohmann::json& verdict);

}  // namespace pararnn
