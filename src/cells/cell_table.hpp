// Tables of functions that the engine's templates make from a cell: its kernels for the CPU, its
// plain loops. Those of the built-in cells are part of the library. Others are compiled by the
// system's C++ compiler when they are first asked for, one table at a time. Either way a table is
// found by the cell's digest, and stays for as long as the process lives.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "cells/cell_definition.hpp"

namespace pararnn {

/// How a table is made: `function`<the cell's struct> of a header of the engine.
struct TableProgram {
  std::string header;                     // "pararnn/cpu/kernels.hpp"
  std::string function;                   // "pararnn::cpu::make_kernels<{}, float>"
  std::vector<std::string> options = {};  // beside the usual ones: "-mavx2"
};

/// Compiles the program and lets it write its table to `table`. Throws Error, as explain() words
/// it, if the cell does not compile, and Error if there is no compiler.
void compile_table(const CellDefinition& cell, const TableProgram& program, void* table);

/// The tables of one kind, by the digest of their cell.
template <class Table>
class CellTables {
 public:
  CellTables(TableProgram program, std::map<std::string, Table> built_in)
      : program_(std::move(program)) {
    for (auto& [digest, table] : built_in) {
      Slot& slot = slots_[digest];
      slot.table = table;
      slot.made = true;
    }
  }

  const Table& of(const CellDefinition& cell) {
    Slot& slot = find(cell.digest);
    const std::lock_guard lock(slot.mutex);  // others may compile at the same time
    if (!slot.made) compile_table(cell, program_, &slot.table);
    slot.made = true;
    return slot.table;
  }

 private:
  struct Slot {
    std::mutex mutex;
    bool made = false;
    Table table{};
  };
  Slot& find(const std::string& digest) {
    const std::lock_guard lock(mutex_);
    return slots_[digest];
  }

  TableProgram program_;
  std::mutex mutex_;
  std::map<std::string, Slot> slots_;  // whose places in memory stay
};

}  // namespace pararnn
