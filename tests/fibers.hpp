// A GPU's threads on one thread of the host: each is a fiber, with a stack of its own, that runs
// until it waits for another. Their order is random. Blocks of a cooperative grid run together,
// those of any other grid one after another. What is shared, and what an asynchronous copy will
// bring, is NaN until it is written.
#pragma once

#include <ucontext.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <numeric>
#include <random>
#include <stdexcept>
#include <vector>

#include "pararnn/cuda/kernel_list.hpp"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

namespace pararnn::fibers {

struct Index {
  unsigned x = 0, y = 0, z = 0;
};

/// Where so many meet, again and again.
struct Meeting {
  int expected = 0, arrived = 0;
  unsigned times = 0;
  bool any = false, result = false;  // whether any came with something

  void come(bool mine = false) {
    any = any || mine;
    if (++arrived == expected) release();
  }
  /// One who will not come any more.
  void leave() {
    if (--expected == arrived && arrived > 0) release();
  }
  void release() {
    result = any;
    any = false;
    arrived = 0;
    ++times;
  }
};

struct Warp {
  Meeting meeting;
  unsigned char values[cuda::kWarp][32];
};

struct Block {
  Index index;
  Meeting meeting;
  std::vector<Warp> warps;
  std::map<const void*, std::vector<unsigned char>> shared;
};

struct Copy {
  void* to;
  const void* from;
  std::size_t bytes;
};

struct Fiber {
  ucontext_t context;
  unsigned char* stack = nullptr;
  Block* block = nullptr;
  Index thread;
  int number = 0;                      // in the block
  const Meeting* waits_for = nullptr;  // until it has met more often than `times`
  unsigned times = 0, cluster_times = 0;
  bool done = false, spins = false;
  std::vector<std::vector<Copy>> sent = {{}};  // groups on their way, the last one open
#if defined(__SANITIZE_ADDRESS__)
  void* fake_stack = nullptr;
#endif

  Warp& warp() { return block->warps[number / cuda::kWarp]; }
  bool waits() const { return waits_for && waits_for->times == times; }
};

inline constexpr std::size_t kStackBytes = 256 << 10;

class Machine {
 public:
  /// Calls kernel() on every thread of a grid. Throws if threads wait for each other for ever.
  void run(const cuda::Grid& grid, const std::function<void()>& kernel) {
    kernel_ = &kernel;
    size = {unsigned(grid.threads), unsigned(grid.rows_of_threads), 1};
    blocks = {unsigned(grid.blocks), unsigned(grid.rows_of_blocks), 1};
    std::vector<Index> order;
    for (unsigned y = 0; y < blocks.y; ++y) {
      for (unsigned x = 0; x < blocks.x; ++x) order.push_back({x, y, 0});
    }
    std::ranges::shuffle(order, random);
    if (grid.cooperative) return run_together(order);
    for (const Index& block : order) run_together({block});
  }

  /// Gives the thread that runs now back to the machine.
  void pause() {
    Fiber& self = *current;
    switch_stack(&self.context, &main_, true);
    finish_switch();
  }
  void wait_for(const Meeting& meeting, unsigned times) {
    current->waits_for = &meeting;
    current->times = times;
    while (current->waits()) pause();
  }

  /// Clusters of so many blocks along x, each of which the threads come to and wait for in turn.
  void come_to_cluster(int blocks_of_cluster) {
    Meeting& meeting = cluster(blocks_of_cluster);
    current->cluster_times = meeting.times;
    meeting.come();
  }
  void wait_for_cluster(int blocks_of_cluster) {
    wait_for(cluster(blocks_of_cluster), current->cluster_times);
  }
  /// What another block of the cluster has where this one has `mine` in its shared memory.
  void* in_cluster(void* mine, int blocks_of_cluster, int rank) {
    const unsigned x = current->block->index.x / blocks_of_cluster * blocks_of_cluster + rank;
    const auto other =
        std::ranges::find_if(*together_, [&](const Block& b) { return b.index.x == x; });
    for (auto& [key, memory] : current->block->shared) {
      const auto at = static_cast<unsigned char*>(mine) - memory.data();
      if (at < 0 || at >= std::ptrdiff_t(memory.size())) continue;
      auto& there = other->shared[key];
      if (there.empty()) there.resize(memory.size(), 0xff);
      return there.data() + at;
    }
    throw std::runtime_error("this is not in the shared memory of a block");
  }

  std::mt19937 random{1};
  Fiber* current = nullptr;
  Index size, blocks;  // of a block in threads, of the grid in blocks

 private:
  void run_together(const std::vector<Index>& indices) {
    const int threads = int(size.x * size.y), warps = (threads + cuda::kWarp - 1) / cuda::kWarp;
    std::vector<Block> together(indices.size());
    together_ = &together;
    clusters_.clear();
    fibers_ = std::vector<Fiber>(indices.size() * threads);
    while (stacks_.size() < fibers_.size()) {
      stacks_.push_back(std::make_unique_for_overwrite<unsigned char[]>(kStackBytes));
    }
    for (std::size_t b = 0; b < together.size(); ++b) {
      Block& block = together[b];
      block.index = indices[b];
      block.meeting.expected = threads;
      block.warps.resize(warps);
      for (int i = 0; i < threads; ++i) {
        const std::size_t n = b * threads + i;
        Fiber& fiber = fibers_[n];
        fiber.block = &block;
        fiber.number = i;
        fiber.thread = {i % size.x, i / size.x, 0};
        fiber.stack = stacks_[n].get();
        ++fiber.warp().meeting.expected;
        prepare(fiber.context, fiber.stack);
      }
    }
    std::vector<std::size_t> order(fibers_.size());
    std::iota(order.begin(), order.end(), 0);
    std::ranges::shuffle(order, random);
    std::size_t left = fibers_.size();
    for (int idle_rounds = 0; left > 0; ++idle_rounds) {
      // Threads that only look for what others write see nothing new after a round of such looks.
      if (idle_rounds > 2) throw std::runtime_error("GPU threads wait for each other for ever");
      for (const std::size_t n : order) {
        Fiber& fiber = fibers_[n];
        if (fiber.done || fiber.waits()) continue;
        fiber.spins = false;
        resume(fiber);
        if (!fiber.spins) idle_rounds = 0;
        left -= fiber.done;
      }
    }
  }

  Meeting& cluster(int blocks_of_cluster) {
    Meeting& meeting = clusters_[current->block->index.x / unsigned(blocks_of_cluster)];
    meeting.expected = blocks_of_cluster * int(size.x * size.y);
    return meeting;
  }

  static void prepare(ucontext_t& context, unsigned char* stack) {
    getcontext(&context);
    context.uc_stack.ss_sp = stack;
    context.uc_stack.ss_size = kStackBytes;
    context.uc_link = nullptr;
    makecontext(&context, &Machine::enter, 0);
  }

  void resume(Fiber& fiber) {
    current = &fiber;
#if defined(__SANITIZE_ADDRESS__)
    void* fake_stack = nullptr;
    __sanitizer_start_switch_fiber(&fake_stack, fiber.stack, kStackBytes);
    swapcontext(&main_, &fiber.context);
    __sanitizer_finish_switch_fiber(fake_stack, nullptr, nullptr);
#else
    swapcontext(&main_, &fiber.context);
#endif
  }
  void switch_stack(ucontext_t* from, ucontext_t* to, [[maybe_unused]] bool comes_back) {
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_start_switch_fiber(comes_back ? &current->fake_stack : nullptr, main_stack_,
                                   main_bytes_);
#endif
    swapcontext(from, to);
  }
  void finish_switch() {
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(current->fake_stack, &main_stack_, &main_bytes_);
#endif
  }
  static void enter();

  const std::function<void()>* kernel_ = nullptr;
  ucontext_t main_;
  std::vector<Fiber> fibers_;
  std::vector<Block>* together_ = nullptr;
  std::map<unsigned, Meeting> clusters_;
  std::vector<std::unique_ptr<unsigned char[]>> stacks_;
#if defined(__SANITIZE_ADDRESS__)
  const void* main_stack_ = nullptr;
  std::size_t main_bytes_ = 0;
#endif
};

inline Machine machine;

inline void Machine::enter() {
  machine.finish_switch();
  (*machine.kernel_)();
  Fiber& self = *machine.current;
  self.done = true;
  self.block->meeting.leave();
  self.warp().meeting.leave();
  machine.switch_stack(&self.context, &machine.main_, false);
}

/// A variable of the running thread's block, one for each type `Place`, as that of a lambda.
template <class T, class Place>
T& shared_variable(Place) {
  static const char key = 0;
  auto& memory = machine.current->block->shared[&key];
  if (memory.empty()) memory.resize(sizeof(T), 0xff);
  return *reinterpret_cast<T*>(memory.data());
}

/// Brings a copy at once, or as late as it may come.
inline void send(const Copy& copy) {
  if (machine.random() % 2 == 0) {
    std::memcpy(copy.to, copy.from, copy.bytes);
  } else {
    std::memset(copy.to, 0xff, copy.bytes);
    machine.current->sent.back().push_back(copy);
  }
}
inline void wait_for_sent(std::size_t youngest) {
  auto& groups = machine.current->sent;
  while (groups.size() > youngest + 1) {
    for (const Copy& copy : groups.front()) std::memcpy(copy.to, copy.from, copy.bytes);
    groups.erase(groups.begin());
  }
}

}  // namespace pararnn::fibers
