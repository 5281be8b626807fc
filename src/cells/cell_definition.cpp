#include "cells/cell_definition.hpp"

#include <fmt/ranges.h>

#include <algorithm>
#include <cctype>
#include <charconv>
#include <filesystem>
#include <regex>

#include "base/error.hpp"
#include "cells/cell_description.hpp"
#include "cells/cell_source.hpp"
#include "jit/digest.hpp"

namespace pararnn {
namespace {

namespace fs = std::filesystem;

std::string_view last_part(std::string_view type) {
  const size_t colons = type.rfind("::");
  return colons == type.npos ? type : type.substr(colons + 2);
}

/// The struct that `wanted` means among those of the text.
std::string choose_type(const std::string& text, std::string_view wanted, std::string_view origin) {
  if (wanted.find('<') != wanted.npos) return std::string(wanted);  // of a template
  const std::vector<std::string> types = find_cell_types(text);
  std::vector<std::string> matching;
  for (const std::string& type : types) {
    const bool matches = wanted.empty() || type == wanted || last_part(type) == wanted ||
                         cell_name_of(type) == wanted;
    if (matches) matching.push_back(type);
  }
  const std::string where = origin.empty() ? "the text" : fmt::format("'{}'", origin);
  require(!types.empty(), "{} holds no cell: a struct with kState, kInputs, kParams and step",
          where);
  require(!matching.empty(), "{} holds no cell '{}'; it holds {}", where, wanted,
          fmt::join(types, ", "));
  require(matching.size() == 1, "{} holds several cells: name one, as in {}:{}", where,
          origin.empty() ? "file.hpp" : origin, last_part(matching[0]));
  return matching[0];
}

std::vector<std::string> words_of(std::string_view text) {
  std::vector<std::string> words;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find(' ', begin), text.size());
    if (end > begin) words.emplace_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return words;
}

int number_of(std::string_view text) {
  int number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  require(error == std::errc() && end == text.data() + text.size(),
          "a cell's description holds '{}' where a number should be", text);
  return number;
}

void read_description(std::string_view description, CellDefinition& cell) {
  for (size_t begin = 0; begin < description.size();) {
    const size_t end = std::min(description.find('\n', begin), description.size());
    const std::string_view line = description.substr(begin, end - begin);
    const size_t space = std::min(line.find(' '), line.size());
    const std::string_view key = line.substr(0, space),
                           value = line.substr(std::min(space + 1, line.size()));
    if (key == "state") cell.state = number_of(value);
    if (key == "inputs") cell.inputs = number_of(value);
    if (key == "params") cell.params = number_of(value);
    if (key == "memory_input") cell.memory_input = number_of(value);
    if (key == "memory_direction") cell.memory_direction = number_of(value);
    if (key == "side_inputs") {
      for (const std::string& word : words_of(value)) cell.side_inputs.push_back(number_of(word));
    }
    if (key == "state_names") cell.state_names = words_of(value);
    if (key == "input_names") cell.input_names = words_of(value);
    if (key == "param_names") cell.param_names = words_of(value);
    if (key == "summary") cell.summary = value;
    begin = end + 1;
  }
}

CellDefinition undescribed(std::string text, std::string type, std::string origin) {
  CellDefinition cell;
  cell.name = cell_name_of(type);
  cell.digest = jit::Digest().add(type).add(normalized_code(text)).text().substr(0, 16);
  cell.type = std::move(type);
  cell.text = std::move(text);
  cell.origin = std::move(origin);
  return cell;
}

/// Splits "leaky.hpp:Leaky". A struct is what follows a colon behind the file's extension.
std::pair<std::string, std::string> split_file(std::string_view file) {
  const size_t dot = file.rfind('.');
  const size_t colon = dot == file.npos ? dot : file.find(':', dot);
  if (colon == file.npos) return {std::string(file), ""};
  return {std::string(file.substr(0, colon)), std::string(file.substr(colon + 1))};
}

}  // namespace

fs::path CellDefinition::folder() const {
  return origin.empty() ? fs::path() : fs::absolute(origin).parent_path();
}

std::vector<std::string> CellDefinition::files() const { return files_of_text(text); }

std::string cell_name_of(std::string_view type) {
  std::string name;
  const std::string_view last = last_part(type.substr(0, type.find('<')));
  for (size_t i = 0; i < last.size(); ++i) {
    const auto c = static_cast<unsigned char>(last[i]);
    const bool begins_word =
        std::isupper(c) && i > 0 && !std::isupper(static_cast<unsigned char>(last[i - 1]));
    if (begins_word && name.back() != '_') name += '_';
    name += static_cast<char>(std::tolower(c));
  }
  return name;
}

CellDefinition read_cell(std::string_view file) {
  const auto [path, type] = split_file(file);
  return define_cell(read_with_includes(path), type, path);
}

CellDefinition identify_cell(std::string text, std::string_view type, std::string origin) {
  std::string chosen = choose_type(text, type, origin);
  return undescribed(std::move(text), std::move(chosen), std::move(origin));
}

CellDefinition define_cell(std::string text, std::string_view type, std::string origin) {
  CellDefinition cell = identify_cell(std::move(text), type, std::move(origin));
  try {
    read_description(compiled_description(cell), cell);
  } catch (const jit::CompileError& error) {
    throw explain(cell, error);
  }
  return cell;
}

CellDefinition describe_cell(std::string text, std::string type, std::string_view description,
                             std::string origin) {
  CellDefinition cell = undescribed(std::move(text), std::move(type), std::move(origin));
  read_description(description, cell);
  return cell;
}

CellDefinition tangent_of(const CellDefinition& cell) {
  CellDefinition tangent = undescribed(cell.text + "#include \"pararnn/core/tangent.hpp\"\n",
                                       fmt::format("pararnn::Tangent<{}>", cell.type), cell.origin);
  tangent.name = cell.name + "_tangent";
  tangent.state = 2 * cell.state;
  tangent.inputs = 2 * cell.inputs;
  tangent.params = 2 * cell.params;
  tangent.summary = "the tangent of " + cell.name;
  return tangent;
}

std::vector<jit::Header> headers_of(const CellDefinition& cell) {
  return {{kCellHeader, cell.text}};
}

Error explain(const CellDefinition& cell, const jit::CompileError& error) {
  const std::vector<std::string> files = cell.files();
  // file:7:3: error: what, as g++ and clang say, or file(7): error: what, as NVRTC does.
  static const std::regex place(R"(([^\s:()]+)(?::(\d+)(?::\d+)?|\((\d+)\)):?)");
  static const std::regex failure(R"((?:fatal |catastrophic )?error(?: #[\w-]+)?\s*:\s*(.*))");
  const std::string& words = error.words;
  std::string what, where;
  for (size_t begin = 0; begin < words.size() && (what.empty() || where.empty());) {
    const size_t end = std::min(words.find('\n', begin), words.size());
    const std::string line = words.substr(begin, end - begin);
    begin = end + 1;
    std::smatch match;
    if (what.empty() && std::regex_search(line, match, failure)) what = match[1];
    for (std::sregex_iterator at(line.begin(), line.end(), place), none; at != none; ++at) {
      const std::string file = (*at)[1];
      if (!where.empty() || std::ranges::find(files, file) == files.end()) continue;
      const std::string number = (*at)[2].matched ? (*at)[2] : (*at)[3];
      const fs::path folder = fs::path(cell.origin).parent_path();
      where = fmt::format("{}:{}: ", (folder / file).string(), number);
    }
  }
  constexpr std::string_view kAssertion = "static assertion failed";
  if (what.starts_with(kAssertion)) {
    const size_t reason = what.find_first_not_of(": ", kAssertion.size());
    if (reason != what.npos) what.erase(0, reason);
  }
  if (where.empty() && !cell.origin.empty()) where = cell.origin + ": ";
  return Error(fmt::format("{}the cell {} does not compile: {}\n{}", where, cell.name,
                           what.empty() ? "the compiler's words are below" : what, words));
}

}  // namespace pararnn
