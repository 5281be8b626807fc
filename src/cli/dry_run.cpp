#include "cli/dry_run.hpp"

#include <fmt/format.h>
#include <torch/types.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "train/device.hpp"
#include "train/device_memory.hpp"
#include "train/memory.hpp"
#include "train/model_sizes.hpp"

namespace pararnn::cli {
namespace {

using nlohmann::json;

constexpr double kGibibyte = 1 << 30;

/// The kind of device, what it is called, and its free bytes.
struct Machine {
  torch::DeviceType type;
  std::string name;
  double available;
};
Machine machine_of(const std::string& device, double memory) {
  if (memory == 0) {
    const torch::Device found = train::find_device(device);
    return {found.type(), train::describe(found), train::available_memory(found)};
  }
  if (device == "cpu") return {torch::kCPU, "a CPU", kGibibyte * memory};
  return {torch::kCUDA, "a GPU", kGibibyte * memory};
}

/// Lines of cells: names to the left, numbers below one another.
std::string aligned(const std::vector<std::vector<std::string>>& lines) {
  std::vector<size_t> widths;
  for (const auto& line : lines) {
    widths.resize(std::max(widths.size(), line.size()));
    for (size_t i = 0; i < line.size(); ++i) widths[i] = std::max(widths[i], line[i].size());
  }
  std::string text;
  for (const auto& line : lines) {
    text += fmt::format("{:<{}}", line[0], widths[0]);
    for (size_t i = 1; i < line.size(); ++i) text += fmt::format("  {:>{}}", line[i], widths[i]);
    text += '\n';
  }
  return text;
}

std::string in_gibibytes(const json& bytes) {
  return fmt::format("{:.2f}", double(bytes) / kGibibyte);
}

}  // namespace

json dry_run(const nn::ModelConfig& model, const train::TrainConfig& config,
             const std::string& device, double memory) {
  const Machine machine = machine_of(device, memory);
  json parts = json::array();
  for (const auto& [name, count] : train::parameters_by_part(model)) {
    parts.push_back({{"name", name}, {"count", count}});
  }
  const double tokens = double(config.batch) * double(config.length) * double(config.accumulate);
  const double of_token = train::operations_per_token(model, config.length);
  json report = {{"model", nn::to_json(model)},
                 {"layers", nn::describe_layers(model)},
                 {"options", train::to_json(config)},
                 {"device", machine.name},
                 {"available_bytes", machine.available},
                 {"parameters", train::parameter_count(model)},
                 {"parameter_parts", parts},
                 {"operations_per_token", of_token},
                 {"operations_per_step", tokens * of_token},
                 {"memory", json::array()}};
  for (const char* recompute : train::kRecomputeNames) {
    train::TrainConfig so = config;
    so.recompute = recompute;
    const nn::RecomputePlan plan =
        train::choose_recompute(model, so, machine.type, machine.available);
    const train::MemoryNeed need = train::training_memory(model, so, machine.type, plan);
    json of_parts = json::array();
    for (const train::MemoryPart& part : need) {
      of_parts.push_back({{"name", part.name}, {"bytes", part.bytes}});
    }
    report["memory"].push_back(
        {{"recompute", recompute},
         {"plan", train::describe(plan, model.layers)},
         {"bytes", train::total_bytes(need)},
         {"parts", of_parts},
         {"largest_batch", train::largest_batch(model, so, machine.type, machine.available)}});
  }
  return report;
}

std::string describe_dry_run(const json& report) {
  const json &model = report["model"], &options = report["options"], &memory = report["memory"];
  const double parameters = report["parameters"], available = report["available_bytes"];
  std::string text = fmt::format(
      "model: {} with {} channels, a vocabulary of {}\n"
      "batch: {} of {} tokens in {}\n"
      "operations: {:.4g} GFLOP a token, {:.4g} TFLOP a step, forward and backward\n"
      "device: {} with {:.1f} GiB free\n\n",
      report["layers"].get<std::string>(), model["width"].get<int64_t>(),
      model["vocabulary"].get<int64_t>(), options["batch"].get<int64_t>(),
      options["length"].get<int64_t>(), options["precision"].get<std::string>(),
      double(report["operations_per_token"]) / 1e9, double(report["operations_per_step"]) / 1e12,
      report["device"].get<std::string>(), available / kGibibyte);

  std::vector<std::vector<std::string>> lines{{"parameters", "number", "share"}};
  const auto add_parameters = [&](const std::string& name, double count) {
    lines.push_back(
        {name, fmt::format("{:.0f}", count), fmt::format("{:.1f} %", 100 * count / parameters)});
  };
  for (const json& part : report["parameter_parts"]) add_parameters(part["name"], part["count"]);
  add_parameters("all", parameters);
  text += aligned(lines) + "\n";

  lines = {{"GiB, by --recompute"}};
  for (const json& part : memory[0]["parts"]) lines.emplace_back(1, part["name"]);
  lines.insert(lines.end(), {{"all"}, {"largest --batch"}});
  for (const json& column : memory) {
    auto line = lines.begin();
    (line++)->push_back(column["recompute"]);
    for (const json& part : column["parts"]) (line++)->push_back(in_gibibytes(part["bytes"]));
    (line++)->push_back(in_gibibytes(column["bytes"]));
    line->push_back(fmt::format("{}", column["largest_batch"].get<int64_t>()));
  }
  text += aligned(lines) + "\n";

  const json& chosen = *std::ranges::find_if(
      memory, [&](const json& column) { return column["recompute"] == options["recompute"]; });
  const double need = chosen["bytes"];
  text += fmt::format("--recompute {} at --batch {} computes again: {}\n",
                      chosen["recompute"].get<std::string>(), options["batch"].get<int64_t>(),
                      chosen["plan"].get<std::string>());
  text += need > available ? fmt::format("it does not fit: {} GiB are needed\n", in_gibibytes(need))
          : need > train::kShareToFill * available
              ? fmt::format("it may not fit: {} GiB are more than {:.0f} % of what is free\n",
                            in_gibibytes(need), 100 * train::kShareToFill)
              : "it fits\n";
  return text;
}

}  // namespace pararnn::cli
