#include "cells/cell_source.hpp"

#include <algorithm>
#include <cctype>
#include <set>

#include "base/error.hpp"
#include "jit/system.hpp"

namespace pararnn {
namespace {

namespace fs = std::filesystem;

constexpr size_t kLargestFile = size_t{1} << 20;

bool is_word(char c) { return std::isalnum(static_cast<unsigned char>(c)) || c == '_'; }

std::string_view trimmed(std::string_view text) {
  const auto space = " \t\r\n";
  const size_t begin = text.find_first_not_of(space);
  if (begin == text.npos) return {};
  return text.substr(begin, text.find_last_not_of(space) - begin + 1);
}

/// Where the literal or comment that begins at `at` ends; `at` itself if none begins there.
size_t skip_opaque(std::string_view text, size_t at, bool& comment) {
  const std::string_view rest = text.substr(at);
  comment = true;
  if (rest.starts_with("//")) return std::min(text.find('\n', at), text.size());
  if (rest.starts_with("/*")) {
    const size_t end = text.find("*/", at + 2);
    return end == text.npos ? text.size() : end + 2;
  }
  comment = false;
  if (rest.starts_with("R\"")) {
    const size_t open = text.find('(', at);
    if (open == text.npos) return text.size();
    const std::string close = ")" + std::string(text.substr(at + 2, open - at - 2)) + "\"";
    const size_t end = text.find(close, open);
    return end == text.npos ? text.size() : end + close.size();
  }
  const bool separator = text[at] == '\'' && at > 0 && is_word(text[at - 1]);  // 1'000
  if ((text[at] != '"' && text[at] != '\'') || separator) return at;
  size_t end = at + 1;
  while (end < text.size() && text[end] != text[at] && text[end] != '\n') {
    end += text[end] == '\\' ? 2 : 1;
  }
  return std::min(end + 1, text.size());
}

/// The text with comments as blanks, its lines kept.
std::string without_comments(std::string_view text) {
  std::string result;
  for (size_t at = 0; at < text.size();) {
    bool comment = false;
    const size_t end = skip_opaque(text, at, comment);
    if (end == at) {
      result += text[at++];
      continue;
    }
    for (size_t i = at; i < end; ++i) result += comment && text[i] != '\n' ? ' ' : text[i];
    at = end;
  }
  return result;
}

/// The name in `#include "name"`; empty if the line is none.
std::string included_name(std::string_view line) {
  line = trimmed(line);
  if (!line.starts_with('#')) return {};
  line = trimmed(line.substr(1));
  if (!line.starts_with("include")) return {};
  line = trimmed(line.substr(7));
  if (!line.starts_with('"')) return {};
  const size_t end = line.find('"', 1);
  return end == line.npos ? std::string() : std::string(line.substr(1, end - 1));
}

bool wants_to_be_once(std::string_view code) {
  code = trimmed(code);
  return code.find("#pragma once") != code.npos || code.starts_with("#ifndef");
}

struct Expansion {
  fs::path root;            // names in #line are relative to it
  std::set<fs::path> done;  // files that want to be included once
  std::vector<fs::path> open;
  std::string text;

  void add(const fs::path& path) {
    std::error_code error;
    const fs::path real = fs::weakly_canonical(path, error);
    require(std::ranges::find(open, real) == open.end(), "{} includes itself", path.string());
    if (done.contains(real)) return;
    require(fs::is_regular_file(path, error), "there is no file '{}'", path.string());
    require(fs::file_size(path, error) <= kLargestFile,
            "'{}' is larger than 1 MiB, which no cell is", path.string());
    const std::optional<std::string> content = jit::read_file(path);
    require(content.has_value(), "cannot read '{}'", path.string());
    const std::string code = without_comments(*content);
    if (wants_to_be_once(code)) done.insert(real);
    open.push_back(real);
    const std::string name = path.lexically_relative(root).generic_string();
    text += fmt::format("#line 1 \"{}\"\n", name);
    size_t line = 0;
    for (size_t begin = 0; begin < content->size(); ++line) {
      const size_t end = std::min(content->find('\n', begin), content->size());
      const fs::path beside =
          path.parent_path() / included_name(std::string_view(code).substr(begin, end - begin));
      if (beside.has_filename() && fs::is_regular_file(beside, error)) {
        add(beside);
        text += fmt::format("#line {} \"{}\"\n", line + 2, name);
      } else {
        text.append(*content, begin, end - begin).append("\n");
      }
      begin = end + 1;
    }
    open.pop_back();
  }
};

}  // namespace

std::string read_with_includes(const fs::path& path) {
  Expansion expansion{path.parent_path(), {}, {}, {}};
  expansion.add(path);
  return std::move(expansion.text);
}

std::string normalized_code(std::string_view text) {
  const std::string code = without_comments(text);
  std::string result;
  for (size_t begin = 0; begin < code.size();) {
    const size_t end = std::min(code.find('\n', begin), code.size());
    const std::string_view line = trimmed(std::string_view(code).substr(begin, end - begin));
    begin = end + 1;
    if (line.empty() || line.starts_with("#line")) continue;
    bool blank = false;
    for (const char c : line) {
      const bool space = c == ' ' || c == '\t';
      if (space && !blank) result += ' ';
      if (!space) result += c;
      blank = space;
    }
    result += '\n';
  }
  return result;
}

std::vector<std::string> find_cell_types(std::string_view text) {
  const std::string code = without_comments(text);
  struct Scope {
    enum Kind { kNamespace, kStruct, kOther } kind;
    std::string name;
  };
  std::vector<Scope> scopes;
  Scope coming{Scope::kOther, {}};
  bool headed = false;  // `coming` waits for its name or brace
  std::vector<std::string> found;
  const auto qualified = [&] {
    std::string name;
    for (const Scope& scope : scopes) {
      if (!scope.name.empty()) name += (name.empty() ? "" : "::") + scope.name;
    }
    return name;
  };
  for (size_t at = 0; at < code.size();) {
    bool comment = false;
    if (const size_t end = skip_opaque(code, at, comment); end != at) {
      at = end;
      continue;
    }
    if (!is_word(code[at])) {
      if (code[at] == '{') {
        scopes.push_back(std::exchange(coming, {Scope::kOther, {}}));
        headed = false;
      } else if (code[at] == '}') {
        if (!scopes.empty()) scopes.pop_back();
      } else if (code[at] == ';' || code[at] == '>' || code[at] == ')') {
        coming = {Scope::kOther, {}};  // a declaration, or `template <class T>`
        headed = false;
      }
      ++at;
      continue;
    }
    size_t end = at;
    while (end < code.size() && (is_word(code[end]) || code.compare(end, 2, "::") == 0)) {
      end += is_word(code[end]) ? 1 : 2;
    }
    const std::string word = code.substr(at, end - at);
    at = end;
    if (word == "struct" || word == "class" || word == "namespace") {
      coming = {word == "namespace" ? Scope::kNamespace : Scope::kStruct, {}};
      headed = true;
    } else if (headed && coming.name.empty()) {
      coming.name = word;
    } else if (word == "kState" && !scopes.empty() && scopes.back().kind == Scope::kStruct) {
      if (std::string name = qualified(); std::ranges::find(found, name) == found.end()) {
        found.push_back(std::move(name));
      }
    }
  }
  return found;
}

std::vector<std::string> files_of_text(std::string_view text) {
  std::vector<std::string> files;
  constexpr std::string_view kLine = "#line ";
  for (size_t at = text.find(kLine); at != text.npos; at = text.find(kLine, at + 1)) {
    const size_t end = std::min(text.find('\n', at), text.size());
    const size_t open = text.find('"', at), close = text.find('"', open + 1);
    if (close == text.npos || close > end) continue;
    std::string name(text.substr(open + 1, close - open - 1));
    if (std::ranges::find(files, name) == files.end()) files.push_back(std::move(name));
  }
  return files;
}

}  // namespace pararnn
