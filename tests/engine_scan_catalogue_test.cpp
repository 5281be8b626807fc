// The tests of the scan for the cells of examples/cells.
#if defined(__SANITIZE_ADDRESS__)
#define PARARNN_CELLS_UNDER_TEST(X) X(min_gru, MinGru)
#else
#define PARARNN_CELLS_UNDER_TEST PARARNN_CATALOGUE
#endif
#include "engine_scan_test.cpp"
