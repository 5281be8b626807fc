// The tests of the scan for the cells of examples/cells, but the chaotic one: no two roundings of
// it agree, so it has a test of its own (engine_catalogue_test.cpp).
#define PARARNN_CELLS_UNDER_TEST PARARNN_PREDICTABLE_CATALOGUE
#include "engine_scan_test.cpp"
