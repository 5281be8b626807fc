#include "cli/help.hpp"

#include <memory>
#include <string>

namespace pararnn::cli {
namespace {

class HelpFormatter : public CLI::Formatter {
 public:
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
    return (own.empty() ? "" : own + "\n") +
           (has_options
                ? "\nOptions may also stand in a file, a line `name = value` each: --config FILE\n"
                : "");
  }
};

}  // namespace

void set_help_format(CLI::App& program) { program.formatter(std::make_shared<HelpFormatter>()); }

}  // namespace pararnn::cli
