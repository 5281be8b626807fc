#include "cli/config_file.hpp"

#include <memory>
#include <string>
#include <vector>

#include "cli/usage_errors.hpp"

namespace pararnn::cli {
namespace {

/// Gives lines outside a section to the subcommand that is being run, and refuses unknown names.
class SubcommandConfig : public CLI::ConfigTOML {
 public:
  explicit SubcommandConfig(const CLI::App& program) : program_(program) {}

  std::vector<CLI::ConfigItem> from_config(std::istream& input) const override {
    std::vector<CLI::ConfigItem> items = CLI::ConfigTOML::from_config(input);
    for (CLI::ConfigItem& item : items) {
      const auto commands = program_.get_subcommands();
      if (item.parents.empty() && !commands.empty())
        item.parents.push_back(commands.front()->get_name());
      if (item.name == "++" || item.name == "--") continue;  // a section begins or ends
      const auto named = program_.get_subcommands([&](const CLI::App* command) {
        return item.parents == std::vector{command->get_name()};
      });
      if (named.empty() || named.front()->get_option_no_throw("--" + item.name) == nullptr) {
        const std::string meant =
            named.empty() ? "" : nearest("--" + item.name, option_names(*named.front()));
        throw CLI::ConfigError("the config file sets \"" + item.fullname() +
                                   "\", which is no option" +
                                   (meant.empty() ? "" : "; did you mean " + meant.substr(2) + "?"),
                               CLI::ExitCodes::ConfigError);
      }
    }
    return items;
  }

 private:
  const CLI::App& program_;
};

}  // namespace

void add_config_file_option(CLI::App& program) {
  program.config_formatter(std::make_shared<SubcommandConfig>(program));
  program.set_config("--config", "", "read options from a file");
  program.fallthrough();  // so that it may stand after the subcommand
}

}  // namespace pararnn::cli
