#include "cells/cpu_kernels.hpp"

#include <cstdlib>

#include "base/error.hpp"
#include "cells/built_in.hpp"
#include "cells/cell_table.hpp"
#include "pararnn/cells.hpp"

namespace pararnn {
namespace cpu {

// In built_in_kernels.cpp.
#define PARARNN_DECLARE(name, Type)              \
  void name##_avx512(Kernels<float>& kernels);   \
  void name##_avx512(Kernels<double>& kernels);  \
  void name##_avx2(Kernels<float>& kernels);     \
  void name##_avx2(Kernels<double>& kernels);    \
  void name##_baseline(Kernels<float>& kernels); \
  void name##_baseline(Kernels<double>& kernels);
PARARNN_CELLS(PARARNN_DECLARE)
#undef PARARNN_DECLARE

}  // namespace cpu
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

/// The compiler's options for an instruction set: those of the built-in kernels.
std::vector<std::string> options_of(const std::string& set) {
  const std::string flags = set == "avx512" ? PARARNN_FLAGS_AVX512
                            : set == "avx2" ? PARARNN_FLAGS_AVX2
                                            : "";
  std::vector<std::string> options;
  for (size_t begin = 0; begin < flags.size();) {
    const size_t end = std::min(flags.find(' ', begin), flags.size());
    options.push_back(flags.substr(begin, end - begin));
    begin = end + 1;
  }
  return options;
}

template <class T>
std::map<std::string, cpu::Kernels<T>> built_in_kernels() {
  const std::string& set = instruction_set();
  std::map<std::string, cpu::Kernels<T>> result;
#define PARARNN_ENTRY(name, Type)                                 \
  {                                                               \
    cpu::Kernels<T>& kernels = result[digest_of_built_in(#name)]; \
    if (set == "avx512") {                                        \
      cpu::name##_avx512(kernels);                                \
    } else if (set == "avx2") {                                   \
      cpu::name##_avx2(kernels);                                  \
    } else {                                                      \
      cpu::name##_baseline(kernels);                              \
    }                                                             \
  }
  PARARNN_CELLS(PARARNN_ENTRY)
#undef PARARNN_ENTRY
  return result;
}

}  // namespace

const std::string& instruction_set() {
  static const std::string set = choose_instruction_set();
  return set;
}

template <class T>
const cpu::Kernels<T>& cpu_kernels(const CellDefinition& cell) {
  static auto& tables =
      *new CellTables<cpu::Kernels<T>>({"pararnn/cpu/kernels.hpp",
                                        sizeof(T) == 4 ? "pararnn::cpu::make_kernels<{}, float>"
                                                       : "pararnn::cpu::make_kernels<{}, double>",
                                        options_of(instruction_set())},
                                       built_in_kernels<T>());
  return tables.of(cell);
}
template const cpu::Kernels<float>& cpu_kernels(const CellDefinition& cell);
template const cpu::Kernels<double>& cpu_kernels(const CellDefinition& cell);

}  // namespace pararnn
