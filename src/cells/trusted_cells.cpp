#include "cells/trusted_cells.hpp"

#include <algorithm>
#include <filesystem>

#include "cells/cell_registry.hpp"
#include "cells/cell_source.hpp"
#include "jit/disk_cache.hpp"
#include "jit/system.hpp"

namespace pararnn {
namespace {

namespace fs = std::filesystem;

fs::path data_folder() {
  if (const std::string folder = jit::environment("XDG_DATA_HOME"); !folder.empty()) {
    return fs::path(folder) / "pararnn" / "cells";
  }
  if (const std::string home = jit::environment("HOME"); !home.empty()) {
    return fs::path(home) / ".local" / "share" / "pararnn" / "cells";
  }
  return {};
}

std::string source_of(const CellDefinition& cell) {
  return cell.type + "\n" + normalized_code(cell.text);
}

}  // namespace

void trust_cell(const CellDefinition& cell) {
  const jit::DiskCache known(data_folder());
  const std::string source = source_of(cell);
  if (known.load(cell.digest) != source) known.store(cell.digest, source);
}

bool is_trusted(const CellDefinition& cell) {
  const std::string source = source_of(cell);
  return jit::DiskCache(data_folder()).load(cell.digest) == source ||
         std::ranges::any_of(built_in_cells(),
                             [&](const CellDefinition& c) { return source_of(c) == source; });
}

}  // namespace pararnn
