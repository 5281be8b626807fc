#include "cli/config_file.hpp"

#include <memory>
#include <string>
#include <vector>

namespace pararnn::cli {
namespace {

/// Gives lines outside a section to the subcommand that is being run, and refuses unknown names.
class SubcommandConfig : public CLI::ConfigTOML {
 public:
  explicit SubcommandConfig(CLI::App& program) : program_(program) {}

  std::vector<CLI::ConfigItem> from_config(std::istream& input) const override {
    std::vector<CLI::ConfigItem> items = CLI::ConfigTOML::from_config(input);
    for (CLI::ConfigItem& item : items) {
      const auto commands = program_.get_subcommands();
      if (item.parents.empty() && !commands.empty())
        item.parents.push_back(commands.front()->get_name());
      if (item.name == "++" || item.name == "--") continue;  // a section begins or ends
      const CLI::App* command =
          item.parents.size() == 1 ? program_.get_subcommand_no_throw(item.parents[0]) : nullptr;
      if (command == nullptr || command->get_option_no_throw("--" + item.name) == nullptr) {
        throw CLI::ConfigError(
            "the config file sets \"" + item.fullname() + "\", which is no option",
            CLI::ExitCodes::ConfigError);
      }
    }
    return items;
  }

 private:
  CLI::App& program_;
};

}  // namespace

void add_config_file_option(CLI::App& program) {
  program.config_formatter(std::make_shared<SubcommandConfig>(program));
  program.set_config("--config", "", "read options from a file");
  program.fallthrough();  // so that it may stand after the subcommand
  program.footer("Options may also stand in a file, a line `name = value` each: --config FILE");
}

}  // namespace pararnn::cli
