#include "cells/cell_skeleton.hpp"

#include <fmt/ranges.h>

#include <algorithm>
#include <cctype>
#include <set>

#include "base/error.hpp"

namespace pararnn {
namespace {

bool is_identifier(const std::string& name) {
  const auto is_part = [](unsigned char c) { return std::isalnum(c) || c == '_'; };
  return !name.empty() && std::ranges::all_of(name, is_part) &&
         std::isalpha(static_cast<unsigned char>(name[0]));
}

/// "my_cell" gives "MyCell".
std::string struct_name_of(const std::string& name) {
  std::string result;
  bool begins = true;
  for (const char c : name) {
    if (c == '_') {
      begins = true;
      continue;
    }
    result += begins ? static_cast<char>(std::toupper(static_cast<unsigned char>(c))) : c;
    begins = false;
  }
  return result;
}

std::string quoted(const std::vector<std::string>& names, const char* before) {
  std::vector<std::string> result;
  for (const std::string& name : names) result.push_back(fmt::format("\"{}{}\"", before, name));
  return fmt::format("{}", fmt::join(result, ", "));
}

/// The lines of the step between its braces.
std::string body_of(const std::vector<std::string>& inputs,
                    const std::vector<std::string>& states) {
  const size_t last = inputs.size() - 1;
  std::string text;
  // What reaches the candidate of the state before: all of it, but for what the gates in the middle
  // let through.
  std::string remembered = "s[0]";
  for (size_t i = 0; i < last; ++i) {
    text += fmt::format("    const T {0} = sigmoid(u[{1}] + w[{1}] * s[0]);{2}\n", inputs[i], i,
                        i == 0 ? "  // between 0 and 1: how much is new" : "");
    if (i > 0) remembered += " * " + inputs[i];
  }
  text += fmt::format("    const T {0} = tanh(u[{1}] + w[{1}] * {2});  // the candidate\n",
                      inputs[last], last, last > 1 ? "(" + remembered + ")" : remembered);
  text += last == 0 ? fmt::format("    const T {} = {};\n", states[0], inputs[last])
                    : fmt::format("    const T {0} = (1 - {1}) * s[0] + {1} * {2};\n", states[0],
                                  inputs[0], inputs[last]);
  for (size_t i = 1; i < states.size(); ++i) {
    text +=
        fmt::format("    const T {0} = s[{1}] + {2} * ({3} - s[{1}]);  // a slow average\n",
                    states[i], i, 1.0 / double(1 << std::min<size_t>(2 * i, 20)), states[i - 1]);
  }
  return text + fmt::format("    return {{{}}};\n", fmt::join(states, ", "));
}

}  // namespace

std::string cell_skeleton(const std::string& name, const std::vector<std::string>& inputs,
                          const std::vector<std::string>& states) {
  require(is_identifier(name),
          "'{}' cannot name a cell: letters, digits and underscores make a name, as in my_cell",
          name);
  require(!inputs.empty() && !states.empty(), "a cell has at least one input and one state");
  require(states.size() + 2 * inputs.size() <= 32,
          "a cell has at most 32 states, inputs and parameters together; {} states and {} inputs "
          "with a weight each are more",
          states.size(), inputs.size());
  std::set<std::string> seen = {"s", "u", "w", "T"};
  for (const auto* names : {&inputs, &states}) {
    for (const std::string& each : *names) {
      require(is_identifier(each) && seen.insert(each).second,
              "'{}' cannot name an input or a state here: it is taken, or no C++ name", each);
    }
  }
  return fmt::format(
      R"(// {name}: a cell of your own. `pararnn cells check {name}.hpp` says whether it parallelises,
// `pararnn train --cell ./{name}.hpp --data FILE` trains a language model with it.
//
// A channel of the network is this recurrence, by itself: what mixes channels is the projection
// that makes the inputs u, before the scan.
#include "pararnn/cell.hpp"

struct {type} {{
  // Numbers a channel: the state, the inputs of a step, and the recurrent weights.
  static constexpr int kState = {state}, kInputs = {input}, kParams = {input};

  // For people who read about the cell; may be left out.
  static constexpr const char* kStateNames[] = {{{state_names}}};
  static constexpr const char* kInputNames[] = {{{input_names}}};
  static constexpr const char* kParamNames[] = {{{param_names}}};
  static constexpr const char* kSummary = "a gated cell, to be changed";
{memory}
  // One step: from the state s, the inputs u and the weights w to the next state, whose first
  // number is the output. The derivatives follow from it. There is no `if` on a value: use
  // select(a < b, x, y). Functions: exp log sqrt tanh sigmoid softplus abs max min pow sin cos ...
  template <class T>
  PARARNN_FN static pararnn::Vec<T, {state}> step(const pararnn::Vec<T, {state}>& s,
                                            const pararnn::Vec<T, {input}>& u,
                                            const pararnn::Vec<T, {input}>& w) {{
{body}  }}
}};
)",
      fmt::arg("name", name), fmt::arg("type", struct_name_of(name)),
      fmt::arg("state", states.size()), fmt::arg("input", inputs.size()),
      fmt::arg("state_names", quoted(states, "")), fmt::arg("input_names", quoted(inputs, "")),
      fmt::arg("param_names", quoted(inputs, "w_")),
      fmt::arg("memory",
               inputs.size() == 1
                   ? ""
                   : "  // A small input 0 makes memory long. Mostly found without being said.\n"
                     "  static constexpr int kMemory[] = {0, -1};\n"),
      fmt::arg("body", body_of(inputs, states)));
}

}  // namespace pararnn
