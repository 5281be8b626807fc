// What the program asks of the system before it begins.
#include <malloc.h>

#include <csignal>
#include <limits>

#include "cli/program.hpp"

namespace {

// Large tensors come and go with every step. Their memory is kept for the next one: given back to
// the system it would be cleared page by page each time, a seventh of a forward and backward pass.
void keep_freed_memory() {
  mallopt(M_MMAP_MAX, 0);
  mallopt(M_TRIM_THRESHOLD, std::numeric_limits<int>::max());
  mallopt(M_TOP_PAD, 256 << 20);
}

}  // namespace

int main(int argc, char** argv) {
  keep_freed_memory();
  std::signal(SIGXFSZ, SIG_IGN);  // a file that may not grow is an error of the write, not the end
  return pararnn::cli::run_program(argc, argv);
}
