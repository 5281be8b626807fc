// What the program asks of the system before it begins.
#include <fcntl.h>
#include <malloc.h>
#include <unistd.h>

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

// Where standard input, output or error is closed, the next file that is opened would take its
// place, and get what is printed. Nothing can be written to what takes it instead.
void keep_standard_descriptors() {
  int descriptor = 0;
  while (descriptor >= 0 && descriptor <= STDERR_FILENO) descriptor = ::open("/dev/null", O_RDONLY);
  if (descriptor >= 0) ::close(descriptor);
}

}  // namespace

int main(int argc, char** argv) {
  keep_standard_descriptors();
  keep_freed_memory();
  std::signal(SIGXFSZ, SIG_IGN);  // a file that may not grow is an error of the write, not the end
  return pararnn::cli::run_program(argc, argv);
}
