// Cells for callers that know LibTorch's operators alone, such as the Python package: how they are
// read and defined, and what they are. Whatever is more than one text is JSON.
#include <nlohmann/json.hpp>

#include "cells/cell_registry.hpp"
#include "kernels/scan_statistics.hpp"
#include "kernels/torch_stable.hpp"

namespace pararnn::kernels {
namespace {

using nlohmann::json;

/// What is no UTF-8 can only stand in a comment or a text, and is replaced.
std::string json_text(const json& value) {
  return value.dump(-1, ' ', false, json::error_handler_t::replace);
}

std::string define_cell_operator(StringHandle text_handle, StringHandle type_handle,
                                 StringHandle origin_handle) {
  const Text text(text_handle), type(type_handle), origin(origin_handle);
  return register_cell(define_cell(std::string(text), type, std::string(origin))).key();
}

std::string cell_key(StringHandle cell_handle) {
  const Text cell(cell_handle);
  return find_cell(cell).key();
}

std::string tangent_key(StringHandle cell_handle) {
  const Text cell(cell_handle);
  return find_tangent(find_cell(cell)).key();
}

int64_t state_count(StringHandle cell_handle) {
  const Text cell(cell_handle);
  return find_cell(cell).state;
}

std::string describe_cell_operator(StringHandle cell_handle) {
  const Text name(cell_handle);
  const CellDefinition& cell = find_cell(name);
  return json_text({{"key", cell.key()},
                    {"name", cell.name},
                    {"state", cell.state},
                    {"inputs", cell.inputs},
                    {"params", cell.params},
                    {"source", cell.text},
                    {"struct", cell.type},
                    {"summary", cell.summary},
                    {"state_names", cell.state_names},
                    {"input_names", cell.input_names},
                    {"param_names", cell.param_names},
                    {"side_inputs", cell.side_inputs},
                    {"memory_input", cell.memory_input},
                    {"memory_direction", cell.memory_direction}});
}

std::string cell_list() {
  json names = json::array();
  for (const CellDefinition* cell : registered_cells()) names.push_back(cell->name);
  return json_text(names);
}

/// Of the last forward and the last backward pass: the way (-1: there was none), and the numbers of
/// ScanStatistics in their order. A tensor, as texts that operators return are never freed by
/// LibTorch 2.11, and this is asked for again and again.
Tensor last_statistics() {
  constexpr std::array<int64_t, 2> kShape{2, 9};
  const Tensor result = torch::stable::empty({kShape.data(), 2}, ScalarType::Double);
  double* to = result.mutable_data_ptr<double>();
  const auto [forward, backward] = last_scan_statistics();
  for (const ScanStatistics* s : {&forward, &backward}) {
    double way = -1;
    for (const Way each : {Way::kSequential, Way::kSpeculative, Way::kNewton}) {
      if (way_name(each) == s->plan) way = double(each);
    }
    for (const double number :
         {way, double(s->chunk), double(s->chunks), double(s->burn_in), s->largest_mismatch,
          double(s->newton_iterations), double(s->columns), double(s->columns_corrected),
          double(s->columns_repaired)}) {
      *to++ = number;
    }
  }
  return result;
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(pararnn, m) {
  m.def("_define_cell(str text, str type, str origin) -> str");
  m.def("_cell_key(str cell) -> str");
  m.def("_tangent_key(str cell) -> str");
  m.def("_describe_cell(str cell) -> str");
  m.def("_cell_list() -> str");
  m.def("_state_count(str cell) -> int");
  m.def("_last_statistics() -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(pararnn, CompositeExplicitAutograd, m) {
  m.impl("_define_cell", &boxed<&define_cell_operator>);
  m.impl("_cell_key", &boxed<&cell_key>);
  m.impl("_tangent_key", &boxed<&tangent_key>);
  m.impl("_describe_cell", &boxed<&describe_cell_operator>);
  m.impl("_cell_list", &boxed<&cell_list>);
  m.impl("_state_count", &boxed<&state_count>);
  m.impl("_last_statistics", &boxed<&last_statistics>);
}

}  // namespace pararnn::kernels
