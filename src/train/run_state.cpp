#include "train/run_state.hpp"

#include <nlohmann/json.hpp>

#include "base/error.hpp"
#include "base/output_file.hpp"
#include "data/mapped_file.hpp"

namespace pararnn::train {
namespace {

constexpr const char* kFile = "state.json";

/// Calls visit(key, member) for all that is stored as it is.
template <class State, class Visit>
void for_each_member(State& state, Visit visit) {
  visit("step", state.step);
  visit("seconds", state.seconds);
  visit("log_bytes", state.log_bytes);
  visit("device", state.device);
  visit("fingerprint", state.fingerprint);
}

nlohmann::json to_json(const Stability& stability) {
  return {{"skipped", stability.skipped},
          {"skipped_in_a_row", stability.skipped_in_a_row},
          {"recent_losses", stability.recent}};
}

Stability stability_from_json(const nlohmann::json& json) {
  return {.skipped = json.value("skipped", int64_t{0}),
          .skipped_in_a_row = json.value("skipped_in_a_row", int64_t{0}),
          .recent = json.value("recent_losses", std::vector<double>())};
}

}  // namespace

void save_run_state(const std::filesystem::path& checkpoint, const RunState& state) {
  nlohmann::json json{{"options", to_json(state.options)},
                      {"content", state.content},
                      {"stability", to_json(state.stability)}};
  for_each_member(state, [&](const char* key, const auto& member) { json[key] = member; });
  write_file(checkpoint / kFile, json.dump(2) + "\n");
}

RunState load_run_state(const std::filesystem::path& checkpoint) {
  const std::string file = (checkpoint / kFile).string();
  try {
    const nlohmann::json json = nlohmann::json::parse(data::read_file(file));
    RunState state;
    for_each_member(state, [&](const char* key, auto& member) { json.at(key).get_to(member); });
    state.content = json.value("content", "");  // older checkpoints have none
    state.stability = stability_from_json(json.value("stability", nlohmann::json::object()));
    state.options = train_config_from_json(json.at("options"));
    return state;
  } catch (const nlohmann::json::exception& error) {
    throw Error(fmt::format("{} makes no state of a run: {}", file, error.what()));
  }
}

}  // namespace pararnn::train
