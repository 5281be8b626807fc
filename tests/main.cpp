// GoogleTest's main, but for the exit status where every test was skipped: ctest is told to show
// that as skipped (tests/CMakeLists.txt).
#include <gtest/gtest.h>

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  const int status = RUN_ALL_TESTS();
  const testing::UnitTest& tests = *testing::UnitTest::GetInstance();
  const bool skipped = tests.successful_test_count() == 0 && tests.skipped_test_count() > 0;
  return status == 0 && skipped ? PARARNN_SKIPPED : status;
}
