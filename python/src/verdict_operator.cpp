// The verdict on a cell for callers that know LibTorch's operators alone.
#include <torch/library.h>

#include "verdict/verdict.hpp"
#include "verdict/verdict_page.hpp"
#include "verdict/verdict_text.hpp"

namespace pararnn {
namespace {

std::string verdict_operator(const std::string& cell, const std::vector<std::string>& devices) {
  VerdictOptions options;
  options.devices.assign(devices.begin(), devices.end());
  return verdict(cell, options).dump();
}

std::string text_operator(const std::string& report) {
  return verdict_text(nlohmann::json::parse(report));
}

std::string page_operator(const std::string& report) {
  return verdict_page(nlohmann::json::parse(report));
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(pararnn, m) {
  m.def("_verdict(str cell, str[] devices) -> str", &verdict_operator);
  m.def("_verdict_text(str report) -> str", &text_operator);
  m.def("_verdict_page(str report) -> str", &page_operator);
}

}  // namespace pararnn
