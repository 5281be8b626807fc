// The tests of the scan for the cells of examples/cells, but the chaotic one: no two roundings of
// it agree, so it has a test of its own (engine_catalogue_test.cpp).
#if defined(__SANITIZE_ADDRESS__)
#define PARARNN_CELLS_UNDER_TEST(X) X(min_gru, MinGru)
#else
#define PARARNN_CELLS_UNDER_TEST PARARNN_PREDICTABLE_CATALOGUE
#endif
#include "engine_scan_test.cpp"
