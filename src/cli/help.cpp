#include "cli/help.hpp"

#include <memory>
#include <string>

#include "cli/text_width.hpp"

namespace pararnn::cli {
namespace {

/// Where the second column begins: what an option means.
constexpr size_t kMeaningColumn = 30;

/// A name, which may be followed by more, and what it means, in two columns.
std::string two_columns(const std::string& name, const std::string& meaning) {
  std::string text = "  " + wrap(name, kHelpColumns, 6);
  if (meaning.empty()) return text + "\n";
  const size_t last_line = text.rfind('\n') == text.npos ? 0 : text.rfind('\n') + 1;
  const size_t columns = columns_of(std::string_view(text).substr(last_line));
  text += columns < kMeaningColumn ? std::string(kMeaningColumn - columns, ' ')
                                   : "\n" + std::string(kMeaningColumn, ' ');
  return text + wrap(meaning, kHelpColumns, kMeaningColumn) + "\n";
}

class HelpFormatter : public CLI::Formatter {
 public:
  std::string make_option(const CLI::Option* option, bool positional) const override {
    return two_columns(make_option_name(option, positional) + make_option_opts(option),
                       make_option_desc(option));
  }

  std::string make_subcommand(const CLI::App* command) const override {
    return two_columns(command->get_display_name(true), command->get_description());
  }

  std::string make_description(const CLI::App* command) const override {
    return wrap(CLI::Formatter::make_description(command), kHelpColumns);
  }

  /// "N, default 16", "{float32,bfloat16}, default float32", "TEXT, required": ranges are told
  /// where they are left.
  std::string make_option_opts(const CLI::Option* option) const override {
    if (option->get_items_expected_max() == 0) return "";  // a flag
    const std::string type = option->get_type_name();
    std::string text = type.starts_with("INT") || type.starts_with("UINT") ? " N"
                       : type.starts_with("FLOAT")                         ? " X"
                                                                           : " TEXT";
    if (const size_t choices = type.find('{'); choices != std::string::npos) {
      text = " " + type.substr(choices, type.find('}') + 1 - choices);
    }
    if (!option->get_default_str().empty()) text += ", default " + option->get_default_str();
    if (option->get_required()) text += ", required";
    return text;
  }

  /// What the command says at the end, and how to give options in a file.
  std::string make_footer(const CLI::App* command) const override {
    const std::string own = command->get_footer();
    const bool has_options = command->get_parent() != nullptr;
    return wrap(
        (own.empty() ? "" : own + "\n") +
            (has_options ? "\nOptions may also stand in a file, a line `name = value` each: "
                           "--config FILE\n"
                         : ""),
        kHelpColumns);
  }
};

}  // namespace

void set_help_format(CLI::App& program) { program.formatter(std::make_shared<HelpFormatter>()); }

}  // namespace pararnn::cli
