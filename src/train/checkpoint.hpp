// Checkpoints of a run. A run is a folder; a checkpoint is a folder step-00000500 in it, which
// appears whole or not at all: it is written aside, forced to the disk and renamed. Its
// manifest.json lists the other files with sizes and checksums, so that damage is found and named.
// `latest` is a symbolic link to the newest checkpoint and always points at a whole one. Whoever
// changes a run holds its lock.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "data/folder_lock.hpp"

namespace pararnn::train {

/// The log of a run, in its folder.
inline constexpr const char* kLogFile = "log.jsonl";

struct WrittenCheckpoint {
  std::filesystem::path path;
  std::vector<std::string> warnings;  // a sentence for each thing that failed once it was there
};

/// Which checkpoints stay when a new one is written: the newest, and those of every so many steps.
struct KeptCheckpoints {
  int64_t newest = 3;
  int64_t every = 0;  // steps; 0: none
};

/// Makes the checkpoint of `step` in the run: `write_files` fills the folder it is given; then the
/// folder takes its name, `latest` its new target, and all but the kept checkpoints go.
/// Throws Error (a full disk) if there is no such checkpoint now, and leaves the earlier ones as
/// they were.
WrittenCheckpoint write_checkpoint(
    const std::filesystem::path& run, int64_t step, const KeptCheckpoints& kept,
    const std::function<void(const std::filesystem::path&)>& write_files);

/// step-00000500 → 500: names of steps beyond eight digits sort as numbers too.
int64_t step_of(const std::filesystem::path& checkpoint);

/// The checkpoints of a run, oldest first.
std::vector<std::filesystem::path> list_checkpoints(const std::filesystem::path& run);

/// The checkpoint that `path` means: a checkpoint itself, or the newest one of a run.
/// Throws Error if there is none.
std::filesystem::path find_checkpoint(const std::filesystem::path& path);

/// Throws Error that names the damaged file and the checkpoint to use instead, unless every file is
/// as it was written. A folder without the list has nothing to be compared with: that is damage if
/// `manifest_needed`.
void verify_checkpoint(const std::filesystem::path& checkpoint, bool manifest_needed);

/// Gives the checkpoints newer than this one another name, so that the run goes on from here.
/// Returns a sentence for each thing that failed but does not stand in the way.
std::vector<std::string> set_newer_checkpoints_aside(const std::filesystem::path& checkpoint);

/// Makes the folder of a new run. Throws Error if something is in it already; with `overwrite`, the
/// run that is in it is deleted instead. The run is this process's alone while the lock lives;
/// throws Error if it is another's.
[[nodiscard]] data::FolderLock create_run(const std::filesystem::path& run, bool overwrite);

/// The same for a run that is there, to go on with it. Deletes what a kill in the middle of writing
/// or deleting a checkpoint left behind.
[[nodiscard]] data::FolderLock open_run(const std::filesystem::path& run);

}  // namespace pararnn::train
