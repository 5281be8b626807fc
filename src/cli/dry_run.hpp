// `pararnn train --dry-run`: what a run would be and take, reckoned from its options. No tensor is
// made, and no folder.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>

#include "nn/config.hpp"
#include "train/config.hpp"

namespace pararnn::cli {

/// What is to be reckoned, beside a run's own options.
struct DryRunOptions {
  bool asked_for = false;
  int64_t vocabulary = 32'000;  // where no data tells it
  double memory = 0;            // GiB that the device has free; 0: what the one at hand has
  std::string json;             // a file for the report; empty: none
};

/// The parameters by part, the operations of a token, and by --recompute what a step takes of
/// memory and the largest batch that fits. `device` is a name of train::find_device; where the
/// memory is given it need not be there, and is a GPU unless it is "cpu". Throws Error on a device
/// that is not there.
nlohmann::json dry_run(const nn::ModelConfig& model, const train::TrainConfig& config,
                       const std::string& device, double memory);

/// The report as tables.
std::string describe_dry_run(const nlohmann::json& report);

}  // namespace pararnn::cli
