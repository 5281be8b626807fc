// The verdict on a cell for callers that know LibTorch's operators alone. Devices are a JSON list.
#include "kernels/torch_stable.hpp"
#include "verdict/verdict.hpp"
#include "verdict/verdict_page.hpp"
#include "verdict/verdict_text.hpp"

namespace pararnn {
namespace {

using kernels::Text;
using nlohmann::json;

std::string verdict_operator(StringHandle cell_handle, StringHandle devices_handle) {
  const Text cell(cell_handle), devices(devices_handle);
  VerdictOptions options;
  options.devices = json::parse(std::string_view(devices)).get<std::vector<std::string>>();
  return verdict(std::string(cell), options).dump();
}

std::string text_operator(StringHandle report_handle) {
  const Text report(report_handle);
  return verdict_text(json::parse(std::string_view(report)));
}

std::string page_operator(StringHandle report_handle) {
  const Text report(report_handle);
  return verdict_page(json::parse(std::string_view(report)));
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(pararnn, m) {
  m.def("_verdict(str cell, str devices) -> str");
  m.def("_verdict_text(str report) -> str");
  m.def("_verdict_page(str report) -> str");
}

STABLE_TORCH_LIBRARY_IMPL(pararnn, CompositeExplicitAutograd, m) {
  m.impl("_verdict", &kernels::boxed<&verdict_operator>);
  m.impl("_verdict_text", &kernels::boxed<&text_operator>);
  m.impl("_verdict_page", &kernels::boxed<&page_operator>);
}

}  // namespace pararnn
