#include "verdict/verdict.hpp"

#include "kernels/version.hpp"
#include "verdict/sections.hpp"

namespace pararnn {

nlohmann::json verdict(const std::string& cell, const VerdictOptions& options) {
  return verdict_on(cell_contract(cell), options);
}

nlohmann::json verdict_on(const CellContract& cell, const VerdictOptions& options) {
  using json = nlohmann::json;
  json result = {{"cell", cell.definition.name}, {"version", version()}};
  const auto section = [&](const char* name, const auto& work) {
    options.progress(name);
    try {
      result[name] = work();
    } catch (const std::exception& error) {
      result[name] = {{"not_available", error.what()}};
    }
  };
  section("contract", [&] { return contract_section(cell); });
  section("derivatives", [&] { return derivatives_section(cell); });
  section("engine_against_loop", [&] { return engine_section(cell, options); });
  section("forgetting", [&] { return forgetting_section(cell); });
  section("newton", [&] { return newton_section(cell); });
  section("lyapunov", [&] { return lyapunov_section(cell); });
  section("kernels", [&] { return kernels_section(cell, options); });
  section("cost", [&] { return cost_section(cell, options); });
  section("conclusion", [&] { return conclusion_section(result); });
  return result;
}

}  // namespace pararnn
