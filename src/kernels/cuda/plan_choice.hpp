// Which plan is fastest at one place of a program, from how long earlier calls took there. Shapes
// tell the planner about how to cut a sequence, but not how long the cell remembers: that depends
// on the weights, and changes as they are trained. So the planner's best plans are timed in turn,
// and the fastest of them with a shorter burn-in, which must leave nothing to be corrected; where
// the planner's burn-in left many columns to be corrected, longer burn-ins, Newton's way and the
// run in order are timed. The fastest is kept until the times change. Pure logic, no device.
//
//   PlanChoice choice(request);
//   run(choice.best());                      // a call that is not timed
//   run(choice.next());                      // a call that is timed, and its time:
//   choice.record(milliseconds, corrected);
#pragma once

#include <vector>

#include "pararnn/plan.hpp"

namespace pararnn {

class PlanChoice {
 public:
  /// For a request whose way is "auto".
  explicit PlanChoice(const PlanRequest& request);

  /// The fastest so far.
  const Plan& best() const;

  /// Whether there is anything to learn from the time of this call, the last of `calls` since it
  /// was asked before.
  bool wants_time(long calls = 1);

  /// Whether it is being found out what is fastest.
  bool exploring() const { return candidates_.size() > 1 && exploring_; }

  /// What to time next.
  const Plan& next() const { return candidates_[running_].plan; }

  /// What next() took, and the share of its columns that were corrected.
  void record(double milliseconds, double share_corrected);

 private:
  /// A plan with the planner's burn-in, the plan before it with a shorter one, or any other.
  enum class Origin { kPlanner, kShorter, kOther };
  struct Candidate {
    Plan plan;
    Origin origin;
    double least_milliseconds;  // no machine is known to be faster
    double milliseconds;        // the best of its trials
    int trials = 0;
    bool has_run = false;  // ever
  };
  size_t fastest() const;
  bool worth_a_trial(size_t i) const;
  void explore();
  void choose_next();

  std::vector<Candidate> candidates_;
  size_t running_ = 0;
  bool exploring_ = true;
  bool forgets_ = false;  // whether the planner's burn-in was enough when last tried
  int slower_ = 0;        // times in a row that the choice was slower than when it was chosen
  long calls_ = 0;        // since it was chosen
  long timed_at_ = 0;     // of these, the last that was timed
};

}  // namespace pararnn
