// What a checkpoint says of its run beside weights and moments: state.json.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

#include "train/config.hpp"
#include "train/stability.hpp"

namespace pararnn::train {

struct RunState {
  int64_t step = 0;         // steps done
  double seconds = 0;       // the run has taken
  int64_t log_bytes = 0;    // of the log
  std::string device;       // that the run was computed on, as describe() tells it
  std::string fingerprint;  // of the data
  std::string content;      // of the data, as checksum_of_content tells it; empty if not known
  Stability stability;      // of the steps done
  TrainConfig options;
};

void save_run_state(const std::filesystem::path& checkpoint, const RunState& state);
/// Throws Error if the file is missing or makes no state.
RunState load_run_state(const std::filesystem::path& checkpoint);

}  // namespace pararnn::train
