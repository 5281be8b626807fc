#include "cli/text_width.hpp"

#include <algorithm>

namespace pararnn::cli {
namespace {

/// The end of the longest beginning of `line` that takes at most `columns` and ends before a space
/// or after a comma; of a longer word, its end.
size_t break_of(std::string_view line, size_t columns) {
  if (columns_of(line) <= columns) return line.size();
  size_t best = line.npos;
  for (size_t end = 1; end < line.size(); ++end) {
    const bool may_end = line[end] == ' ' || line[end - 1] == ',';
    if (!may_end) continue;
    if (columns_of(line.substr(0, end)) > columns) return best == line.npos ? end : best;
    best = end;
  }
  return best == line.npos ? line.size() : best;
}

}  // namespace

std::string wrap(std::string_view text, size_t columns, size_t indent) {
  std::string wrapped;
  while (true) {
    const size_t line_end = std::min(text.find('\n'), text.size());
    std::string_view line = text.substr(0, line_end);
    const size_t own = std::min(line.find_first_not_of(' '), line.size());
    const std::string margin(indent + own, ' ');
    wrapped += line.substr(0, own);
    line.remove_prefix(own);
    const size_t room = columns > margin.size() ? columns - margin.size() : 1;
    while (true) {
      const size_t end = break_of(line, room);
      wrapped += line.substr(0, end);
      line.remove_prefix(end);
      line.remove_prefix(std::min(line.find_first_not_of(' '), line.size()));
      if (line.empty()) break;
      wrapped += "\n" + margin;
    }
    if (line_end == text.size()) return wrapped;
    text.remove_prefix(line_end + 1);
    wrapped += '\n';
    if (!text.empty() && text[0] != '\n') wrapped.append(indent, ' ');
  }
}

}  // namespace pararnn::cli
