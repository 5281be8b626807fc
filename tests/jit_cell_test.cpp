// What NVRTC makes of cells: single precision stays single, and a branch on a value is refused with
// the reason.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <fstream>
#include <map>
#include <pararnn/core/description.hpp>
#include <sstream>

#include "catalogue.hpp"
#include "jit_ptx.hpp"

namespace pararnn::jit {
namespace {

struct CellText {
  std::string type;
  Header header;
  std::string description;
};

/// The built-in cells and those of examples/cells, each as a file of a user's.
std::vector<CellText> all_cells() {
  const auto read = [](const std::string& path) {
    std::ifstream file(PARARNN_SOURCE "/" + path);
    require(file.good(), "cannot read {}", path);
    return Header{path, {std::istreambuf_iterator<char>(file), {}}};
  };
  return {
#define PARARNN_BUILT_IN(name, Type) \
  {#Type, read("include/pararnn/cells/" #name ".hpp"), kDescription<Type>.data},
#define PARARNN_OF_CATALOGUE(name, Type) \
  {#Type, read("examples/cells/" #name ".hpp"), kDescription<Type>.data},
      PARARNN_CELLS(PARARNN_BUILT_IN) PARARNN_CATALOGUE(PARARNN_OF_CATALOGUE)
#undef PARARNN_OF_CATALOGUE
#undef PARARNN_BUILT_IN
  };
}

/// The step, its linearization and its derivatives, in floats.
std::string derivatives_of(const std::string& header, const std::string& type) {
  return fmt::format(R"(
#include "{}"
#include "pararnn/core/cell.hpp"
using namespace pararnn;
using C = {};
constexpr int S = C::kState, U = C::kInputs, P = C::kParams;
extern "C" __global__ void derive(const Vec<float, S>* h, const Vec<float, U>* u,
                                  const Vec<float, P>* w, Vec<float, S>* next,
                                  Linearized<float, S>* linear,
                                  Differentiated<float, S, S + U + P>* all) {{
  *next = next_state<C>(*h, *u, *w);
  *linear = linearize<C>(*h, *u, *w, linear->product);
  *all = differentiate<C, S + U + P>(*h, *u, *w);
}}
)",
                     header, type);
}

/// The PTX of a cell's derivatives and of its description, made once.
const std::string& ptx_of_cell(const CellText& cell) {
  static std::map<std::string, std::string> made;
  std::string& ptx = made[cell.type];
  if (ptx.empty()) {
    ptx = ptx_of(derivatives_of(cell.header.name, cell.type) + R"(
#include "pararnn/core/description.hpp"
extern "C" __device__ decltype(kDescription<C>) description = kDescription<C>;
)",
                 {cell.header});
  }
  return ptx;
}

/// The instructions of a program that work on doubles.
std::string double_instructions(const std::string& ptx) {
  std::istringstream lines(ptx);
  std::string found;
  for (std::string line; std::getline(lines, line);) {
    const bool declares = line.starts_with('.') || line.starts_with("\t.");
    if (!declares && line.find(".f64") != line.npos) found += line + "\n";
  }
  return found;
}

TEST(JitCell, SinglePrecisionStaysSingle) {
  for (const CellText& cell : all_cells()) {
    const std::string& ptx = ptx_of_cell(cell);
    EXPECT_NE(ptx.find(".f32"), ptx.npos) << cell.type;
    EXPECT_EQ(double_instructions(ptx), "") << cell.type;
  }
}

TEST(JitCell, TangentsAreCellsInSinglePrecisionToo) {
  for (const char* cell : {"Gru", "Lstm"}) {
    const std::string ptx =
        ptx_of("#include \"pararnn/core/tangent.hpp\"\n" +
               derivatives_of("pararnn/cells.hpp", fmt::format("Tangent<{}>", cell)));
    EXPECT_EQ(double_instructions(ptx), "") << cell;
  }
}

TEST(JitCell, DescriptionsAreThoseOfTheCompilerForTheHost) {
  for (const CellText& cell : all_cells()) {
    const std::string& ptx = ptx_of_cell(cell);
    // .global .align 1 .b8 description[159] = {115, 116, ...};
    const size_t at = ptx.find(" description[");
    ASSERT_NE(at, ptx.npos) << ptx;
    const size_t begin = ptx.find('{', at), end = ptx.find('}', at);
    std::istringstream numbers(ptx.substr(begin + 1, end - begin - 1));
    std::string text;
    for (std::string number; std::getline(numbers, number, ',');) {
      text += static_cast<char>(std::stoi(number));
    }
    // PTX leaves zeros at the end of an array out.
    EXPECT_EQ(text.substr(0, text.find('\0')), cell.description);
  }
}

/// A cell of one input whose step is `body`.
Header cell_with(const std::string& body) {
  return {"own.hpp", R"(#include "pararnn/cell.hpp"
using pararnn::Vec;
struct Own {
  static constexpr int kState = 1, kInputs = 1, kParams = 1;
  template <class T>
  PARARNN_FN static Vec<T, 1> step(const Vec<T, 1>& h, const Vec<T, 1>& u, const Vec<T, 1>& w) {
)" + body + "\n  }\n};\n"};
}

TEST(JitCell, LiteralsAreNumbersOfTheArithmetic) {
  for (const char* body :
       {"return {0.5 * h[0] + (1 - 0.1 * w[0]) * tanh(u[0] / 3)};",
        "return {max(h[0], 0.1) + pow(u[0], 2) + pow(w[0], 0.3) + pow(0.7, u[0])};",
        "return {select(h[0] < 0.1 && u[0] >= 0.3, 0.7, h[0]) + erf(0.3 * floor(w[0] * 0.1))};"}) {
    const std::string ptx =
        ptx_of(derivatives_of("own.hpp", "Own"), std::vector<Header>{cell_with(body)});
    EXPECT_EQ(double_instructions(ptx), "") << body;
  }
  // What the test would notice.
  EXPECT_NE(double_instructions(ptx_of("__global__ void f(float* x) { *x = 0.1 * *x; }")), "");
}

TEST(JitCell, ABranchOnAValueIsRefusedWithTheReason) {
  for (const char* body :
       {"if (h[0] < 0) return {u[0]}; return {w[0]};", "return {h[0] < u[0] ? u[0] : w[0]};"}) {
    try {
      ptx_of(derivatives_of("own.hpp", "Own"), {cell_with(body)});
      FAIL() << "compiled: " << body;
    } catch (const Error& error) {
      const std::string said = error.what();
      EXPECT_NE(said.find("a step may not branch on a value"), said.npos) << said;
      EXPECT_NE(said.find("select(a < b, x, y)"), said.npos) << said;
      EXPECT_NE(said.find("own.hpp"), said.npos) << said;
    }
  }
}

}  // namespace
}  // namespace pararnn::jit
