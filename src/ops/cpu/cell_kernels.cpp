#include "ops/cpu/cell_kernels.hpp"

#include <cstdlib>
#include <map>

#include "base/error.hpp"
#include "pararnn/cells.hpp"

namespace pararnn::cpu {

#define PARARNN_DECLARE(name, Type, summary) \
  CellKernels name##_avx512();               \
  CellKernels name##_avx2();                 \
  CellKernels name##_baseline();
PARARNN_CELLS(PARARNN_DECLARE)
#undef PARARNN_DECLARE

namespace {

bool machine_has(const std::string& set) {
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  if (set == "avx512") {
    return avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
  }
  return set == "avx2" ? avx2 : set == "baseline";
}

std::string choose_instruction_set() {
  if (const char* wanted = std::getenv("PARARNN_INSTRUCTION_SET")) {
    require(machine_has(wanted),
            "PARARNN_INSTRUCTION_SET={}: this machine has no such instruction set; unset it, or "
            "use avx512, avx2 or baseline",
            wanted);
    return wanted;
  }
  return machine_has("avx512") ? "avx512" : machine_has("avx2") ? "avx2" : "baseline";
}

std::map<std::string, CellKernels> table() {
  std::map<std::string, CellKernels> result;
  const std::string& set = instruction_set();
#define PARARNN_ENTRY(name, Type, summary) \
  result[#name] =                          \
      set == "avx512" ? name##_avx512() : (set == "avx2" ? name##_avx2() : name##_baseline());
  PARARNN_CELLS(PARARNN_ENTRY)
#undef PARARNN_ENTRY
  return result;
}

}  // namespace

const std::string& instruction_set() {
  static const std::string set = choose_instruction_set();
  return set;
}

const CellKernels& cell_kernels(const std::string& cell) {
  static const std::map<std::string, CellKernels> kernels = table();
  find_cell(cell);  // throws with the names there are
  return kernels.at(cell);
}

}  // namespace pararnn::cpu
