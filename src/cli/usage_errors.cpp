#include "cli/usage_errors.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "cli/common_options.hpp"

namespace pararnn::cli {
namespace {

/// Letters to insert, delete, replace or swap with their neighbours to make one word of the other:
/// the distance of Damerau and Levenshtein between words of which no part is changed twice.
size_t slips_between(std::string_view a, std::string_view b) {
  std::vector<std::vector<size_t>> slips(a.size() + 1, std::vector<size_t>(b.size() + 1));
  for (size_t i = 0; i <= a.size(); ++i) {
    for (size_t j = 0; j <= b.size(); ++j) {
      size_t& least = slips[i][j];
      least = std::max(i, j);
      if (i == 0 || j == 0) continue;
      const bool same = a[i - 1] == b[j - 1];
      least = std::min({slips[i - 1][j] + 1, slips[i][j - 1] + 1, slips[i - 1][j - 1] + !same});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
        least = std::min(least, slips[i - 2][j - 2] + 1);
    }
  }
  return slips[a.size()][b.size()];
}

/// "pararnn cells check": the command that was being parsed when it went wrong, and its parents.
struct Place {
  const CLI::App* command;
  std::string path;
};
Place place_of(const CLI::App& program) {
  Place place{&program, program.get_name()};
  while (!place.command->get_subcommands().empty()) {
    place.command = place.command->get_subcommands().front();
    place.path += " " + place.command->get_name();
  }
  return place;
}

std::string describe_unknown(const Place& place, const CLI::App& program, std::string word) {
  std::vector<std::string> candidates;
  std::string sentence;
  if (word.starts_with('-')) {
    word = word.substr(0, word.find('='));
    candidates = option_names(*place.command);
    for (const std::string& name : option_names(program)) candidates.push_back(name);
    sentence = fmt::format("{} has no option {}", place.path, word);
  } else {
    for (const CLI::App* command : place.command->get_subcommands({})) {
      candidates.push_back(command->get_name());
    }
    sentence = candidates.empty() ? fmt::format(
                                        "{} cannot do with \"{}\": only options and their "
                                        "values may stand there",
                                        place.path, word)
               : place.command == &program ? fmt::format("there is no command {}", word)
                                           : fmt::format("{} has no command {}", place.path, word);
  }
  const std::string meant = nearest(word, candidates);
  return meant.empty() ? sentence : fmt::format("{}; did you mean {}?", sentence, meant);
}

}  // namespace

std::string nearest(std::string_view word, const std::vector<std::string>& candidates) {
  std::string best;
  size_t fewest = 1 + word.size() / 4;  // more is another word
  for (const std::string& candidate : candidates) {
    const bool begins = word.size() > 3 && candidate.starts_with(word);
    const size_t slips = begins ? 1 : slips_between(word, candidate);
    if (slips > fewest || (slips == fewest && !best.empty())) continue;
    fewest = slips;
    best = candidate;
  }
  return best;
}

std::vector<std::string> option_names(const CLI::App& command) {
  std::vector<std::string> names;
  for (const CLI::Option* option : command.get_options()) {
    for (const std::string& name : option->get_lnames()) names.push_back("--" + name);
  }
  return names;
}

void refuse_what_is_no_number(CLI::App& program) {
  for (CLI::Option* option : program.get_options()) {
    const std::string type = option->get_type_name();
    if (type.starts_with("INT")) option->check(is_number<int64_t>());
    if (type.starts_with("UINT")) option->check(is_number<uint64_t>());
    if (type.starts_with("FLOAT")) option->check(is_number<double>());
  }
  for (CLI::App* command : program.get_subcommands({})) refuse_what_is_no_number(*command);
}

std::string describe(const CLI::App& program, const CLI::ParseError& error) {
  const Place place = place_of(program);
  // An option that is missing may be the one that was misspelled.
  const std::vector<std::string> unknown = program.remaining(/*recurse=*/true);
  std::string_view words = error.what();
  words = words.substr(0, words.find('\n'));
  constexpr std::string_view kAgain = ": At Most 1 required";
  const size_t again = words.find(kAgain);
  const std::string sentence = again == words.npos
                                   ? std::string(words)
                                   : fmt::format("{} is given twice", words.substr(0, again));
  return fmt::format("{} (see {} --help)",
                     unknown.empty() ? sentence : describe_unknown(place, program, unknown.front()),
                     place.path);
}

}  // namespace pararnn::cli
