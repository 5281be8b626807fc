// A cell as a value: what its struct says of itself, and the text that it is compiled from. A
// built-in cell is one whose text travels inside the library; a file, or text from anywhere, gives
// the same value by another way, and nothing that takes a definition asks which way it came.
//
//   const CellDefinition cell = read_cell("./leaky.hpp");
//   cell.name      "leaky"       of `struct Leaky`
//   cell.type      "Leaky"       as C++ names it
//   cell.inputs    2
//   cell.key()     "leaky@5f0c…" names this very text to the operators
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "jit/source.hpp"

namespace pararnn {

struct CellDefinition {
  std::string name;
  std::string type;
  std::string text;    // its header, with the files that it includes in their places
  std::string origin;  // the file it was read from; empty for a built-in cell and for text
  std::string digest;  // of the type and of the text without comments

  int state = 0, inputs = 0, params = 0;
  /// The input that decides how long the cell remembers, and the direction, +1 or -1, in which it
  /// makes memory longer; -1 and 0 if there is none.
  int memory_input = -1, memory_direction = 0;
  std::vector<int> side_inputs;  // inputs that are given (time gaps, masks), not projected
  /// Empty where the struct does not name them.
  std::vector<std::string> state_names, input_names, param_names;
  std::string summary;

  /// The folder of `origin`; empty without one.
  std::filesystem::path folder() const;
  /// The user's files that the text came from, relative to the folder of `origin`.
  std::vector<std::string> files() const;

  /// "name@digest".
  std::string key() const { return name + "@" + digest; }
};

/// The name of a cell whose struct is `type`: "ns::LstmCifg" gives "lstm_cifg".
std::string cell_name_of(std::string_view type);

/// The cell in a file, "leaky.hpp" or "leaky.hpp:Leaky" where it holds several. Throws Error, with
/// the user's file and line and the compiler's words below, for whatever keeps it from being a
/// cell: no such file, no struct or several, a struct that breaks the contract, a step that does
/// not compile.
CellDefinition read_cell(std::string_view file);

/// The cell in a text; `type` names its struct, or part of it ("leaky", "Leaky"), or is empty if
/// there is one only. `origin` says in messages where the text came from. Throws as read_cell.
CellDefinition define_cell(std::string text, std::string_view type = {}, std::string origin = {});

/// As define_cell, but does not compile anything: sizes and names are not known yet.
CellDefinition identify_cell(std::string text, std::string_view type = {}, std::string origin = {});

/// A cell from a text whose struct and description are known already.
CellDefinition describe_cell(std::string text, std::string type, std::string_view description,
                             std::string origin = {});

/// The tangent of a cell as a cell of twice the numbers: core/tangent.hpp.
CellDefinition tangent_of(const CellDefinition& cell);

/// The name under which a program includes a cell, with the headers that it is compiled with.
inline constexpr const char* kCellHeader = "pararnn_cell.hpp";
std::vector<jit::Header> headers_of(const CellDefinition& cell);

/// What went wrong in compiling the cell, in one sentence with the user's file and line, and the
/// compiler's words below.
Error explain(const CellDefinition& cell, const jit::CompileError& error);

}  // namespace pararnn
