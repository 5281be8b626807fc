#include "cells/cell_registry.hpp"

#include <fmt/ranges.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <memory>
#include <mutex>
#include <shared_mutex>

#include "base/error.hpp"
#include "cells/cell_source.hpp"
#include "cells/trusted_cells.hpp"

namespace pararnn {
namespace {

namespace fs = std::filesystem;

bool is_file(std::string_view cell) {
  return cell.find('/') != cell.npos || cell.find('.') != cell.npos;
}

/// Tells whether a file, or one that it includes, may have changed.
struct Stamp {
  std::vector<std::pair<fs::path, fs::file_time_type>> files;

  static Stamp of(const CellDefinition& cell) {
    Stamp stamp;
    const fs::path folder = fs::path(cell.origin).parent_path();
    for (const std::string& file : cell.files()) {
      std::error_code error;
      stamp.files.emplace_back(folder / file, fs::last_write_time(folder / file, error));
    }
    return stamp;
  }
  bool holds() const {
    return std::ranges::all_of(files, [](const auto& file) {
      std::error_code error;
      return fs::last_write_time(file.first, error) == file.second && !error;
    });
  }
};

struct Registry {
  std::shared_mutex mutex;
  std::map<std::string, std::unique_ptr<const CellDefinition>, std::less<>> by_key;
  std::map<std::string, const CellDefinition*, std::less<>> by_name;
  std::map<std::string, std::pair<const CellDefinition*, Stamp>, std::less<>> by_file;
  std::map<std::string, const CellDefinition*, std::less<>> tangents;  // by the cell's key

  const CellDefinition& keep(CellDefinition cell) {
    auto& kept = by_key[cell.key()];
    if (!kept) kept = std::make_unique<const CellDefinition>(std::move(cell));
    return *kept;
  }
};

Registry& registry() {
  // Never destroyed: other threads may run scans until the process ends.
  static Registry& result = *[] {
    auto* made = new Registry;
    for (const CellDefinition& cell : built_in_cells())
      made->by_name[cell.name] = &made->keep(cell);
    return made;
  }();
  return result;
}

bool is_built_in(const std::string& name) {
  return std::ranges::any_of(built_in_cells(), [&](const auto& c) { return c.name == name; });
}

const CellDefinition& find_file(std::string_view file) {
  Registry& all = registry();
  {
    const std::shared_lock lock(all.mutex);
    const auto known = all.by_file.find(file);
    if (known != all.by_file.end() && known->second.second.holds()) return *known->second.first;
  }
  const CellDefinition& cell = register_cell(read_cell(file));
  const std::unique_lock lock(all.mutex);
  all.by_file.insert_or_assign(std::string(file), std::pair(&cell, Stamp::of(cell)));
  return cell;
}

}  // namespace

const CellDefinition& register_cell(CellDefinition cell) {
  Registry& all = registry();
  const std::unique_lock lock(all.mutex);
  const auto known = all.by_name.find(cell.name);
  require(!is_built_in(cell.name) || known->second->digest == cell.digest,
          "there is a built-in cell '{}' already: give the struct {}{} another name", cell.name,
          cell.type, cell.origin.empty() ? "" : " in " + cell.origin);
  if (!is_built_in(cell.name)) trust_cell(cell);
  const std::string name = cell.name;
  const CellDefinition& kept = all.keep(std::move(cell));
  all.by_name[name] = &kept;
  return kept;
}

const CellDefinition& find_stored_cell(const std::string& file, std::string_view name, bool trust) {
  std::string text = read_with_includes(file);
  CellDefinition cell = identify_cell(text, name, file);
  Registry& all = registry();
  {
    const std::shared_lock lock(all.mutex);
    if (const auto known = all.by_key.find(cell.key()); known != all.by_key.end()) {
      return *known->second;
    }
  }
  require(trust || is_trusted(cell),
          "'{}' is source code that came with the model and was not used here before: read it, and "
          "give --trust-cell (in Python trust_cell=True) to have it compiled and run",
          file);
  cell = define_cell(std::move(text), name, file);
  if (!is_built_in(cell.name)) return register_cell(std::move(cell));
  trust_cell(cell);
  const std::unique_lock lock(all.mutex);
  return all.keep(std::move(cell));
}

const CellDefinition& find_tangent(const CellDefinition& cell) {
  require(
      cell.state + cell.inputs + cell.params <= 32,
      "the cell {} has {} states, {} inputs and {} parameters: another derivative of it can be "
      "taken by reverse mode alone (backward, grad, vjp), as a tangent is of at most 32 together",
      cell.name, cell.state, cell.inputs, cell.params);
  Registry& all = registry();
  const std::unique_lock lock(all.mutex);
  const CellDefinition*& tangent = all.tangents[cell.key()];
  if (!tangent) tangent = &all.keep(tangent_of(cell));
  return *tangent;
}

std::string spelling_of(const CellDefinition& cell) {
  const auto is_it = [&](const CellDefinition& c) { return c.key() == cell.key(); };
  return std::ranges::any_of(built_in_cells(), is_it) ? cell.name : cell.key();
}

const CellDefinition& find_cell(std::string_view cell) {
  // A key means one cell for good, and mostly it is asked for again.
  thread_local std::pair<std::string, const CellDefinition*> latest;
  if (cell == latest.first && latest.second) return *latest.second;
  if (is_file(cell)) return find_file(cell);
  Registry& all = registry();
  const std::shared_lock lock(all.mutex);
  if (const auto found = all.by_name.find(cell); found != all.by_name.end()) return *found->second;
  if (const auto found = all.by_key.find(cell); found != all.by_key.end()) {
    latest = {found->first, found->second.get()};
    return *latest.second;
  }
  std::vector<std::string> names;
  for (const auto& [name, definition] : all.by_name) names.push_back(name);
  throw Error(fmt::format("there is no cell '{}'; the cells are {}, or a file: ./cell.hpp", cell,
                          fmt::join(names, ", ")));
}

std::vector<const CellDefinition*> registered_cells() {
  Registry& all = registry();
  const std::shared_lock lock(all.mutex);
  std::vector<const CellDefinition*> cells;
  for (const auto& [name, definition] : all.by_name) cells.push_back(definition);
  return cells;
}

}  // namespace pararnn
