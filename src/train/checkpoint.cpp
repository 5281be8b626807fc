#include "train/checkpoint.hpp"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string>

#include "base/error.hpp"
#include "base/hash.hpp"
#include "base/output_file.hpp"
#include "data/mapped_file.hpp"

namespace pararnn::train {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kManifest = "manifest.json";
constexpr std::string_view kLatest = "latest";
constexpr std::string_view kFormat = "pararnn checkpoint 1";
// Names that begin so are being written or deleted, and mean nothing to anyone else.
constexpr std::string_view kAside = ".aside-";

std::string checkpoint_name(int64_t step) { return fmt::format("step-{:08}", step); }

bool is_checkpoint_name(const std::string& name) {
  constexpr std::string_view prefix = "step-";
  return name.starts_with(prefix) && name.size() > prefix.size() &&
         name.find_first_not_of("0123456789", prefix.size()) == std::string::npos;
}

fs::path aside(const fs::path& path) {
  return path.parent_path() / (std::string(kAside) + path.filename().string());
}

/// Does `action`; what goes wrong is a warning that begins with `failure`.
template <class Action>
void or_warn(std::vector<std::string>& warnings, const std::string& failure, Action action) {
  try {
    action();
  } catch (const fs::filesystem_error& error) {
    warnings.push_back(fmt::format("{} ({})", failure, error.code().message()));
  } catch (const Error& error) {
    warnings.push_back(fmt::format("{} ({})", failure, error.what()));
  }
}

/// Points the link `latest` of the checkpoint's run at it, by one rename.
void point_latest_at(const fs::path& checkpoint, std::vector<std::string>& warnings) {
  const fs::path run = checkpoint.parent_path(), latest = run / kLatest;
  or_warn(warnings, latest.string() + " does not point at the newest checkpoint", [&] {
    fs::remove(aside(latest));
    fs::create_symlink(checkpoint.filename(), aside(latest));
    fs::rename(aside(latest), latest);
  });
  or_warn(warnings, "the names in " + run.string() + " may not outlast a power cut",
          [&] { force_to_disk(run); });
}

std::string checksum_of_file(const fs::path& path) {
  const data::MappedFile file(path);
  return checksum_of(file.read(0, file.size()));
}

/// Takes the name away first, so that no half-deleted checkpoint is ever seen.
void delete_checkpoint(const fs::path& checkpoint) {
  fs::remove_all(aside(checkpoint));
  fs::rename(checkpoint, aside(checkpoint));
  force_to_disk(checkpoint.parent_path());
  fs::remove_all(aside(checkpoint));
}

/// Deletes what a kill in the middle of writing or deleting a checkpoint left behind. What cannot
/// be deleted means nothing, and stays.
void clean_run(const fs::path& run) {
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(run, ignored)) {
    if (entry.path().filename().string().starts_with(kAside)) {
      fs::remove_all(entry.path(), ignored);
    }
  }
}

data::FolderLock lock_run(const fs::path& run) { return {run, "training in"}; }

void write_manifest(const fs::path& folder) {
  nlohmann::json files;
  for (const auto& entry : fs::directory_iterator(folder)) {
    files[entry.path().filename().string()] = {{"bytes", entry.file_size()},
                                               {"checksum", checksum_of_file(entry.path())}};
    force_to_disk(entry.path());
  }
  const nlohmann::json manifest = {
      {"format", kFormat}, {"files", files}, {"checksum", checksum_of(files.dump())}};
  write_file(folder / kManifest, manifest.dump(2) + "\n");
  force_to_disk(folder);
}

/// What is wrong with the checkpoint, as "file is ...", or nothing.
std::string find_damage(const fs::path& checkpoint) {
  const fs::path manifest_path = checkpoint / kManifest;
  if (!fs::exists(manifest_path)) return manifest_path.string() + " is missing";
  const nlohmann::json manifest =
      nlohmann::json::parse(data::read_file(manifest_path), nullptr, /*allow_exceptions=*/false);
  if (!manifest.is_object() || manifest.value("format", nlohmann::json()) != kFormat ||
      !manifest.contains("files") ||
      manifest.value("checksum", nlohmann::json()) != checksum_of(manifest["files"].dump())) {
    return manifest_path.string() + " is damaged";
  }
  for (const auto& [name, expected] : manifest["files"].items()) {
    const fs::path file = checkpoint / name;
    if (!fs::is_regular_file(file)) return file.string() + " is missing";
    const bool whole =
        expected.is_object() && expected.value("bytes", nlohmann::json()) == fs::file_size(file);
    if (!whole) return file.string() + " is truncated or has grown";
    if (expected.value("checksum", nlohmann::json()) != checksum_of_file(file))
      return file.string() + " is damaged";
  }
  return {};
}

}  // namespace

int64_t step_of(const fs::path& checkpoint) {
  return std::stoll(checkpoint.filename().string().substr(5));
}

WrittenCheckpoint write_checkpoint(const fs::path& run, int64_t step, const KeptCheckpoints& kept,
                                   const std::function<void(const fs::path&)>& write_files) {
  const fs::path checkpoint = run / checkpoint_name(step);
  const fs::path folder = aside(checkpoint);
  try {
    fs::remove_all(folder);
    fs::create_directories(folder);
    write_files(folder);
    write_manifest(folder);
    rename_folder(folder, checkpoint);
  } catch (const std::exception& error) {
    std::error_code ignored;
    fs::remove_all(folder, ignored);
    const std::vector<fs::path> earlier = list_checkpoints(run);
    throw Error(fmt::format("the checkpoint of step {} was not written ({}); {}", step,
                            error.what(),
                            earlier.empty() ? "the run has no earlier one"
                                            : "the last good one is " + earlier.back().string()));
  }
  WrittenCheckpoint written{checkpoint, {}};
  point_latest_at(checkpoint, written.warnings);
  const std::vector<fs::path> all = list_checkpoints(run);
  for (size_t i = 0; i < all.size(); ++i) {
    const bool new_enough = std::ssize(all) - static_cast<int64_t>(i) <= kept.newest;
    if (new_enough || (kept.every > 0 && step_of(all[i]) % kept.every == 0)) continue;
    or_warn(written.warnings, "the old checkpoint " + all[i].string() + " was not deleted",
            [&] { delete_checkpoint(all[i]); });
  }
  return written;
}

std::vector<fs::path> list_checkpoints(const fs::path& run) {
  std::vector<fs::path> checkpoints;
  if (!fs::is_directory(run)) return checkpoints;
  for (const auto& entry : fs::directory_iterator(run)) {
    if (entry.is_directory() && is_checkpoint_name(entry.path().filename().string())) {
      checkpoints.push_back(entry.path());
    }
  }
  std::ranges::sort(checkpoints, {}, step_of);
  return checkpoints;
}

fs::path find_checkpoint(const fs::path& path) {
  require(fs::exists(path), "{} does not exist", path.string());
  if (fs::exists(path / kManifest) || fs::exists(path / "config.json"))
    return path.lexically_normal();
  const std::vector<fs::path> checkpoints = list_checkpoints(path);
  require(!checkpoints.empty(), "{} holds no checkpoint: it is neither a run nor a checkpoint",
          path.string());
  return checkpoints.back();
}

void verify_checkpoint(const fs::path& checkpoint, bool manifest_needed) {
  if (!manifest_needed && !fs::exists(checkpoint / kManifest)) return;
  const std::string damage = find_damage(checkpoint);
  if (damage.empty()) return;
  // A name like `latest` is resolved, so that the checkpoints before it are found.
  const fs::path resolved = fs::weakly_canonical(checkpoint);
  std::string mend = "its run has no earlier checkpoint, so train anew with --overwrite";
  if (is_checkpoint_name(resolved.filename().string())) {
    for (const fs::path& other : list_checkpoints(resolved.parent_path())) {
      if (step_of(other) >= step_of(resolved)) break;
      mend =
          "use the checkpoint before it, " + (checkpoint.parent_path() / other.filename()).string();
    }
  }
  throw Error(damage + "; " + mend);
}

std::vector<std::string> set_newer_checkpoints_aside(const fs::path& checkpoint) {
  std::vector<std::string> warnings;
  std::vector<fs::path> newer = list_checkpoints(checkpoint.parent_path());
  std::erase_if(newer,
                [&](const fs::path& other) { return step_of(other) <= step_of(checkpoint); });
  if (newer.empty()) return warnings;
  point_latest_at(checkpoint, warnings);
  for (const fs::path& other : newer) {
    fs::path abandoned = other;
    abandoned += ".abandoned";
    fs::remove_all(abandoned);
    rename_folder(other, abandoned);
  }
  force_to_disk(checkpoint.parent_path());
  return warnings;
}

data::FolderLock create_run(const fs::path& run, bool overwrite) {
  data::FolderLock lock = lock_run(run);
  if (overwrite) {
    clean_run(run);
    fs::remove(run / kLatest);
    fs::remove(run / kLogFile);
    for (const fs::path& checkpoint : list_checkpoints(run)) delete_checkpoint(checkpoint);
  }
  require(overwrite || data::is_empty_but_for_lock(run),
          "{} is not empty: --resume goes on with the run in it, --overwrite replaces it, another "
          "--out leaves it alone",
          run.string());
  return lock;
}

data::FolderLock open_run(const fs::path& run) {
  require(fs::is_directory(run), "there is no run at {}", run.string());
  data::FolderLock lock = lock_run(run);
  clean_run(run);
  return lock;
}

}  // namespace pararnn::train
