// The cells that the engine's tests run (engine_test_support.hpp).
#include "catalogue.hpp"
#include "engine_test_support.hpp"
#include "pararnn/cpu/kernels.hpp"

#if !defined(__SANITIZE_ADDRESS__)
#include "cells/cell_reference.hpp"
#include "cells/cell_registry.hpp"
#include "cells/cpu_kernels.hpp"
#endif

namespace pararnn::test {
namespace {

template <class C, class T>
CellUnderTest<T> compiled_here(const char* name) {
  return {name, cpu::make_kernels<C, T>(), &reference_forward<C, T>, &reference_backward<C, T>,
          &reference_bounds<C, T>};
}

template <class T>
std::vector<CellUnderTest<T>> make_cells() {
  std::vector<CellUnderTest<T>> cells;
#if defined(__SANITIZE_ADDRESS__)
  // Instrumented kernels take minutes to compile for all cells; one stands for them.
  cells.push_back(compiled_here<Gru, T>("gru"));
#else
  for (const CellDefinition& cell : built_in_cells()) {
    const CellReference& loops = cell_reference(cell);
    if constexpr (sizeof(T) == 4) {
      cells.push_back({cell.name, cpu_kernels<T>(cell), loops.single_forward, loops.single_backward,
                       loops.single_bounds});
    } else {
      cells.push_back({cell.name, cpu_kernels<T>(cell), loops.double_forward, loops.double_backward,
                       loops.double_bounds});
    }
  }
  if constexpr (sizeof(T) == 8) {
#define PARARNN_CELL_UNDER_TEST(name, Type) cells.push_back(compiled_here<Type, T>(#name));
    PARARNN_PREDICTABLE_CATALOGUE(PARARNN_CELL_UNDER_TEST)
#undef PARARNN_CELL_UNDER_TEST
  }
#endif
  return cells;
}

}  // namespace

template <class T>
const std::vector<CellUnderTest<T>>& cells_under_test() {
  static const std::vector<CellUnderTest<T>> cells = make_cells<T>();
  return cells;
}
template const std::vector<CellUnderTest<float>>& cells_under_test();
template const std::vector<CellUnderTest<double>>& cells_under_test();

}  // namespace pararnn::test
