#include "verdict/verdict.hpp"

#include "ops/version.hpp"
#include "verdict/sections.hpp"

namespace pararnn {

nlohmann::json verdict(const std::string& cell, const VerdictOptions& options) {
  using json = nlohmann::json;
  const CellContract contract = cell_contract(cell);
  json result = {{"cell", contract.definition.name}, {"version", version()}};
  const auto section = [&](const char* name, const auto& work) {
    options.progress(name);
    try {
      result[name] = work();
    } catch (const std::exception& error) {
      result[name] = {{"not_available", error.what()}};
    }
  };
  section("contract", [&] { return contract_section(contract); });
  section("derivatives", [&] { return derivatives_section(contract); });
  section("engine_against_loop", [&] { return engine_section(contract, options); });
  section("forgetting", [&] { return forgetting_section(contract); });
  section("newton", [&] { return newton_section(contract); });
  section("lyapunov", [&] { return lyapunov_section(contract); });
  section("kernels", [&] { return kernels_section(contract, options); });
  section("cost", [&] { return cost_section(contract, options); });
  section("conclusion", [&] { return conclusion_section(result); });
  return result;
}

}  // namespace pararnn
